//! An answer that was read: the rows of its inputs, and the tokens that it counted.

/// More tokens than any call can have: such a count is none.
const TOKENS_MAX: u64 = 1 << 40;

/// An answer to one call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// One row for each input, in the inputs' order: a vector, or a score alone.
    pub rows: Vec<Vec<f32>>,
    /// The tokens that the endpoint counted; `None` where it names none.
    pub tokens: Option<u64>,
}

impl Answer {
    /// With the tokens that the endpoint says it counted, if it can have.
    pub fn new(rows: Vec<Vec<f32>>, tokens: Option<u64>) -> Self {
        Self { rows, tokens: tokens.filter(|tokens| *tokens <= TOKENS_MAX) }
    }
}

/// Why an answer can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is no JSON of the expected shape.
    #[error("its answer can't be read: {0}")]
    Unreadable(String),
    /// It has not one row for each input.
    #[error("its answer has {found} rows for {expected} inputs")]
    Rows {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A row belongs to no input, or to one that has another.
    #[error("its answer has a row of index {0}, which is none of the inputs' or comes twice")]
    Index(usize),
    /// Vectors are empty, or of several lengths.
    #[error("its answer has vectors of {0} and of {1} values")]
    Lengths(usize, usize),
    /// A score is not on the scale that was expected.
    #[error("its answer has the score {0}, which is not between 0 and 1: set `scores = \"raw\"`")]
    Scale(String),
}

/// Puts rows into the order of their inputs. Rows without an index are in that order.
pub fn ordered(
    rows: Vec<(Option<usize>, Vec<f32>)>,
    expected: usize,
) -> Result<Vec<Vec<f32>>, Unusable> {
    if rows.len() != expected {
        return Err(Unusable::Rows { found: rows.len(), expected });
    }
    let mut ordered: Vec<Option<Vec<f32>>> = vec![None; expected];
    for (position, (index, row)) in rows.into_iter().enumerate() {
        let index = index.unwrap_or(position);
        match ordered.get_mut(index) {
            Some(free) if free.is_none() => *free = Some(row),
            _ => return Err(Unusable::Index(index)),
        }
    }
    // As many rows as inputs, and none twice: all are there.
    Ok(ordered.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_no_call_can_have_is_none() {
        let counted = |tokens| Answer::new(Vec::new(), Some(tokens)).tokens;
        assert_eq!(counted(TOKENS_MAX), Some(TOKENS_MAX));
        assert_eq!([counted(TOKENS_MAX + 1), counted(u64::MAX)], [None, None]);
    }

    #[test]
    fn rows_are_put_into_the_order_of_their_inputs() {
        let rows = |indices: &[Option<usize>]| {
            indices.iter().enumerate().map(|(n, index)| (*index, vec![n as f32])).collect()
        };
        let of = |indices: &[Option<usize>], expected| ordered(rows(indices), expected);
        assert_eq!(of(&[Some(1), Some(0)], 2).unwrap(), [[1.0], [0.0]]);
        assert_eq!(of(&[None, None], 2).unwrap(), [[0.0], [1.0]]);
        assert_eq!(of(&[Some(0)], 2).unwrap_err(), Unusable::Rows { found: 1, expected: 2 });
        assert_eq!(of(&[Some(0), Some(0)], 2).unwrap_err(), Unusable::Index(0));
        assert_eq!(of(&[Some(0), Some(7)], 2).unwrap_err(), Unusable::Index(7));
    }
}
