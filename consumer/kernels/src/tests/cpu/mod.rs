//! The processor's back-end, on every instruction set that the processor has.

mod embed_layer_norm;
mod gate;
mod int8;
mod layer_norm;
mod linear;
mod math;
mod pool_normalize;
mod rotary;
mod simd;
mod threads;
mod varlen_attention;
