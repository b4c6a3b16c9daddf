//! The input and the output of an encoder: packed sequences and their rows.

use forebay_kernels::{CuSeqlens, Finish};

use crate::error::EngineError;
use crate::load::sizes::Sizes;
use crate::load::token_reading::InputType;

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
    /// Whether each sequence is a query.
    queries: Vec<bool>,
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
        self.push_as(InputType::Document, token_ids, first_len, finish);
    }

    /// Appends one sequence, of a text that is a query or a document to the model.
    pub fn push_as(
        &mut self,
        input_type: InputType,
        token_ids: &[u32],
        first_len: usize,
        finish: Finish,
    ) {
        let first_len = first_len.min(token_ids.len());
        self.token_ids.extend_from_slice(token_ids);
        self.type_ids.resize(self.type_ids.len() + first_len, 0);
        self.type_ids.resize(self.token_ids.len(), 1);
        self.pairs += usize::from(first_len < token_ids.len());
        self.cu_seqlens.push(token_ids.len());
        self.finishes.push(finish);
        self.queries.push(input_type == InputType::Query);
    }

    /// Appends a sequence of another batch.
    ///
    /// # Panics
    /// When it has no such sequence.
    pub fn push_from(&mut self, other: &Self, sequence: usize) {
        let range = other.cu_seqlens.range(sequence);
        let first_len = other.type_ids[range.clone()].iter().take_while(|&&id| id == 0).count();
        let is_query = other.queries[sequence];
        let input_type = if is_query { InputType::Query } else { InputType::Document };
        self.push_as(input_type, &other.token_ids[range], first_len, other.finishes[sequence]);
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
        self.queries.clear();
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

    /// Whether each sequence is a query.
    pub(crate) fn queries(&self) -> &[bool] {
        &self.queries
    }

    /// Refuses an item that the tables have no row for, or whose finish cannot be made.
    /// `width` is the most dimensions that can be asked for.
    pub(crate) fn check(&self, sizes: Sizes, width: usize) -> Result<(), EngineError> {
        let Sizes { vocabulary, positions, .. } = sizes;
        for (index, (range, finish)) in self.cu_seqlens.ranges().zip(&self.finishes).enumerate() {
            let tokens = range.len();
            let outside = self.token_ids[range].iter().find(|&&id| id as usize >= vocabulary);
            let dimensions = finish.dimensions.filter(|&asked| asked == 0 || asked > width);
            let problem = if tokens > positions {
                format!("{tokens} tokens, the model has {positions} positions")
            } else if let Some(id) = outside {
                format!("token id {id} is outside the vocabulary of {vocabulary}")
            } else if let Some(asked) = dimensions {
                format!("{asked} dimensions asked, the model gives 1 to {width}")
            } else {
                continue;
            };
            return Err(EngineError::Item { index, problem });
        }
        Ok(())
    }
}

/// One row a sequence, in the batch's order: its vector or its scores; of a sparse encoder its pairs of a dimension and
/// a value, and of an encoder of token vectors all of these one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Values a row: [`crate::ModelInfo::dim`]. Where [`Finish::dimensions`] asked for fewer, the rest are zero. A row
    /// of pairs or of token vectors has a multiple of it.
    pub width: usize,
    /// The values of all rows, end to end.
    pub data: Vec<f32>,
    /// Where each row ends in `data`; `None` where each has `width` values.
    pub ends: Option<Vec<usize>>,
}

impl Rows {
    /// Rows of different lengths.
    pub fn uneven(width: usize, rows: &[Vec<f32>]) -> Self {
        let ends = rows.iter().scan(0, |end, row| {
            *end += row.len();
            Some(*end)
        });
        Self { width, ends: Some(ends.collect()), data: rows.concat() }
    }

    /// The row of the sequence at `index`.
    ///
    /// # Panics
    /// When `index` is not below the number of sequences.
    pub fn row(&self, index: usize) -> &[f32] {
        match &self.ends {
            None => &self.data[index * self.width..(index + 1) * self.width],
            Some(ends) => {
                &self.data[index.checked_sub(1).map_or(0, |last| ends[last])..ends[index]]
            }
        }
    }

    /// All rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        let count = self.ends.as_ref().map_or(self.data.len() / self.width.max(1), Vec::len);
        (0..count).map(|index| self.row(index))
    }
}
