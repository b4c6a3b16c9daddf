//! Weights by name under a model's prefix, made into the parameters of operations.

use candle_core::{DType, Tensor};
use forebay_kernels::{Activation, AddLayerNorm, LayerNorm, Linear};

use crate::EngineError;
use crate::weights::Weights;

/// Weights under a prefix, for layers that compute in one number type.
pub(crate) struct Named<'a> {
    weights: &'a Weights,
    prefix: &'static str,
    dtype: DType,
}

impl<'a> Named<'a> {
    /// The prefix is the one of `prefixes` under which `first_tensor` is there, else none.
    pub(crate) fn new(
        weights: &'a Weights,
        prefixes: &'static [&'static str],
        first_tensor: &str,
        dtype: DType,
    ) -> Self {
        let there = |prefix: &&&str| weights.contains(&format!("{prefix}{first_tensor}"));
        let prefix = prefixes.iter().find(there).copied().unwrap_or_default();
        Self { weights, prefix, dtype }
    }

    fn contains(&self, name: &str) -> bool {
        self.weights.contains(&format!("{}{name}", self.prefix))
    }

    /// A tensor in f32.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, EngineError> {
        self.weights.f32(&format!("{}{name}", self.prefix), shape)
    }

    /// The same where it is there.
    pub(crate) fn tensor_if_there(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<Option<Tensor>, EngineError> {
        self.contains(name).then(|| self.tensor(name, shape)).transpose()
    }

    /// A table of embeddings, in the number type that layers compute in.
    pub(crate) fn table(
        &self,
        name: &str,
        rows: usize,
        hidden: usize,
    ) -> Result<Tensor, EngineError> {
        Ok(self.tensor(&format!("{name}.weight"), &[rows, hidden])?.to_dtype(self.dtype)?)
    }

    /// A LayerNorm; one without a shift shifts by nothing.
    pub(crate) fn norm(
        &self,
        name: &str,
        hidden: usize,
        eps: f64,
    ) -> Result<LayerNorm, EngineError> {
        let scale = self.tensor(&format!("{name}.weight"), &[hidden])?;
        let shift = match self.tensor_if_there(&format!("{name}.bias"), &[hidden])? {
            Some(shift) => shift,
            None => scale.zeros_like()?,
        };
        Ok(LayerNorm { scale, shift, eps: eps as f32 })
    }

    /// Linear layers of the same inputs as one, their outputs side by side. Biases where all have one.
    pub(crate) fn linear(
        &self,
        names: &[String],
        inputs: usize,
        outputs: usize,
        activation: Activation,
    ) -> Result<Linear, EngineError> {
        let weights = names
            .iter()
            .map(|name| self.tensor(&format!("{name}.weight"), &[outputs, inputs]))
            .collect::<Result<Vec<_>, _>>()?;
        let biases = names
            .iter()
            .filter_map(|name| {
                self.tensor_if_there(&format!("{name}.bias"), &[outputs]).transpose()
            })
            .collect::<Result<Vec<_>, _>>()?;
        let bias = (biases.len() == names.len()).then(|| Tensor::cat(&biases, 0)).transpose()?;
        let weight = Tensor::cat(&weights, 0)?;
        Ok(Linear::new(&weight, bias.as_ref(), activation, self.dtype)?)
    }

    /// A linear layer whose bias is left to the `add_layer_norm` that follows it.
    pub(crate) fn linear_then_norm(
        &self,
        [linear, norm]: [&str; 2],
        inputs: usize,
        hidden: usize,
        eps: f64,
    ) -> Result<(Linear, AddLayerNorm), EngineError> {
        let weight = self.tensor(&format!("{linear}.weight"), &[hidden, inputs])?;
        let bias = self.tensor_if_there(&format!("{linear}.bias"), &[hidden])?;
        let linear = Linear::new(&weight, None, Activation::None, self.dtype)?;
        Ok((linear, AddLayerNorm { bias, norm: self.norm(norm, hidden, eps)? }))
    }
}
