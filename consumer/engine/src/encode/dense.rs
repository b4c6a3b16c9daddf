//! A linear layer behind an encoder: of pooled vectors, or of the hidden state of every token. It computes in f32, on
//! the processor.

use std::path::Path;

use candle_core::{DType, Tensor};
use forebay_kernels::{Activation, Linear};

use crate::error::EngineError;
use crate::load::pooling::Dense;
use crate::load::safetensors::Weights;

/// The most values of a vector; no model comes near it.
const WIDTH_MAX: usize = 1 << 20;

/// The layer with its weights.
pub(crate) struct DenseLayer {
    linear: Linear,
    residual: Residual,
}

/// The values that are added to the layer's outputs.
enum Residual {
    Nothing,
    /// Its inputs.
    Inputs,
    /// Its inputs, brought to as many values as there are outputs.
    Projected(Linear),
}

impl DenseLayer {
    /// Loads a layer of vectors of `inputs` values.
    pub(crate) fn load(dense: &Dense, inputs: usize) -> Result<Self, EngineError> {
        let refused = |problem: String| EngineError::Config {
            path: dense.weights.parent().unwrap_or(Path::new("")).join("config.json"),
            problem,
        };
        if dense.inputs != inputs {
            return Err(refused(format!("in_features {}, of vectors of {inputs}", dense.inputs)));
        }
        if dense.outputs == 0 || dense.outputs > WIDTH_MAX {
            return Err(refused(format!("out_features {}; 1 to {WIDTH_MAX}", dense.outputs)));
        }
        let weights = Weights::open(&dense.weights)?;
        let matrix = |name: &str| weights.f32(name, &[dense.outputs, inputs]);
        let bias = || weights.f32("linear.bias", &[dense.outputs]);
        let bias = dense.has_bias.then(bias).transpose()?;
        let linear = |weight: &Tensor, bias: Option<&Tensor>, activation| {
            Linear::new(weight, bias, activation, DType::F32)
        };
        let residual = match (dense.adds_inputs, inputs == dense.outputs) {
            (false, _) => Residual::Nothing,
            (true, true) => Residual::Inputs,
            (true, false) => {
                Residual::Projected(linear(&matrix("residual.weight")?, None, Activation::None)?)
            }
        };
        let linear = linear(&matrix("linear.weight")?, bias.as_ref(), dense.activation)?;
        Ok(Self { linear, residual })
    }

    /// Values of a vector that it makes.
    pub(crate) fn outputs(&self) -> usize {
        self.linear.outputs()
    }

    /// Makes a row of each row.
    pub(crate) fn forward(&self, rows: &Tensor) -> Result<Tensor, EngineError> {
        let made = self.linear.forward(rows)?;
        Ok(match &self.residual {
            Residual::Nothing => made,
            Residual::Inputs => (made + rows)?,
            Residual::Projected(layer) => (made + layer.forward(rows)?)?,
        })
    }
}
