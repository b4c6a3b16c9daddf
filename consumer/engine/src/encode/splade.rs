//! The end of a sparse encoder: a language model's head gives each token a weight for every word of the vocabulary, and
//! the weights of a text's tokens become one vector, nearly all of it zeros.
//!
//! Formula: `max over tokens of log(1 + relu(logit))` (Formal et al. 2021, SPLADE v2), or the sum (v1).

use candle_core::{DType, Tensor};
use forebay_kernels::{LayerNorm, Linear};

use crate::encode::layers::Sequences;
use crate::error::EngineError;
use crate::load::per_token::{SPARSE_VALUES_MAX, SpladePooling};

/// Tokens whose logits are held at once, for [`WORDS_AT_ONCE`] words of the vocabulary: 4 MiB of f32.
const TOKENS_AT_ONCE: usize = 512;
/// Rows of the last layer's weight that are multiplied at once.
pub(crate) const WORDS_AT_ONCE: usize = 2_048;

/// A language model's head, and what becomes of its outputs.
pub(crate) struct Splade {
    pub(crate) dense: Linear,
    pub(crate) norm: LayerNorm,
    /// The last layer, cut into blocks of [`WORDS_AT_ONCE`] words.
    pub(crate) words: Vec<Linear>,
    pub(crate) pooling: SpladePooling,
}

impl Splade {
    /// For each sequence pairs of a dimension and its value, the dimensions ascending. A dimension is below 2^24, which
    /// f32 holds exactly.
    pub(crate) fn rows(
        &self,
        hidden: &Tensor,
        sequences: Sequences<'_>,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let vocabulary = self.words.iter().map(Linear::outputs).sum();
        let mut rows = Vec::with_capacity(sequences.cu_seqlens.sequences());
        let mut weights = vec![0.0; vocabulary];
        for range in sequences.cu_seqlens.ranges() {
            weights.fill(0.0);
            for first in range.clone().step_by(TOKENS_AT_ONCE) {
                let tokens = TOKENS_AT_ONCE.min(range.end - first);
                self.add(&hidden.narrow(0, first, tokens)?, &mut weights)?;
            }
            rows.push(self.finish(&weights));
        }
        Ok(rows)
    }

    /// Adds the weights of some tokens to those of their text.
    fn add(&self, hidden: &Tensor, weights: &mut [f32]) -> Result<(), EngineError> {
        let hidden = hidden.to_dtype(DType::F32)?;
        let state = self.norm.forward(&self.dense.forward(&hidden)?)?;
        let blocks = weights.chunks_mut(WORDS_AT_ONCE);
        for (words, weights) in self.words.iter().zip(blocks) {
            let logits = words.forward(&state)?.to_dtype(DType::F32)?;
            let logits: Vec<f32> = logits.flatten_all()?.to_vec1()?;
            for row in logits.chunks_exact(weights.len()) {
                for (weight, &logit) in weights.iter_mut().zip(row) {
                    self.pool(weight, logit);
                }
            }
        }
        Ok(())
    }

    /// The logarithm grows with its operand: of the largest it is taken once, at the end.
    #[inline]
    fn pool(&self, weight: &mut f32, logit: f32) {
        if self.pooling.sums {
            *weight += self.log(logit);
        } else if logit > *weight || logit.is_nan() {
            *weight = logit;
        }
    }

    fn log(&self, logit: f32) -> f32 {
        // Not `max`, which would make 0 of what is not a number.
        let weight = if logit < 0.0 { 0.0 } else { logit.ln_1p() };
        if self.pooling.logs_twice { weight.ln_1p() } else { weight }
    }

    fn finish(&self, weights: &[f32]) -> Vec<f32> {
        let kept = weights.iter().enumerate();
        let kept = kept.filter(|(_, weight)| **weight > 0.0 || weight.is_nan());
        let mut kept: Vec<(usize, f32)> = kept.map(|(word, &weight)| (word, weight)).collect();
        if kept.len() > SPARSE_VALUES_MAX {
            // What is not a number counts as large: the caller must see it. Of equal weights the first words stay.
            let by_size =
                |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
            kept.select_nth_unstable_by(SPARSE_VALUES_MAX, by_size);
            kept.truncate(SPARSE_VALUES_MAX);
            kept.sort_unstable_by_key(|&(word, _)| word);
        }
        let value = |weight| if self.pooling.sums { weight } else { self.log(weight) };
        kept.into_iter().flat_map(|(word, weight)| [word as f32, value(weight)]).collect()
    }
}
