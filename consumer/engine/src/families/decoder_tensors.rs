//! A decoder's tensors by their names, made into the parameters of operations.

use candle_core::{DType as TensorType, Tensor};
use forebay_kernels::{Activation, Linear, RmsNorm};

use crate::error::EngineError;
use crate::load::gguf::packed::Packed;
use crate::load::options::DType;
use crate::load::tensors::Tensors;

/// Prefixes that decoders' tensors are found under; a head stands beside `model.`.
const PREFIXES: [&str; 3] = ["model.", "language_model.model.", ""];

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

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, EngineError> {
        self.tensors.f32(&format!("{}{name}", self.prefix), shape)
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
        let states = self.dtype.tensor();
        let none = Activation::None;
        let weight =
            |(name, outputs): &(String, usize)| self.tensors.f32(name, &[*outputs, inputs]);
        let weights = parts.iter().map(weight).collect::<Result<Vec<_>, _>>()?;
        let weight =
            if let [weight] = &weights[..] { weight.clone() } else { Tensor::cat(&weights, 0)? };
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
            Packed::Eight(blocks) => Linear::of_q8(outputs, inputs, &blocks, bias, none, states)?,
        })
    }
}
