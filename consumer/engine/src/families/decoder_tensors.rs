//! A decoder's tensors by their names, made into the parameters of operations.

use candle_core::{DType as TensorType, Tensor};
use forebay_kernels::{Activation, Linear, RmsNorm};

use crate::error::EngineError;
use crate::load::gguf::blocks::Blocks;
use crate::load::gguf::packed::Packed;
use crate::load::options::DType;
use crate::load::tensors::Tensors;

/// Prefixes that decoders' tensors are found under; a head stands beside `model.`.
const PREFIXES: [&str; 3] = ["model.", "language_model.model.", ""];

/// A matrix `[outputs, inputs]` as a file has it.
pub(super) enum Matrix {
    /// In quantised blocks.
    Blocks(Blocks),
    /// In f32.
    Plain(Tensor),
}

/// Tensors by name, made into the parameters of operations.
pub(super) struct Named<'a> {
    tensors: &'a dyn Tensors,
    /// Of every name but the head's.
    pub(super) prefix: &'static str,
    dtype: DType,
    adds_one: bool,
    eps: f64,
}

impl<'a> Named<'a> {
    pub(super) fn new(tensors: &'a dyn Tensors, dtype: DType, adds_one: bool, eps: f64) -> Self {
        let there = |prefix: &&str| tensors.contains(&format!("{prefix}embed_tokens.weight"));
        let prefix = PREFIXES.into_iter().find(there).unwrap_or(PREFIXES[0]);
        Self { tensors, prefix, dtype, adds_one, eps }
    }

    /// The name of the table of words.
    pub(super) fn words(&self) -> String {
        format!("{}embed_tokens.weight", self.prefix)
    }

    /// The head's name, which is the table's where they are one.
    pub(super) fn head(&self, is_tied: Option<bool>) -> String {
        if self.is_tied(is_tied) { self.words() } else { self.own_head() }
    }

    /// Whether the head is the table of words: as the configuration says, or else where there is no head.
    pub(super) fn is_tied(&self, said: Option<bool>) -> bool {
        said.unwrap_or_else(|| !self.tensors.contains(&self.own_head()))
    }

    fn own_head(&self) -> String {
        format!("{}lm_head.weight", self.prefix.strip_suffix("model.").unwrap_or(self.prefix))
    }

    /// A matrix by its whole name, in the type that states have.
    pub(super) fn table(&self, name: &str, shape: [usize; 2]) -> Result<Tensor, EngineError> {
        Ok(self.tensors.f32(name, &shape)?.to_dtype(self.dtype.tensor())?)
    }

    fn whole(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Whether there is a tensor of that name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains(&self.whole(name))
    }

    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, EngineError> {
        self.tensors.f32(&self.whole(name), shape)
    }

    /// Entry `index` of a tensor of this shape, along its first dimension.
    pub(super) fn entry(
        &self,
        name: &str,
        shape: &[usize],
        index: usize,
    ) -> Result<Tensor, EngineError> {
        self.tensors.f32_entry(&self.whole(name), shape, index)
    }

    /// A matrix `[outputs, inputs]` as the file has it.
    pub(super) fn matrix(&self, name: &str, sizes: [usize; 2]) -> Result<Matrix, EngineError> {
        let name = self.whole(name);
        Ok(match self.tensors.blocks(&name, sizes)? {
            Some(blocks) => Matrix::Blocks(blocks),
            None => Matrix::Plain(self.tensors.f32(&name, &sizes)?),
        })
    }

    /// Matrix `index` of a stack of them, `[matrices, outputs, inputs]`, as the file has it.
    pub(super) fn matrix_of(
        &self,
        name: &str,
        stack: [usize; 3],
        index: usize,
    ) -> Result<Matrix, EngineError> {
        let name = self.whole(name);
        Ok(match self.tensors.blocks_entry(&name, stack, index)? {
            Some(blocks) => Matrix::Blocks(blocks),
            None => Matrix::Plain(self.tensors.f32_entry(&name, &stack, index)?),
        })
    }

    /// Whether matrices of a stack are in blocks.
    pub(super) fn has_blocks(&self, name: &str) -> bool {
        self.tensors.is_in_blocks(&self.whole(name))
    }

    /// A layer whose weight is f32 whatever the model computes in.
    pub(super) fn wide(
        &self,
        name: &str,
        sizes: [usize; 2],
        has_bias: bool,
    ) -> Result<Linear, EngineError> {
        let weight = self.tensor(&format!("{name}.weight"), &sizes)?;
        let bias =
            has_bias.then(|| self.tensor(&format!("{name}.bias"), &sizes[..1])).transpose()?;
        Ok(Linear::wide(&weight, bias.as_ref(), self.dtype.tensor())?)
    }

    /// Matrices of the same inputs as one layer, their outputs side by side.
    pub(super) fn of_matrices(
        &self,
        matrices: Vec<Matrix>,
        bias: Option<&Tensor>,
    ) -> Result<Linear, EngineError> {
        let blocks: Option<Vec<&Blocks>> = matrices
            .iter()
            .map(|matrix| match matrix {
                Matrix::Blocks(blocks) => Some(blocks),
                Matrix::Plain(_) => None,
            })
            .collect();
        if let Some(blocks) = blocks.filter(|blocks| self.dtype == DType::Q4 && !blocks.is_empty())
        {
            let sizes = [blocks.iter().map(|blocks| blocks.outputs).sum(), blocks[0].inputs];
            let packed = Packed::side_by_side(blocks.into_iter().map(Packed::of).collect());
            return self.of_blocks(packed, sizes, bias);
        }
        let plain = |matrix| match matrix {
            Matrix::Blocks(blocks) => blocks.f32(),
            Matrix::Plain(weight) => Ok(weight),
        };
        let weights = matrices.into_iter().map(plain).collect::<Result<Vec<_>, _>>()?;
        self.of_weights(&weights, bias)
    }

    /// A weight in f32.
    pub(super) fn weight(&self, name: &str, shape: &[usize]) -> Result<Tensor, EngineError> {
        self.tensor(&format!("{name}.weight"), shape)
    }

    /// The number type of states.
    pub(super) fn states(&self) -> TensorType {
        self.dtype.tensor()
    }

    pub(super) fn norm(&self, name: &str, width: usize) -> Result<RmsNorm, EngineError> {
        self.norm_with(name, width, self.eps)
    }

    /// A norm that has an epsilon of its own.
    pub(super) fn norm_with(
        &self,
        name: &str,
        width: usize,
        eps: f64,
    ) -> Result<RmsNorm, EngineError> {
        let weight = self.weight(name, &[width])?;
        let weight = if self.adds_one { (weight + 1.0)? } else { weight };
        Ok(RmsNorm { weight, eps: eps as f32 })
    }

    /// Linear layers of the same inputs as one, their outputs side by side.
    pub(super) fn linear(
        &self,
        parts: &[(String, usize)],
        inputs: usize,
        has_bias: bool,
    ) -> Result<Linear, EngineError> {
        let bias =
            |(name, outputs): &(String, usize)| self.tensor(&format!("{name}.bias"), &[*outputs]);
        let biases = if has_bias { parts } else { &[] };
        let biases = biases.iter().map(bias).collect::<Result<Vec<_>, _>>()?;
        let bias = has_bias.then(|| Tensor::cat(&biases, 0)).transpose()?;
        let weight =
            |(name, outputs): &(String, usize)| (format!("{}{name}.weight", self.prefix), *outputs);
        let weights: Vec<(String, usize)> = parts.iter().map(weight).collect();
        self.side_by_side(&weights, inputs, bias.as_ref())
    }

    /// Weights by their whole names as one layer.
    pub(super) fn side_by_side(
        &self,
        parts: &[(String, usize)],
        inputs: usize,
        bias: Option<&Tensor>,
    ) -> Result<Linear, EngineError> {
        if let Some(blocks) = self.blocks(parts, inputs)? {
            let outputs = parts.iter().map(|(_, outputs)| outputs).sum();
            return self.of_blocks(blocks, [outputs, inputs], bias);
        }
        let weight =
            |(name, outputs): &(String, usize)| self.tensors.f32(name, &[*outputs, inputs]);
        let weights = parts.iter().map(weight).collect::<Result<Vec<_>, _>>()?;
        self.of_weights(&weights, bias)
    }

    /// Weights in f32 as one layer.
    fn of_weights(&self, weights: &[Tensor], bias: Option<&Tensor>) -> Result<Linear, EngineError> {
        let states = self.dtype.tensor();
        let none = Activation::None;
        let weight = if let [weight] = weights { weight.clone() } else { Tensor::cat(weights, 0)? };
        Ok(match self.dtype {
            DType::Int8 => Linear::int8(&weight, bias, none, states)?,
            DType::F32 | DType::Bf16 | DType::F16 | DType::Q4 => {
                Linear::new(&weight, bias, none, states)?
            }
        })
    }

    /// The file's own blocks of weights, if they are what is multiplied by and all of these have them.
    pub(super) fn blocks(
        &self,
        parts: &[(String, usize)],
        inputs: usize,
    ) -> Result<Option<Packed>, EngineError> {
        if self.dtype != DType::Q4 {
            return Ok(None);
        }
        let mut blocks = Vec::with_capacity(parts.len());
        for (name, outputs) in parts {
            let Some(part) = self.tensors.blocks(name, [*outputs, inputs])? else {
                return Ok(None);
            };
            blocks.push(Packed::of(&part));
        }
        Ok(Some(Packed::side_by_side(blocks)))
    }

    pub(super) fn of_blocks(
        &self,
        blocks: Packed,
        [outputs, inputs]: [usize; 2],
        bias: Option<&Tensor>,
    ) -> Result<Linear, EngineError> {
        let states = self.dtype.tensor();
        let none = Activation::None;
        Ok(match blocks {
            Packed::Four(blocks) => Linear::of_q4(outputs, inputs, &blocks, bias, none, states)?,
            Packed::Table(blocks) => Linear::of_fp4(outputs, inputs, &blocks, bias, none, states)?,
            Packed::Eight(blocks) => Linear::of_q8(outputs, inputs, &blocks, bias, none, states)?,
        })
    }
}
