//! The input and the output of an encoder: packed sequences and their rows.

use forebay_kernels::{CuSeqlens, Finish};

use crate::error::EngineError;
use crate::load::sizes::Sizes;

/// Sequences packed end to end, each with the finish that is asked for its vector.
///
/// Sequences of many jobs may share a batch: the finish is per sequence.
#[derive(Debug, Clone, Default)]
pub struct PackedBatch {
    token_ids: Vec<u32>,
    /// 0 for the tokens of a first text, 1 for those of a second; as many as tokens.
    type_ids: Vec<u32>,
    pairs: usize,
    cu_seqlens: CuSeqlens,
    finishes: Vec<Finish>,
}

impl PackedBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one sequence. Its ids already carry the special tokens.
    pub fn push(&mut self, token_ids: &[u32], finish: Finish) {
        self.push_pair(token_ids, token_ids.len(), finish);
    }

    /// Appends one sequence of two texts, of which the first has `first_len` tokens.
    pub fn push_pair(&mut self, token_ids: &[u32], first_len: usize, finish: Finish) {
        let first_len = first_len.min(token_ids.len());
        self.token_ids.extend_from_slice(token_ids);
        self.type_ids.resize(self.type_ids.len() + first_len, 0);
        self.type_ids.resize(self.token_ids.len(), 1);
        self.pairs += usize::from(first_len < token_ids.len());
        self.cu_seqlens.push(token_ids.len());
        self.finishes.push(finish);
    }

    /// Appends a sequence of another batch.
    ///
    /// # Panics
    /// When it has no such sequence.
    pub fn push_from(&mut self, other: &Self, sequence: usize) {
        let range = other.cu_seqlens.range(sequence);
        let first_len = other.type_ids[range.clone()].iter().take_while(|&&id| id == 0).count();
        self.push_pair(&other.token_ids[range], first_len, other.finishes[sequence]);
    }

    /// Tokens of all sequences together.
    pub fn tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// How many sequences there are.
    pub fn sequences(&self) -> usize {
        self.finishes.len()
    }

    /// True when nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.finishes.is_empty()
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.token_ids.clear();
        self.type_ids.clear();
        self.pairs = 0;
        self.cu_seqlens.clear();
        self.finishes.clear();
    }

    /// The ids of all sequences, end to end.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// For each token 1 if it is of a second text, else 0; `None` where no sequence is of two texts.
    pub fn type_ids(&self) -> Option<&[u32]> {
        (self.pairs > 0).then_some(self.type_ids.as_slice())
    }

    /// Where each sequence begins and ends.
    pub fn cu_seqlens(&self) -> &CuSeqlens {
        &self.cu_seqlens
    }

    /// Each sequence's finish.
    pub fn finishes(&self) -> &[Finish] {
        &self.finishes
    }

    /// Refuses an item that the tables have no row for, or whose finish cannot be made.
    pub(crate) fn check(&self, sizes: Sizes) -> Result<(), EngineError> {
        let Sizes { vocabulary, hidden, positions, .. } = sizes;
        for (index, (range, finish)) in self.cu_seqlens.ranges().zip(&self.finishes).enumerate() {
            let tokens = range.len();
            let outside = self.token_ids[range].iter().find(|&&id| id as usize >= vocabulary);
            let dimensions = finish.dimensions.filter(|&asked| asked == 0 || asked > hidden);
            let problem = if tokens > positions {
                format!("{tokens} tokens, the model has {positions} positions")
            } else if let Some(id) = outside {
                format!("token id {id} is outside the vocabulary of {vocabulary}")
            } else if let Some(asked) = dimensions {
                format!("{asked} dimensions asked, the model gives 1 to {hidden}")
            } else {
                continue;
            };
            return Err(EngineError::Item { index, problem });
        }
        Ok(())
    }
}

/// One row a sequence, in the batch's order: its vector, or its scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Values a row: [`crate::ModelInfo::dim`]. Where [`Finish::dimensions`] asked for fewer, the rest are zero.
    pub width: usize,
    /// `[sequences, width]`, row-major.
    pub data: Vec<f32>,
}

impl Rows {
    /// The row of the sequence at `index`: `width` values.
    ///
    /// # Panics
    /// When `index` is not below the number of sequences.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.width..(index + 1) * self.width]
    }

    /// All rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.width)
    }
}
