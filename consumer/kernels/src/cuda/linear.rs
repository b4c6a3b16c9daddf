//! `linear`: one kernel on Hopper (`linear_sm90a.cu`), elsewhere a cuBLAS GEMM with `bias_activation.cu` as epilogue.
#![allow(unsafe_code)]

use candle_core::cuda_backend::cudarc::cublas::{Gemm, GemmConfig, sys::cublasOperation_t};
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::cuda_backend::{CudaDType, CudaDevice, cudarc};
use candle_core::{CpuStorage, CudaStorage, Error, InplaceOp1, Layout, Result, Storage, Tensor};
use half::{bf16, f16};

use super::address::{address_of, aligned, half, optional_address};
use super::device::run;
use super::error::error;
use super::launch::{Half, LinearSm90a, bias_activation};
use super::linear_kernels::chosen;
use crate::ops::activation::Activation;
use crate::ops::linear::{Linear, LinearKernels, Operands};

pub(super) fn linear(op: &Linear, Operands { x, out }: Operands<'_>) -> Result<()> {
    let rows = x.dims2()?.0;
    if rows == 0 {
        return Ok(());
    }
    let device = out.device().as_cuda_device()?;
    let weight = &op.weight.values;
    let launch = LinearSm90a {
        out: address_of(out)?,
        x: address_of(x)?,
        weight: address_of(weight)?,
        bias: optional_address(op.bias())?,
        rows: rows as u32,
        depth: op.inputs() as u32,
        width: op.outputs() as u32,
    };
    // Also layers without an epilogue, though cuBLAS is faster where rows are many: it sums up in another order for few
    // rows than for many, and a row's result must not depend on its batch-mates.
    if LinearSm90a::<u64>::fits(op.outputs(), op.inputs(), op.activation)
        && aligned(&[launch.out, launch.x, launch.weight, launch.bias.unwrap_or_default()])
        && chosen(device, op)? == Some(LinearKernels::Hopper)
    {
        return run(device, launch.launch(half(x)?, op.activation));
    }
    let sizes = Sizes { rows, inputs: op.inputs(), outputs: op.outputs() };
    out.inplace_op1(&MatrixProduct { sizes, half: half(x)?, x, weight })?;
    if op.bias().is_none() && op.activation == Activation::None {
        return Ok(());
    }
    let shape = [rows as u32, op.outputs() as u32];
    let after = bias_activation(half(out)?, launch.out, launch.bias, shape, op.activation);
    run(device, after)
}

/// Zero and one of a number type.
trait Number {
    const ZERO: Self;
    const ONE: Self;
}

impl Number for bf16 {
    const ZERO: Self = bf16::ZERO;
    const ONE: Self = bf16::ONE;
}

impl Number for f16 {
    const ZERO: Self = f16::ZERO;
    const ONE: Self = f16::ONE;
}

/// Of a matrix product.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

/// `out = x * transpose(weight)` by cuBLAS, which is lent the output through the tensor library's in-place operation.
struct MatrixProduct<'a> {
    sizes: Sizes,
    half: Half,
    x: &'a Tensor,
    weight: &'a Tensor,
}

impl InplaceOp1 for MatrixProduct<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        Err(Error::Msg("an output is on another device than the operands".to_owned()))
    }

    fn cuda_fwd(&self, out: &mut CudaStorage, layout: &Layout) -> Result<()> {
        match self.half {
            Half::Bf16 => self.multiply::<bf16>(out, layout),
            Half::F16 => self.multiply::<f16>(out, layout),
        }
    }
}

impl MatrixProduct<'_> {
    /// Sums in f32. cuBLAS counts by columns, so it is given the transpose of all of it.
    fn multiply<T>(&self, out: &mut CudaStorage, layout: &Layout) -> Result<()>
    where
        T: CudaDType + DeviceRepr + Number,
        cudarc::cublas::CudaBlas: Gemm<T>,
    {
        let device: CudaDevice = out.device.clone();
        let Sizes { rows, inputs, outputs } = self.sizes;
        let config = GemmConfig {
            transa: cublasOperation_t::CUBLAS_OP_T,
            transb: cublasOperation_t::CUBLAS_OP_N,
            m: outputs as i32,
            n: rows as i32,
            k: inputs as i32,
            alpha: T::ONE,
            lda: inputs as i32,
            ldb: inputs as i32,
            beta: T::ZERO,
            ldc: outputs as i32,
        };
        let (weight, weight_layout) = self.weight.storage_and_layout();
        let (x, x_layout) = self.x.storage_and_layout();
        let (Storage::Cuda(weight), Storage::Cuda(x)) = (&*weight, &*x) else {
            return Err(Error::Msg("an operand is on another device than the output".to_owned()));
        };
        let weight = weight.as_cuda_slice::<T>()?.slice(weight_layout.start_offset()..);
        let x = x.as_cuda_slice::<T>()?.slice(x_layout.start_offset()..);
        let mut out = out.as_cuda_slice_mut::<T>()?.slice_mut(layout.start_offset()..);
        let blas = device.cublas_handle();
        // SAFETY: the three are as large as the sizes say, which `Linear` checked.
        unsafe { blas.gemm(config, &weight, &x, &mut out) }.map_err(error)
    }
}
