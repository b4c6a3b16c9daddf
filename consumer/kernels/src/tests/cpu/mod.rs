//! The processor's back-end, on every instruction set that the processor has: a module for each operation, by its name;
//! `linear` in int8 in `int8`, and of weights in blocks in `blocks`.

mod add_layer_norm;
mod add_rms_norm;
mod blocks;
mod embed_layer_norm;
mod experts;
mod feed_forward;
mod gate;
mod head_linear;
mod int8;
mod layer_norm;
mod linear;
mod linear_layer_norm;
mod math;
mod paged;
mod pool_normalize;
mod rms_norm;
mod rotary;
mod route;
mod simd;
mod spin_pool;
mod threads;
mod varlen_attention;
mod weight_rows;

use candle_core::{DType, Tensor};

use super::{noise, tensor, values};

/// A weight whose matrix products with noise are of the size of noise, with the values that its number type holds.
fn weight(dtype: DType, seed: u64, [outputs, inputs]: [usize; 2]) -> (Tensor, Vec<f32>) {
    let size = (inputs as f32).sqrt();
    let scaled: Vec<f32> = noise(seed, outputs * inputs).iter().map(|value| value / size).collect();
    let weight = tensor(&scaled, &[outputs, inputs]).to_dtype(dtype).unwrap();
    let values = values(&weight);
    (weight, values)
}
