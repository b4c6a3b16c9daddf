//! Texts with the vectors that sentence-transformers (`PyTorch`, float32) gives for them.

use serde_json::Value;

use crate::binaries::checkout;

/// A text and its embedding.
#[derive(Debug, Clone)]
pub struct Row {
    /// The input.
    pub text: String,
    /// The expected embedding: 384 numbers of length 1.
    pub embedding: Vec<f32>,
}

/// Awkward texts (empty, blank, combining marks, special tokens, over-long) and plain ones.
pub fn rows() -> Vec<Row> {
    let path = checkout().join("tests/data/minilm_l6_v2.jsonl");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(row).collect()
}

fn row(line: &str) -> Row {
    let row: Value = serde_json::from_str(line).expect("a row of JSON");
    let numbers = row["embedding"].as_array().expect("an embedding").iter();
    Row {
        text: row["text"].as_str().expect("a text").to_owned(),
        embedding: numbers.map(|x| x.as_f64().expect("a number") as f32).collect(),
    }
}

/// The cosine of the angle between two vectors.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of one width");
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// How far from the reference a float32 path may be.
pub const COSINE_MIN: f64 = 0.99999;
