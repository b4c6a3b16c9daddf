//! `linear`: one tall product for all packed tokens, with what follows it applied while it is in the cache.
//!
//! | | |
//! | --- | --- |
//! | formula | `y = activation(x * transpose(weight) + bias)` |
//! | shapes | `x`: `[tokens, in]`; `weight`: `[out, in]`, as checkpoints store it; `bias`: `[out]`; `y`: `[tokens, out]` |
//! | dtype | f32 |
//! | numerics | products fused and summed in f32; GELU is the exact one (erf), its absolute error at most 3e-7 times its input |
//! | source | Hendrycks and Gimpel 2016 (GELU) |
//!
//! Rows are cut into chunks; a thread multiplies a chunk (crate `gemm`, without its own threads) and runs the
//! epilogue over it at once.
#![allow(unsafe_code)]

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use crate::KernelError;
use crate::math::gelu;
use crate::operand::{Operand, borrow, values};
use crate::simd::{Isa, Target, dispatched};

const OP: &str = "linear";

/// What is applied to each value of the product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// The exact (erf) GELU.
    Gelu,
}

/// A product with its bias and activation.
#[derive(Debug, Clone, Default)]
pub struct Linear {
    /// `[out]`; `None` adds nothing.
    pub bias: Option<Tensor>,
    /// Applied last.
    pub activation: Activation,
}

impl Linear {
    /// `x`: `[tokens, in]`, `weight`: `[out, in]`; gives `[tokens, out]`.
    pub fn forward(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor, KernelError> {
        let (_, inputs) = Operand { op: OP, name: "x", tensor: x }.matrix()?;
        let operand = Operand { op: OP, name: "weight", tensor: weight };
        let (outputs, width) = operand.matrix()?;
        if width != inputs {
            return Err(operand.shape_error(format!("[out, {inputs}], as wide as x")));
        }
        if let Some(bias) = &self.bias {
            Operand { op: OP, name: "bias", tensor: bias }.expect(&[outputs])?;
        }
        Ok(x.apply_op2_no_bwd(weight, self)?)
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, weight) = (values(x, x_layout)?, values(weight, weight_layout)?);
        let (tokens, inputs) = (x_layout.dims()[0], x_layout.dims()[1]);
        let outputs = weight_layout.dims()[0];
        let bias = self.bias.as_ref().map(borrow);
        let bias = bias.as_ref().map(|bias| bias.values()).transpose()?;
        let isa = Isa::best();
        let mut out = vec![0.0; tokens * outputs];
        if !out.is_empty() {
            let rows = rows_per_chunk(tokens);
            out.par_chunks_mut(rows * outputs).enumerate().for_each(|(chunk, out)| {
                let count = out.len() / outputs;
                product(
                    out,
                    &x[chunk * rows * inputs..][..count * inputs],
                    weight,
                    [count, inputs, outputs],
                );
                match (self.activation, bias) {
                    (Activation::None, None) => {}
                    (Activation::None, Some(bias)) => add_bias(isa, out, bias),
                    (Activation::Gelu, Some(bias)) => add_bias_gelu(isa, out, bias),
                    (Activation::Gelu, None) => only_gelu(isa, out),
                }
            });
        }
        Ok((CpuStorage::F32(out), (tokens, outputs).into()))
    }
}

/// Rows of a chunk: balanced over the threads, and small enough for the epilogue to find it in the cache.
fn rows_per_chunk(rows: usize) -> usize {
    let rows_max: usize = std::env::var("ROWS").map_or(512, |s| s.parse().unwrap());
    let threads = rayon::current_num_threads();
    let rounds = rows.div_ceil(threads * rows_max);
    rows.div_ceil(threads * rounds)
}

/// `out = x * transpose(weight)` for `[rows, inputs]` by `[outputs, inputs]`, on the calling thread.
fn product(out: &mut [f32], x: &[f32], weight: &[f32], [rows, inputs, outputs]: [usize; 3]) {
    assert!(
        out.len() == rows * outputs && x.len() == rows * inputs && weight.len() == outputs * inputs
    );
    // SAFETY: the assertion above bounds every row and column that the strides below reach, and `out` is
    // borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            rows,
            outputs,
            inputs,
            out.as_mut_ptr(),
            1,
            outputs as isize,
            false,
            x.as_ptr(),
            1,
            inputs as isize,
            weight.as_ptr(),
            inputs as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

dispatched! {
    /// Adds the bias to each row.
    fn add_bias(out: &mut [f32], bias: &[f32]) = add_bias_rows;
}

#[inline(always)]
fn add_bias_rows<T: Target>(out: &mut [f32], bias: &[f32]) {
    for row in out.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

dispatched! {
    /// Adds the bias to each row, then GELU.
    fn add_bias_gelu(out: &mut [f32], bias: &[f32]) = add_bias_gelu_rows;
}

#[inline(always)]
fn add_bias_gelu_rows<T: Target>(out: &mut [f32], bias: &[f32]) {
    for row in out.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value = gelu::<T>(*value + bias);
        }
    }
}

dispatched! {
    /// GELU of each value.
    fn only_gelu(out: &mut [f32]) = only_gelu_values;
}

#[inline(always)]
fn only_gelu_values<T: Target>(out: &mut [f32]) {
    for value in out {
        *value = gelu::<T>(*value);
    }
}
