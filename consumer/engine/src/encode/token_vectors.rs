//! The end of a late-interaction encoder (ColBERT): each token's hidden state, projected and scaled to length 1.
//!
//! Source: Khattab and Zaharia 2020

use std::collections::BTreeSet;

use candle_core::{DType, Tensor};

use crate::encode::dense::DenseLayer;
use crate::encode::layers::Sequences;
use crate::error::EngineError;

/// The norm below which a vector is not scaled up: what `normalize` of `PyTorch` takes.
const NORM_MIN: f32 = 1e-12;

/// Linear layers on every token, and which tokens are given out.
pub(crate) struct TokenVectors {
    pub(crate) dense: Vec<DenseLayer>,
    /// Tokens whose vectors are left out of queries, and of documents.
    pub(crate) skipped: [BTreeSet<u32>; 2],
}

impl TokenVectors {
    /// For each sequence its tokens' vectors, one after the other.
    pub(crate) fn rows(
        &self,
        hidden: &Tensor,
        sequences: Sequences<'_>,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let mut state = hidden.to_dtype(DType::F32)?;
        for dense in &self.dense {
            state = dense.forward(&state)?;
        }
        let (_, width) = state.dims2()?;
        let mut values: Vec<f32> = state.flatten_all()?.to_vec1()?;
        for vector in values.chunks_exact_mut(width) {
            let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(NORM_MIN);
            for value in vector {
                *value /= norm;
            }
        }
        let [of_queries, of_documents] = &self.skipped;
        let sequence = |(range, is_query): (std::ops::Range<usize>, &bool)| {
            let skipped = if *is_query { of_queries } else { of_documents };
            let ids = &sequences.token_ids[range.clone()];
            let vectors = values[range.start * width..range.end * width].chunks_exact(width);
            let kept = ids.iter().zip(vectors).filter(|(id, _)| !skipped.contains(id));
            kept.flat_map(|(_, vector)| vector).copied().collect()
        };
        Ok(sequences.cu_seqlens.ranges().zip(sequences.queries).map(sequence).collect())
    }
}
