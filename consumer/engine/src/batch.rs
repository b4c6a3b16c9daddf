//! What goes into an encoder and what comes out: packed sequences and their vectors.

use forebay_kernels::{CuSeqlens, Finish};

/// Sequences packed end to end, each with the wish for its vector's finish.
///
/// Sequences of many jobs may share a batch: the finish is per sequence.
#[derive(Debug, Clone, Default)]
pub struct PackedBatch {
    token_ids: Vec<u32>,
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
        self.token_ids.extend_from_slice(token_ids);
        self.cu_seqlens.push(token_ids.len());
        self.finishes.push(finish);
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
        self.cu_seqlens.clear();
        self.finishes.clear();
    }

    /// The ids of all sequences, end to end.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// Where each sequence begins and ends.
    pub fn cu_seqlens(&self) -> &CuSeqlens {
        &self.cu_seqlens
    }

    /// Each sequence's finish.
    pub fn finishes(&self) -> &[Finish] {
        &self.finishes
    }
}

/// One vector a sequence, row by row in the batch's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Values a row: the model's dimension. Where [`Finish::dimensions`] asked for fewer, the rest are zero.
    pub dim: usize,
    /// `[sequences, dim]`, row-major.
    pub data: Vec<f32>,
}

impl Embeddings {
    /// The vector of the sequence at `index`: `dim` values.
    ///
    /// # Panics
    /// When `index` is not below the number of sequences.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.dim..(index + 1) * self.dim]
    }

    /// All vectors in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.dim)
    }
}
