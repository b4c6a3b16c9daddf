//! The end of an encoder: a sequence's hidden states become its vector, or its scores.

use candle_core::{DType, Device, Tensor};
use forebay_kernels::{self as kernels, CuSeqlens, Finish, LayerNorm, Linear, PoolNormalize};

use crate::encode::dense::DenseLayer;
use crate::encode::layers::Sequences;
use crate::error::EngineError;
use crate::load::pooling::{After, Pooling};

/// The norm below which a vector is not scaled up: what `normalize` of `PyTorch` takes.
const NORM_MIN: f32 = 1e-12;

/// The last stage of an encoder: hidden states to rows.
pub(crate) enum Head {
    /// Pooled hidden states, finished by the operation that pools.
    Pooled(kernels::Pooling),
    /// Vectors of which more is made than that operation does.
    Vector(Vector),
    /// Scores of labels, made of a pooled hidden state.
    Scores(Box<Scores>),
}

/// Pooled vectors side by side, and what is computed of them in f32 on the processor.
pub(crate) struct Vector {
    poolings: Vec<Pooling>,
    after: Vec<Step>,
    width: usize,
}

/// A step after pooling.
enum Step {
    Dense(Box<DenseLayer>),
    Normalize,
}

/// Layers from a pooled hidden state to scores, in f32 and on the processor.
pub(crate) struct Scores {
    pub(crate) pooling: kernels::Pooling,
    /// The token at the end of a sequence that is passed over: then its last other one is pooled.
    pub(crate) pad: Option<u32>,
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
    /// A head that makes vectors of hidden states of `hidden` values.
    pub(crate) fn of_vectors(
        poolings: &[Pooling],
        after: &[After],
        hidden: usize,
    ) -> Result<Self, EngineError> {
        if let ([pooling], []) = (poolings, after)
            && let Some(pooling) = by_operation(*pooling)
        {
            return Ok(Self::Pooled(pooling));
        }
        let mut width = hidden.saturating_mul(poolings.len());
        let mut steps = Vec::new();
        for module in after {
            steps.push(match module {
                After::Normalize => Step::Normalize,
                After::Dense(dense) => {
                    let layer = DenseLayer::load(dense, width)?;
                    width = layer.outputs();
                    Step::Dense(Box::new(layer))
                }
            });
        }
        Ok(Self::Vector(Vector { poolings: poolings.to_vec(), after: steps, width }))
    }

    /// Values a row, for hidden states of `hidden` values.
    pub(crate) fn width(&self, hidden: usize) -> usize {
        match self {
            Self::Pooled(_) => hidden,
            Self::Vector(vector) => vector.width,
            Self::Scores(scores) => scores.out.outputs(),
        }
    }

    /// The most dimensions that a job may ask for. Scores have none, and ignore them.
    pub(crate) fn dimensions(&self, hidden: usize) -> usize {
        match self {
            Self::Scores(_) => hidden,
            _ => self.width(hidden),
        }
    }

    /// Pools hidden states `[tokens, hidden]` into a row a sequence, on their device.
    pub(crate) fn pooled(
        &self,
        hidden: &Tensor,
        sequences: Sequences<'_>,
        finishes: &[Finish],
    ) -> Result<Tensor, EngineError> {
        let cu_seqlens = sequences.cu_seqlens;
        match self {
            Self::Pooled(pooling) => {
                Ok(PoolNormalize { cu_seqlens, pooling: *pooling, finishes }.forward(hidden)?)
            }
            Self::Scores(scores) => match scores.pad {
                Some(pad) => last_but(pad, hidden, sequences),
                None => plain(scores.pooling, hidden, cu_seqlens),
            },
            Self::Vector(vector) => {
                let pool = |pooling: &Pooling| pool(*pooling, hidden, cu_seqlens);
                let parts: Vec<Tensor> =
                    vector.poolings.iter().map(pool).collect::<Result<_, _>>()?;
                Ok(Tensor::cat(&parts, 1)?)
            }
        }
    }

    /// Makes rows of the values of pooled rows, row-major, one for each finish.
    pub(crate) fn finish(
        &self,
        pooled: Vec<f32>,
        finishes: &[Finish],
    ) -> Result<Vec<f32>, EngineError> {
        match self {
            Self::Pooled(_) => Ok(pooled),
            Self::Vector(vector) => vector.rows(pooled, finishes),
            Self::Scores(scores) => scores.rows(pooled, finishes.len()),
        }
    }
}

/// The pooling as one operation does it.
fn by_operation(pooling: Pooling) -> Option<kernels::Pooling> {
    match pooling {
        Pooling::Cls => Some(kernels::Pooling::Cls),
        Pooling::Max => Some(kernels::Pooling::Max),
        Pooling::Mean => Some(kernels::Pooling::Mean),
        Pooling::Last => Some(kernels::Pooling::Last),
        Pooling::MeanSqrtLen | Pooling::WeightedMean => None,
    }
}

/// Pools without normalising or cutting.
fn plain(
    pooling: kernels::Pooling,
    hidden: &Tensor,
    cu_seqlens: &CuSeqlens,
) -> Result<Tensor, EngineError> {
    let finish = Finish { normalize: false, dimensions: None };
    let finishes = vec![finish; cu_seqlens.sequences()];
    Ok(PoolNormalize { cu_seqlens, pooling, finishes: &finishes }.forward(hidden)?)
}

/// The state of each sequence's last token that is not `pad`, or else of its first; zeros of an empty one.
fn last_but(pad: u32, hidden: &Tensor, sequences: Sequences<'_>) -> Result<Tensor, EngineError> {
    let rows = sequences.cu_seqlens.ranges().map(|range| {
        if range.is_empty() {
            return Ok(Tensor::zeros((1, hidden.dim(1)?), DType::F32, hidden.device())?);
        }
        let last = sequences.token_ids[range.clone()].iter().rposition(|&id| id != pad);
        let row = hidden.narrow(0, range.start + last.unwrap_or(0), 1)?;
        Ok(row.to_dtype(DType::F32)?)
    });
    Ok(Tensor::cat(&rows.collect::<Result<Vec<_>, EngineError>>()?, 0)?)
}

fn pool(pooling: Pooling, hidden: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Tensor, EngineError> {
    if let Some(pooling) = by_operation(pooling) {
        return plain(pooling, hidden, cu_seqlens);
    }
    let device = hidden.device();
    if pooling == Pooling::MeanSqrtLen {
        let mean = plain(kernels::Pooling::Mean, hidden, cu_seqlens)?;
        let roots = cu_seqlens.ranges().map(|range| (range.len() as f32).sqrt());
        let roots: Vec<f32> = roots.collect();
        let roots = Tensor::from_vec(roots, (cu_seqlens.sequences(), 1), device)?;
        return Ok(mean.broadcast_mul(&roots)?);
    }
    let width = hidden.dims()[1];
    let rows = cu_seqlens.ranges().map(|range| {
        if range.is_empty() {
            return Ok(Tensor::zeros((1, width), DType::F32, device)?);
        }
        let tokens = range.len();
        let states = hidden.narrow(0, range.start, tokens)?.to_dtype(DType::F32)?;
        let weights = Tensor::arange(1_u32, tokens as u32 + 1, device)?.to_dtype(DType::F32)?;
        let sum = states.broadcast_mul(&weights.reshape((tokens, 1))?)?.sum_keepdim(0)?;
        Ok((sum / (tokens * (tokens + 1) / 2) as f64)?)
    });
    let rows: Vec<Tensor> = rows.collect::<Result<_, EngineError>>()?;
    Ok(Tensor::cat(&rows, 0)?)
}

impl Vector {
    fn rows(&self, pooled: Vec<f32>, finishes: &[Finish]) -> Result<Vec<f32>, EngineError> {
        let mut values = pooled;
        for step in &self.after {
            let width = values.len() / finishes.len().max(1);
            match step {
                Step::Normalize => values.chunks_exact_mut(width.max(1)).for_each(normalize),
                Step::Dense(layer) => {
                    let rows = Tensor::from_vec(values, (finishes.len(), width), &Device::Cpu)?;
                    values = layer.forward(&rows)?.flatten_all()?.to_vec1()?;
                }
            }
        }
        for (row, finish) in values.chunks_exact_mut(self.width).zip(finishes) {
            let kept = finish.dimensions.unwrap_or(self.width).min(self.width);
            let (kept, cut) = row.split_at_mut(kept);
            cut.fill(0.0);
            if finish.normalize {
                normalize(kept);
            }
        }
        Ok(values)
    }
}

fn normalize(row: &mut [f32]) {
    let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    let divisor = if norm < NORM_MIN { NORM_MIN } else { norm };
    for value in row {
        *value /= divisor;
    }
}

impl Scores {
    fn rows(&self, pooled: Vec<f32>, sequences: usize) -> Result<Vec<f32>, EngineError> {
        let width = pooled.len() / sequences.max(1);
        let mut state = Tensor::from_vec(pooled, (sequences, width), &Device::Cpu)?;
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
