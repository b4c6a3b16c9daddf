//! `linear`: one tall matrix product for all packed tokens, with what follows it applied before a value is stored.
//!
//! - formula: `y = activation(x * transpose(weight) + bias)`
//! - shapes: `x`: `[tokens, in]`; `weight`: `[out, in]`, as checkpoints store it; `bias`: `[out]`; `y`: `[tokens,
//!   out]`
//! - dtype: f32 or bf16 (on a GPU bf16 or f16; `in` even in bf16) with f32 sums, bias and activation; the bias is
//!   f32. An int8 weight has a scale for each output, and inputs are quantized token by token; of weights in blocks
//!   see [`super::blocks`]
//! - memory traffic: `x` and `y` once, the weight once for each chunk of rows
//! - numerics: multiplied and added fused where the device can, summed in f32 in an order that does not depend on
//!   the rows beside; activations as [`Activation`] states; int8 sums are exact integers
//! - source: Goto and van de Geijn 2008 (panels sized for caches); Dettmers et al. 2022 and Jacob et al. 2018
//!   (int8)
//!
//! The weight is packed once, when the layer is made, by the back-end that computes with it.

use candle_core::{DType, Error, Tensor};

use super::activation::Activation;
use super::blocks::BLOCK;
use super::operand::{Operand, share_no_memory};
use crate::error::KernelError;

pub(crate) const OP: &str = "linear";

/// A linear layer: its packed weight, its bias and its activation.
#[derive(Debug, Clone)]
pub struct Linear {
    pub(crate) weight: PackedWeight,
    pub(crate) parameters: Parameters,
    pub(crate) activation: Activation,
    /// Of what goes in and what comes out.
    pub(crate) dtype: DType,
    #[cfg(feature = "cuda")]
    pub(crate) kernels: Option<LinearKernels>,
}

/// A weight in the layout of the back-end that packed it.
#[derive(Debug, Clone)]
pub(crate) struct PackedWeight {
    pub(crate) values: Tensor,
    /// Of an int8 weight.
    pub(crate) scales: Option<Scales>,
    /// Of a weight in blocks, whose `values` are bytes.
    pub(crate) blocks: Option<BlockFormat>,
}

#[cfg(feature = "cuda")]
impl PackedWeight {
    fn is_unquantized(&self) -> bool {
        self.scales.is_none() && self.blocks.is_none()
    }
}

/// How a weight in blocks is packed: only as much as its blocks need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of a format by itself
pub(crate) struct BlockFormat {
    /// Of a weight: 4 or 8.
    pub(crate) bits: usize,
    /// Whether scales and minima are f32; f16 otherwise.
    pub(crate) wide: bool,
    /// Whether the halves of a block have a scale each.
    pub(crate) halves: bool,
    /// Whether blocks have a minimum.
    pub(crate) minima: bool,
    /// Whether quants of four bits are numbers of a table ([`FP4_DOUBLED`](super::blocks::FP4_DOUBLED)).
    pub(crate) table: bool,
    /// Bytes before the first panel, which begins a cache line.
    pub(crate) skipped: usize,
}

/// The scales of an int8 weight, one for each output.
#[derive(Debug, Clone)]
pub(crate) struct Scales {
    /// The value of one step of the output's weights.
    pub(crate) scales: Vec<f32>,
    /// The sum of the output's quantized weights.
    pub(crate) sums: Vec<i32>,
}

/// The sizes of a layer and its bias.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// `[out]`, f32.
    pub(crate) bias: Option<Tensor>,
}

impl Parameters {
    /// Those of a layer of `weight`, `[out, in]`, that multiplies in `dtype`.
    pub(crate) fn checked(
        weight: &Tensor,
        bias: Option<&Tensor>,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        let operand = Operand { op: OP, name: "weight", tensor: weight };
        let (outputs, inputs, _) = operand.matrix()?;
        if inputs == 0 || (dtype == DType::BF16 && !inputs.is_multiple_of(2)) {
            return Err(
                operand.shape_error("at least one input, and in bf16 an even number".to_owned())
            );
        }
        Self::with_bias(inputs, outputs, bias)
    }

    /// Those of a layer of `blocks` blocks.
    pub(crate) fn of_blocks(
        [outputs, inputs]: [usize; 2],
        blocks: usize,
        bias: Option<&Tensor>,
    ) -> Result<Self, KernelError> {
        let fits = inputs > 0 && inputs.is_multiple_of(BLOCK);
        if !fits || outputs.checked_mul(inputs / BLOCK) != Some(blocks) {
            return Err(KernelError::Shape {
                op: OP,
                operand: "blocks",
                actual: vec![blocks],
                expected: format!(
                    "a block for every {BLOCK} inputs of every output, of {outputs} outputs and {inputs} inputs"
                ),
            });
        }
        Self::with_bias(inputs, outputs, bias)
    }

    fn with_bias(
        inputs: usize,
        outputs: usize,
        bias: Option<&Tensor>,
    ) -> Result<Self, KernelError> {
        let bias = bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?;
        if let Some(bias) = &bias {
            Operand { op: OP, name: "bias", tensor: bias }.expect(&[outputs], DType::F32)?;
        }
        Ok(Self { inputs, outputs, bias })
    }
}

/// Which kernels compute a linear layer and what follows it on a GPU. A layer leaves this to its device; a choice is
/// for measuring and comparing kernels.
#[cfg(feature = "cuda")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearKernels {
    /// The vendor's library computes the matrix product, and separate kernels what follows it.
    Library,
    /// One kernel keeps whole rows, where there is one for the sizes, on the tensor cores of every device from compute
    /// capability 8.0 on.
    WholeRows,
    /// One kernel with Hopper's own tensor core instructions (wgmma), where there is one for the sizes.
    Hopper,
}

/// The tensors of one call.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// `[tokens, in]`
    pub(crate) x: &'a Tensor,
    /// `[tokens, out]`; written.
    pub(crate) out: &'a Tensor,
}

impl Linear {
    /// A layer of a packed weight.
    pub(crate) fn of(
        weight: PackedWeight,
        parameters: Parameters,
        activation: Activation,
        dtype: DType,
    ) -> Self {
        Self {
            weight,
            parameters,
            activation,
            dtype,
            #[cfg(feature = "cuda")]
            kernels: None,
        }
    }

    /// The layer with a choice of kernels, taken wherever it can be. `None` leaves it to the device: Hopper's kernels
    /// on Hopper, elsewhere whole rows where they are measured to be faster than the library.
    #[cfg(feature = "cuda")]
    #[must_use]
    pub fn with_kernels(self, kernels: Option<LinearKernels>) -> Self {
        Self { kernels, ..self }
    }

    /// Values of a token that go in.
    pub fn inputs(&self) -> usize {
        self.parameters.inputs
    }

    /// Values of a token that come out.
    pub fn outputs(&self) -> usize {
        self.parameters.outputs
    }

    /// `[out]`, f32.
    pub(crate) fn bias(&self) -> Option<&Tensor> {
        self.parameters.bias.as_ref()
    }

    /// Whether it is a matrix product of unquantized values and nothing else.
    #[cfg(feature = "cuda")]
    pub(crate) fn is_plain(&self) -> bool {
        self.bias().is_none() && self.activation == Activation::None && self.weight.is_unquantized()
    }

    pub(crate) fn check(&self, Operands { x, out }: Operands<'_>) -> Result<(), KernelError> {
        let tokens = self.check_x(x)?;
        Operand { op: OP, name: "out", tensor: out }
            .expect(&[tokens, self.outputs()], self.dtype)?;
        share_no_memory(OP, out, &[("x", x)])
    }

    /// Of an output of `values` values in f32.
    pub(crate) fn check_f32(&self, x: &Tensor, values: usize) -> Result<(), KernelError> {
        let expected = [self.check_x(x)?, self.outputs()];
        if expected[0].checked_mul(expected[1]) == Some(values) {
            return Ok(());
        }
        Err(KernelError::Shape {
            op: OP,
            operand: "out",
            actual: vec![values],
            expected: format!("the values of {expected:?}"),
        })
    }

    /// Checks `x`; how many tokens it has.
    fn check_x(&self, x: &Tensor) -> Result<usize, KernelError> {
        let inputs = self.inputs();
        if self.weight.blocks.is_some() && !x.device().is_cpu() {
            return Err(Error::Msg(
                "a weight in blocks computes on the processor alone".to_owned(),
            )
            .into());
        }
        let operand = Operand { op: OP, name: "x", tensor: x };
        let (tokens, width, _) = operand.matrix()?;
        if width != inputs {
            return Err(operand.shape_error(format!("[tokens, {inputs}], as wide as the weight")));
        }
        operand.expect(&[tokens, inputs], self.dtype)?;
        Ok(tokens)
    }
}

/// `y` in float64, of rows side by side. `weight` as it came, before it was packed.
#[cfg(test)]
pub(crate) fn reference(
    x: &[f64],
    weight: &[f64],
    bias: &[f64],
    inputs: usize,
    activation: Activation,
) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len() / inputs * bias.len());
    for x in x.chunks_exact(inputs) {
        for (weight, bias) in weight.chunks_exact(inputs).zip(bias) {
            let dot: f64 = x.iter().zip(weight).map(|(x, weight)| x * weight).sum();
            y.push(activation.reference(dot + bias));
        }
    }
    y
}
