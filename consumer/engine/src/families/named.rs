//! Weights by name under a model's prefix, made into the parameters of operations.

use candle_core::{Device, Tensor};
use forebay_kernels::{
    Activation, AddLayerNorm, LayerNorm, Linear, LinearLayerNorm, Rotary, VarlenAttention,
};

use crate::error::EngineError;
use crate::load::options::DType;
use crate::load::safetensors::Weights;

/// Weights under a prefix, for layers that compute in one number type on one device.
pub(crate) struct Named<'a> {
    weights: &'a Weights,
    prefix: &'static str,
    dtype: DType,
    device: &'a Device,
}

impl<'a> Named<'a> {
    /// Chooses the prefix among `prefixes` under which there is a `first_tensor`, else none.
    pub(crate) fn new(
        weights: &'a Weights,
        prefixes: &'static [&'static str],
        first_tensor: &str,
        dtype: DType,
        device: &'a Device,
    ) -> Self {
        let there = |prefix: &&&str| weights.contains(&format!("{prefix}{first_tensor}"));
        let prefix = prefixes.iter().find(there).copied().unwrap_or_default();
        Self { weights, prefix, dtype, device }
    }

    /// Whether the bias of queries, keys and values is better left to attention on the device.
    pub(crate) fn prefers_bias_in_attention(&self) -> bool {
        VarlenAttention::prefers_bias(self.device)
    }

    /// A tensor on the device.
    pub(crate) fn on_device(&self, tensor: &Tensor) -> Result<Tensor, EngineError> {
        Ok(tensor.to_device(self.device)?)
    }

    /// Angles of positions, on the device.
    pub(crate) fn rotary(
        &self,
        head_size: usize,
        base: f64,
        positions: usize,
    ) -> Result<Rotary, EngineError> {
        Ok(Rotary::new(head_size, base, positions)?.on(self.device)?)
    }

    /// Angles of positions that turn by these frequencies, on the device.
    pub(crate) fn rotary_of(
        &self,
        frequencies: &[f64],
        positions: usize,
    ) -> Result<Rotary, EngineError> {
        Ok(Rotary::of_frequencies(frequencies, positions)?.on(self.device)?)
    }

    /// A tensor in f32, on the processor.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, EngineError> {
        self.weights.f32(&format!("{}{name}", self.prefix), shape)
    }

    /// A table of embeddings, in the number type that layers compute in.
    pub(crate) fn table(
        &self,
        name: &str,
        rows: usize,
        hidden: usize,
    ) -> Result<Tensor, EngineError> {
        let table = self.tensor(&format!("{name}.weight"), &[rows, hidden])?;
        self.on_device(&table.to_dtype(self.dtype.tensor())?)
    }

    /// A LayerNorm, with a shift or without. BERT's first checkpoints call the scale gamma and the shift beta.
    pub(crate) fn norm(
        &self,
        name: &str,
        hidden: usize,
        eps: f64,
        shifts: bool,
    ) -> Result<LayerNorm, EngineError> {
        let part = |name_now: &str, name_first: &str| {
            let first = format!("{name}.{name_first}");
            let is_first = self.weights.contains(&format!("{}{first}", self.prefix));
            let name = if is_first { first } else { format!("{name}.{name_now}") };
            self.tensor(&name, &[hidden])
        };
        let scale = part("weight", "gamma")?;
        let shift = if shifts { part("bias", "beta")? } else { scale.zeros_like()? };
        Ok(LayerNorm {
            scale: self.on_device(&scale)?,
            shift: self.on_device(&shift)?,
            eps: eps as f32,
        })
    }

    /// Linear layers of the same inputs as one, their outputs side by side; `outputs` of each.
    pub(crate) fn linear(
        &self,
        names: &[String],
        [inputs, outputs]: [usize; 2],
        activation: Activation,
        has_bias: bool,
    ) -> Result<Linear, EngineError> {
        let bias = has_bias.then(|| self.side_by_side(names, "bias", &[outputs])).transpose()?;
        let weight = self.side_by_side(names, "weight", &[outputs, inputs])?;
        self.packed(&weight, bias.as_ref(), activation)
    }

    /// A linear layer with the halves of its outputs swapped: those of the second half come first.
    pub(crate) fn linear_halves_swapped(
        &self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        has_bias: bool,
    ) -> Result<Linear, EngineError> {
        let swapped = |part: &str, shape: &[usize]| -> Result<Tensor, EngineError> {
            let whole = self.tensor(&format!("{name}.{part}"), shape)?;
            let [first, second] = [0, outputs / 2].map(|from| whole.narrow(0, from, outputs / 2));
            Ok(Tensor::cat(&[second?, first?], 0)?)
        };
        let bias = has_bias.then(|| swapped("bias", &[outputs])).transpose()?;
        let weight = swapped("weight", &[outputs, inputs])?;
        self.packed(&weight, bias.as_ref(), Activation::None)
    }

    /// The bias of linear layers of the same inputs, on the device, for an operation that adds it later.
    pub(crate) fn bias(&self, names: &[String], outputs: usize) -> Result<Tensor, EngineError> {
        self.on_device(&self.side_by_side(names, "bias", &[outputs])?)
    }

    fn side_by_side(
        &self,
        names: &[String],
        part: &str,
        shape: &[usize],
    ) -> Result<Tensor, EngineError> {
        let parts = names
            .iter()
            .map(|name| self.tensor(&format!("{name}.{part}"), shape))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// A linear layer and the norm that follows it and adds its bias, by their names.
    pub(crate) fn linear_layer_norm(
        &self,
        [linear, norm]: [&str; 2],
        [inputs, hidden]: [usize; 2],
        eps: f64,
        has_bias: bool,
    ) -> Result<LinearLayerNorm, EngineError> {
        let bias = has_bias.then(|| self.bias(&[linear.to_owned()], hidden)).transpose()?;
        let weight = self.tensor(&format!("{linear}.weight"), &[hidden, inputs])?;
        let linear = self.packed(&weight, None, Activation::None)?;
        let norm = AddLayerNorm { bias, norm: self.norm(norm, hidden, eps, true)? };
        Ok(LinearLayerNorm { linear, norm })
    }

    fn packed(
        &self,
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Linear, EngineError> {
        let states = self.dtype.tensor();
        if self.dtype == DType::Int8 {
            return Ok(Linear::int8(weight, bias, activation, states)?);
        }
        let bias = bias.map(|bias| self.on_device(bias)).transpose()?;
        Ok(Linear::new(&self.on_device(weight)?, bias.as_ref(), activation, states)?)
    }
}
