//! `linear`: one tall product for all packed tokens, with what follows it applied before a value is stored.
//!
//! | | |
//! | --- | --- |
//! | formula | `y = activation(x * transpose(weight) + bias)` |
//! | shapes | `x`: `[tokens, in]`; `weight`: `[out, in]`, as checkpoints store it; `bias`: `[out]`; `y`: `[tokens, out]` |
//! | dtype | f32, or bf16 with f32 sums, bias and activation; the bias is f32. Where the processor multiplies bf16 faster ([`crate::prefers_bf16`]) it does so (`in` even); elsewhere a chunk of `x` is widened first and the packed weight is f32, of values that bf16 holds |
//! | memory traffic | `x` once from the second cache for each [`PANEL`] outputs, the weight once a chunk of rows, `y` once |
//! | numerics | products fused where the processor can, summed in f32 in the order of `in`; activations as [`crate::Activation`] states |
//! | source | Goto and van de Geijn 2008 (panels sized for caches) |
//!
//! The weight is packed once, when the layer is made: panels of [`PANEL`] outputs, the last one filled up with
//! zeros. A task takes a chunk of rows through some of the panels; while a panel is in the second cache, the rows
//! pass it a few at a time, and every sum stays in registers from the first input to the bias and the activation.
#![allow(unsafe_code)]

use candle_core::{CpuStorage, DType, InplaceOp3, Layout, Tensor};

use crate::activation::activate;
use crate::block::{Block, Columns};
use crate::element::{As, Element, by_dtype};
use crate::grid::Grid;
use crate::operand::{Operand, borrow, output, values, values_mut};
use crate::parallel::for_each;
use crate::product::{
    PANEL, PanelOf, ROWS_MAX, RowsOf, columns_at_once, fetched, multiply, rows_at_once,
};
use crate::quantized::{self, Panels, Scales};
use crate::simd::{Isa, Target, dispatched};
use crate::{Activation, KernelError, prefers_bf16};

const OP: &str = "linear";

/// A linear layer: its packed weight, its bias and its activation.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[panels, in, PANEL]`, in the number type that is multiplied; in bf16 the rows of each panel interleave in pairs,
    /// in bytes in fours. On a GPU the weight as it came.
    packed: Tensor,
    /// What bytes stand for.
    scales: Option<Scales>,
    /// Of what goes in and what comes out.
    dtype: DType,
    bias: Option<Tensor>,
    activation: Activation,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// Packs `weight` `[out, in]`, of any floating-point type, to compute in `dtype`. `bias`: `[out]`.
    pub fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        let multiplied = if dtype == DType::BF16 && !prefers_bf16() { DType::F32 } else { dtype };
        Self::multiplying(multiplied, weight, bias, activation, dtype)
    }

    /// The same, with a choice of the number type that is multiplied.
    pub(crate) fn multiplying(
        multiplied: DType,
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        let weight = weight.to_dtype(dtype)?;
        let (outputs, inputs, bias) = checked(&weight, bias, dtype)?;
        if weight.device().is_cuda() {
            return Ok(Self {
                packed: weight,
                scales: None,
                dtype,
                bias,
                activation,
                inputs,
                outputs,
            });
        }
        let shape = (outputs.div_ceil(PANEL), inputs, PANEL);
        let weight = weight.to_dtype(multiplied)?;
        let packed = by_dtype!(multiplied, |P| {
            let values = weight.flatten_all()?.to_vec1::<P>()?;
            Tensor::from_vec(pack(&values, outputs, inputs), shape, weight.device())?
        });
        Ok(Self { packed, scales: None, dtype, bias, activation, inputs, outputs })
    }

    /// Packs `weight` `[out, in]` in bytes. What goes in and comes out is of `dtype`.
    pub fn in_bytes(
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        let weight = weight.to_dtype(DType::F32)?;
        let (outputs, inputs, bias) = checked(&weight, bias, DType::F32)?;
        let (bytes, scales) = quantized::pack(&weight.flatten_all()?.to_vec1()?, outputs, inputs);
        let count = bytes.len();
        let packed = Tensor::from_vec(bytes, count, weight.device())?;
        Ok(Self { packed, scales: Some(scales), dtype, bias, activation, inputs, outputs })
    }

    /// Values that go in, a token.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values that come out, a token.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Whether it is a product and nothing else, of what goes in as it comes.
    #[cfg(feature = "cuda")]
    pub(crate) fn is_plain(&self) -> bool {
        self.bias.is_none() && self.activation == Activation::None && self.scales.is_none()
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    /// `[out, in]` on a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn weight(&self) -> &Tensor {
        &self.packed
    }

    /// `x`: `[tokens, in]`; gives `[tokens, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let out = output(x, (x.dims().first().copied().unwrap_or_default(), self.outputs))?;
        self.forward_into(x, &out)?;
        Ok(out)
    }

    /// `x`: `[tokens, in]`; writes `out`: `[tokens, out]`.
    pub fn forward_into(&self, x: &Tensor, out: &Tensor) -> Result<(), KernelError> {
        let (inputs, dtype) = (self.inputs(), self.dtype);
        let operand = Operand { op: OP, name: "x", tensor: x };
        let (tokens, width, _) = operand.matrix()?;
        if width != inputs {
            return Err(operand.shape_error(format!("[tokens, {inputs}], as wide as the weight")));
        }
        operand.expect(&[tokens, inputs], dtype)?;
        Operand { op: OP, name: "out", tensor: out }.expect(&[tokens, self.outputs], dtype)?;
        Ok(out.inplace_op3(x, &self.packed, self)?)
    }
}

/// A weight's outputs and inputs, and its bias in f32.
fn checked(
    weight: &Tensor,
    bias: Option<&Tensor>,
    dtype: DType,
) -> Result<(usize, usize, Option<Tensor>), KernelError> {
    let operand = Operand { op: OP, name: "weight", tensor: weight };
    let (outputs, inputs, _) = operand.matrix()?;
    if inputs == 0 || (dtype == DType::BF16 && !inputs.is_multiple_of(2)) {
        return Err(
            operand.shape_error("at least one input, and in bf16 an even number".to_owned())
        );
    }
    let bias = bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?;
    if let Some(bias) = &bias {
        Operand { op: OP, name: "bias", tensor: bias }.expect(&[outputs], DType::F32)?;
    }
    Ok((outputs, inputs, bias))
}

/// `[panels, inputs, PANEL]` from `[outputs, inputs]`, a step's values of each column side by side.
fn pack<E: Element>(weight: &[E], outputs: usize, inputs: usize) -> Vec<E> {
    let mut packed = vec![E::default(); outputs.div_ceil(PANEL) * inputs * PANEL];
    for (output, row) in weight.chunks_exact(inputs).enumerate() {
        let panel = &mut packed[output / PANEL * inputs * PANEL..][..inputs * PANEL];
        let steps = panel.chunks_exact_mut(PANEL * E::STEP).zip(row.chunks_exact(E::STEP));
        for (columns, values) in steps {
            columns[output % PANEL * E::STEP..][..E::STEP].copy_from_slice(values);
        }
    }
    packed
}

impl InplaceOp3 for Linear {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
        packed: &CpuStorage,
        packed_layout: &Layout,
    ) -> candle_core::Result<()> {
        let bias = self.bias.as_ref().map(borrow);
        let bias = bias.as_ref().map(|bias| bias.values()).transpose()?;
        by_dtype!(self.dtype, |E| {
            let (x, out) = (values::<E>(x, x_layout)?, values_mut::<E>(out, out_layout)?);
            if let Some(scales) = &self.scales {
                let bytes: &[u8] = packed.as_slice()?;
                self.run_in_bytes::<E>(
                    x,
                    &bytes[packed_layout.start_offset()..],
                    scales,
                    bias,
                    out,
                );
            } else if self.packed.dtype() == self.dtype {
                self.run::<E, E>(x, values(packed, packed_layout)?, bias, out);
            } else {
                self.run::<f32, E>(x, values(packed, packed_layout)?, bias, out);
            }
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        out: &mut candle_core::CudaStorage,
        out_layout: &Layout,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        weight: &candle_core::CudaStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (out, x, weight) = ((out, out_layout), (x, x_layout), (weight, weight_layout));
        crate::cuda::linear(self, self.bias.as_ref(), self.activation, out, x, weight)
    }
}

impl Linear {
    /// `P` is multiplied, `E` comes and goes.
    fn run<P: Element, E: Element + As<P>>(
        &self,
        x: &[E],
        packed: &[P],
        bias: Option<&[f32]>,
        out: &mut [E],
    ) {
        let (inputs, outputs) = (self.inputs(), self.outputs);
        let isa = Isa::best();
        let grid = Grid::new(x.len() / inputs, inputs * size_of::<P>(), outputs.div_ceil(PANEL));
        let columns = Columns::new(out, outputs);
        for_each(grid.tasks(), |task| {
            let (rows, panels) = grid.task(task);
            let (first, last) = (panels.start * PANEL, outputs.min(panels.end * PANEL));
            let weights = Weights {
                panels: &packed[panels.start * inputs * PANEL..panels.end * inputs * PANEL],
                bias: bias.map(|bias| &bias[first..last]),
                activation: self.activation,
                inputs,
            };
            // SAFETY: each task of the grid has its own rows or its own columns of the output.
            let mut out = unsafe { columns.block(rows.start, rows.len(), first, last - first) };
            E::with(&x[rows.start * inputs..rows.end * inputs], |x| {
                layer::<P, E>(isa, x, weights, &mut out);
            });
        });
    }

    fn run_in_bytes<E: Element>(
        &self,
        x: &[E],
        packed: &[u8],
        scales: &Scales,
        bias: Option<&[f32]>,
        out: &mut [E],
    ) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let isa = Isa::best();
        let grid = Grid::new(x.len() / inputs, inputs, outputs.div_ceil(PANEL));
        let columns = Columns::new(out, outputs);
        for_each(grid.tasks(), |task| {
            let (rows, panels) = grid.task(task);
            let (first, last) = (panels.start * PANEL, outputs.min(panels.end * PANEL));
            let ends = [panels.start, panels.end, outputs];
            let panels = Panels::new(packed, scales, bias, self.activation, inputs, ends);
            // SAFETY: each task of the grid has its own rows or its own columns of the output.
            let mut out = unsafe { columns.block(rows.start, rows.len(), first, last - first) };
            let x = &x[rows.start * inputs..rows.end * inputs];
            quantized::layer::<E>(isa, x, inputs, panels, &mut out);
        });
    }
}

/// Some panels of a layer with their part of the bias.
#[derive(Clone, Copy)]
struct Weights<'a, E> {
    panels: &'a [E],
    bias: Option<&'a [f32]>,
    activation: Activation,
    inputs: usize,
}

dispatched! {
    /// A chunk of rows through some panels: `out` has a column for each output of the panels.
    fn layer<P, E>(x: &[P], weights: Weights<'_, P>, out: &mut Block<'_, E>) = pass;
}

#[inline(always)]
fn pass<T: Target, P: Element, E: Element>(
    x: &[P],
    weights: Weights<'_, P>,
    out: &mut Block<'_, E>,
) {
    let inputs = weights.inputs;
    let rows = RowsOf::new(x, inputs, out.rows(), inputs);
    let columns = columns_at_once::<T>();
    let mut sums = [0.0; PANEL * ROWS_MAX];
    for column in (0..out.width()).step_by(columns) {
        let values = &weights.panels[column / PANEL * inputs * PANEL..][..inputs * PANEL];
        let width = columns.min(out.width() - column);
        let mut panel = PanelOf {
            values,
            column: column % PANEL,
            start: weights.bias.map(|bias| &bias[column..column + width]),
            next: values.as_ptr().wrapping_add(values.len()).cast(),
        };
        let mut first = 0;
        while first < rows.count() {
            let count = rows_at_once::<T>(rows.count() - first);
            let rows = rows.part(first, count);
            let mut out = out.part(first..first + count, column..column + width);
            first += count;
            let this = panel;
            panel.next = panel.next.wrapping_add(fetched::<P>(inputs));
            if weights.activation == Activation::None
                && width == columns
                && let Some(sums) = E::sums(out.part(0..count, 0..width))
            {
                multiply::<T, P>(rows, this, sums);
                continue;
            }
            let sums = &mut sums[..count * columns];
            multiply::<T, P>(rows, this, Block::new(sums, count, columns, columns));
            // All rows at once: more independent chains than one row has.
            activate::<T, E>(weights.activation, sums);
            for (row, sums) in sums.chunks_exact(columns).enumerate() {
                // In the first branch the compiler knows how long the row is.
                if width == columns {
                    store(sums, &mut out.row(row)[..columns_at_once::<T>()]);
                } else {
                    store(&sums[..width], out.row(row));
                }
            }
        }
    }
}

#[inline(always)]
pub(crate) fn store<E: Element>(sums: &[f32], out: &mut [E]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = E::narrow(*sum);
    }
}
