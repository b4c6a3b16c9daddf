//! The end of an encoder: a sequence's hidden states become its vector, or its scores.

use candle_core::{Device, Tensor};
use forebay_kernels::{CuSeqlens, Finish, LayerNorm, Linear, PoolNormalize, Pooling};

use crate::error::EngineError;

/// The last stage of an encoder: hidden states to rows.
pub(crate) enum Head {
    /// Pooled hidden states.
    Vector(Pooling),
    /// Scores of labels, made of a pooled hidden state.
    Scores(Box<Scores>),
}

/// Layers from a pooled hidden state to scores, in f32 and on the processor.
pub(crate) struct Scores {
    pub(crate) pooling: Pooling,
    /// The layer before the last one, with the norm that follows it.
    pub(crate) dense: Option<(Linear, Option<LayerNorm>)>,
    /// The last layer: one output a label.
    pub(crate) out: Linear,
    pub(crate) function: ScoreFunction,
}

/// The function that makes scores of the last layer's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScoreFunction {
    /// The outputs stay as they are.
    Raw,
    /// Probabilities of all labels together, which sum to 1.
    Softmax,
    /// A probability for each label by itself.
    Sigmoid,
}

impl Head {
    /// Values a row, for hidden states of `hidden` values.
    pub(crate) fn width(&self, hidden: usize) -> usize {
        match self {
            Self::Vector(_) => hidden,
            Self::Scores(scores) => scores.out.outputs(),
        }
    }

    /// Pools hidden states `[tokens, hidden]` into a vector a sequence, `[sequences, hidden]`, on their device.
    pub(crate) fn pooled(
        &self,
        hidden: &Tensor,
        cu_seqlens: &CuSeqlens,
        finishes: &[Finish],
    ) -> Result<Tensor, EngineError> {
        let plain;
        let (pooling, finishes) = match self {
            Self::Vector(pooling) => (*pooling, finishes),
            Self::Scores(scores) => {
                let finish = Finish { normalize: false, dimensions: None };
                plain = vec![finish; cu_seqlens.sequences()];
                (scores.pooling, plain.as_slice())
            }
        };
        Ok(PoolNormalize { cu_seqlens, pooling, finishes }.forward(hidden)?)
    }

    /// Makes rows `[sequences, width]`, row-major, of pooled vectors of this shape.
    pub(crate) fn finish(
        &self,
        pooled: Vec<f32>,
        shape: (usize, usize),
    ) -> Result<Vec<f32>, EngineError> {
        match self {
            Self::Vector(_) => Ok(pooled),
            Self::Scores(scores) => scores.rows(pooled, shape),
        }
    }
}

impl Scores {
    fn rows(&self, pooled: Vec<f32>, shape: (usize, usize)) -> Result<Vec<f32>, EngineError> {
        let mut state = Tensor::from_vec(pooled, shape, &Device::Cpu)?;
        if let Some((dense, norm)) = &self.dense {
            state = dense.forward(&state)?;
            if let Some(norm) = norm {
                state = norm.forward(&state)?;
            }
        }
        let mut rows: Vec<f32> = self.out.forward(&state)?.flatten_all()?.to_vec1()?;
        for row in rows.chunks_exact_mut(self.out.outputs()) {
            self.finish(row);
        }
        Ok(rows)
    }

    /// Turns a row of the last layer's outputs into scores.
    fn finish(&self, row: &mut [f32]) {
        match self.function {
            ScoreFunction::Raw => {}
            ScoreFunction::Sigmoid => {
                for value in row {
                    *value = 1.0 / (1.0 + (-*value).exp());
                }
            }
            ScoreFunction::Softmax => {
                let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                for value in row.iter_mut() {
                    *value = (*value - max).exp();
                }
                let sum: f32 = row.iter().sum();
                for value in row {
                    *value /= sum;
                }
            }
        }
    }
}
