//! The end of a sparse encoder: a language model's head gives each token a weight for every word of the vocabulary, and
//! the weights of a text's tokens become one vector, nearly all of it zeros.
//!
//! Formula: `max over tokens of log(1 + relu(logit))` (Formal et al. 2021, SPLADE v2), or the sum (v1).

use candle_core::{DType, Tensor};
use forebay_kernels::{LayerNorm, Linear};

use crate::encode::layers::Sequences;
use crate::error::EngineError;
use crate::load::per_token::SpladePooling;

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

/// A dimension and its value.
type Weight = (usize, f32);

impl Splade {
    /// For each sequence pairs of a dimension and its value, the dimensions ascending. A dimension is below 2^24, which
    /// f32 holds exactly.
    pub(crate) fn rows(
        &self,
        hidden: &Tensor,
        sequences: Sequences<'_>,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let state = self.norm.forward(&self.dense.forward(&hidden.to_dtype(DType::F32)?)?)?;
        let mut kept: Vec<Vec<Weight>> = vec![Vec::new(); sequences.cu_seqlens.sequences()];
        for (block, words) in self.words.iter().enumerate() {
            let weights = self.pooled(words, &state, sequences)?;
            for (kept, weights) in kept.iter_mut().zip(weights.chunks_exact(words.outputs())) {
                let first = block * WORDS_AT_ONCE;
                let weights =
                    weights.iter().enumerate().map(|(word, &weight)| (first + word, weight));
                kept.extend(weights.filter(|(_, weight)| *weight > 0.0 || weight.is_nan()));
            }
        }
        Ok(kept.into_iter().map(|kept| self.finish(kept)).collect())
    }

    /// The weights of some words for each sequence.
    fn pooled(
        &self,
        words: &Linear,
        state: &Tensor,
        sequences: Sequences<'_>,
    ) -> Result<Vec<f32>, EngineError> {
        let count = words.outputs();
        let mut weights = vec![0.0; sequences.cu_seqlens.sequences() * count];
        let ranges = sequences.cu_seqlens.ranges().enumerate();
        let mut sequence_of = ranges.flat_map(|(sequence, range)| range.map(move |_| sequence));
        let tokens = sequences.cu_seqlens.tokens();
        for first in (0..tokens).step_by(TOKENS_AT_ONCE) {
            let part = state.narrow(0, first, TOKENS_AT_ONCE.min(tokens - first))?;
            let logits: Vec<f32> = words.forward(&part)?.flatten_all()?.to_vec1()?;
            for (row, sequence) in logits.chunks_exact(count).zip(sequence_of.by_ref()) {
                let weights = &mut weights[sequence * count..][..count];
                for (weight, &logit) in weights.iter_mut().zip(row) {
                    self.pool(weight, logit);
                }
            }
        }
        Ok(weights)
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

    fn finish(&self, kept: Vec<Weight>) -> Vec<f32> {
        let value = |weight| if self.pooling.sums { weight } else { self.log(weight) };
        largest(kept, self.pooling.values_max)
            .into_iter()
            .flat_map(|(word, weight)| [word as f32, value(weight)])
            .collect()
    }
}

/// The `values_max` largest weights, in the order of their dimensions.
fn largest(mut kept: Vec<Weight>, values_max: usize) -> Vec<Weight> {
    if kept.len() > values_max {
        // What is not a number counts as large: the caller must see it. Of equal weights the first words stay.
        let by_size = |a: &Weight, b: &Weight| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        kept.select_nth_unstable_by(values_max, by_size);
        kept.truncate(values_max);
        kept.sort_unstable_by_key(|&(word, _)| word);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: usize = 1_024;

    #[test]
    fn the_largest_weights_are_kept_in_the_order_of_their_dimensions() {
        let many = |count: usize| (0..count).map(|word| (word, (word % 7) as f32 + 1.0)).collect();
        let few: Vec<Weight> = many(KEPT);
        assert_eq!(largest(few.clone(), KEPT), few);
        let kept = largest(many(7 * KEPT), KEPT);
        let expected: Vec<Weight> = (0..KEPT).map(|nth| (7 * nth + 6, 7.0)).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn what_is_not_a_number_is_not_cut_off() {
        let mut weights: Vec<Weight> = (0..2 * KEPT).map(|word| (word, 1.0)).collect();
        weights[2_000].1 = f32::NAN;
        assert!(
            largest(weights, KEPT).iter().any(|(word, weight)| *word == 2_000 && weight.is_nan())
        );
    }
}
