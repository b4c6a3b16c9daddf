//! Checks of outcomes, and the similarity of vectors.

use forebay_client::{Outcome, Output};

/// How far the length of a normalised vector may be from 1: `bf16` keeps three digits.
const LENGTH_ERROR_MAX: f32 = 0.01;

/// A text with its id and its vector.
pub(crate) struct Embedded<'a> {
    pub(crate) id: &'a str,
    pub(crate) text: &'a str,
    pub(crate) values: Vec<f32>,
}

/// The vectors of `outcome`, of which there must be `count`, all finite and of length 1.
pub(crate) fn checked(outcome: &Outcome, count: usize) -> Result<Vec<Vec<f32>>, String> {
    let id = &outcome.id;
    let vectors = match (&outcome.output, &outcome.error) {
        (Some(Output::Embed(vectors)), None) => vectors,
        (_, Some(error)) => return Err(format!("job {id} {}: {error}", outcome.state)),
        _ => return Err(format!("job {id} has no vectors")),
    };
    if vectors.count() != count {
        return Err(format!("job {id} has {} vectors for {count} texts", vectors.count()));
    }
    let rows: Vec<Vec<f32>> = vectors.rows().map(<[f32]>::to_vec).collect();
    for row in &rows {
        // A value that is not finite makes the length not finite, so this catches it too.
        let length = similarity(row, row).sqrt();
        if !(1.0 - LENGTH_ERROR_MAX..=1.0 + LENGTH_ERROR_MAX).contains(&length) {
            return Err(format!("job {id} has a vector of length {length}"));
        }
    }
    Ok(rows)
}

/// The cosine of two vectors of length 1.
pub(crate) fn similarity(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
