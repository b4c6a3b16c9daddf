//! Outputs of texts that become more than one dense vector: sparse vectors, and a vector for each token.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

/// Sparse vectors, one for each input, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseOutput {
    /// Dimensions of the space: the size of the model's vocabulary.
    pub dim: usize,
    /// The vectors.
    pub vectors: Vec<SparseVector>,
}

/// The values of a vector that are not zero.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SparseVector {
    /// Their dimensions, ascending: token ids.
    pub indices: Vec<u32>,
    /// The values, one for each index.
    pub values: Vec<f32>,
}

/// Vectors of each input's tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct TokensOutput {
    /// Values in a vector.
    pub dim: usize,
    /// For each input, in order, its vectors one after the other: as many as tokens, `dim` values each.
    pub inputs: Vec<Vec<f32>>,
}

impl TokensOutput {
    /// The vectors of each input.
    pub fn rows(&self) -> impl Iterator<Item = Vec<&[f32]>> {
        self.inputs.iter().map(|values| values.chunks_exact(self.dim.max(1)).collect())
    }
}

impl Serialize for SparseOutput {
    /// JSON gets a map for each vector; msgpack gets all vectors' bytes, which need no parsing.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let human = to.is_human_readable();
        let mut map = to.serialize_struct("output", if human { 3 } else { 6 })?;
        map.serialize_field("dim", &self.dim)?;
        map.serialize_field("count", &self.vectors.len())?;
        if human {
            map.serialize_field("vectors", &self.vectors)?;
        } else {
            let lengths: Vec<usize> = self.vectors.iter().map(|v| v.values.len()).collect();
            let indices = self.vectors.iter().flat_map(|v| &v.indices);
            let indices: Vec<u8> = indices.flat_map(|index| index.to_le_bytes()).collect();
            let values = bytes(self.vectors.iter().flat_map(|v| &v.values));
            map.serialize_field("dtype", "f32")?;
            map.serialize_field("lengths", &lengths)?;
            map.serialize_field("indices", serde_bytes::Bytes::new(&indices))?;
            map.serialize_field("values", serde_bytes::Bytes::new(&values))?;
        }
        map.end()
    }
}

impl Serialize for TokensOutput {
    /// JSON gets lists of numbers; msgpack gets the values' bytes.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let human = to.is_human_readable();
        let mut map = to.serialize_struct("output", if human { 3 } else { 5 })?;
        map.serialize_field("dim", &self.dim)?;
        map.serialize_field("count", &self.inputs.len())?;
        if human {
            map.serialize_field("token_embeddings", &self.rows().collect::<Vec<_>>())?;
        } else {
            let lengths = self.inputs.iter().map(|values| values.len() / self.dim.max(1));
            map.serialize_field("dtype", "f32")?;
            map.serialize_field("lengths", &lengths.collect::<Vec<_>>())?;
            let data = bytes(self.inputs.iter().flatten());
            map.serialize_field("data", serde_bytes::Bytes::new(&data))?;
        }
        map.end()
    }
}

fn bytes<'a>(values: impl Iterator<Item = &'a f32>) -> Vec<u8> {
    values.flat_map(|value| value.to_le_bytes()).collect()
}

/// Little-endian floats; `name` is the field in the error.
pub(crate) fn floats(name: &str, bytes: &[u8]) -> Result<Vec<f32>, String> {
    let (values, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(format!(
            "`{name}` of the output has {} bytes: expected whole floats",
            bytes.len()
        ));
    }
    Ok(values.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

impl SparseOutput {
    /// Of the fields that msgpack has.
    pub(crate) fn of_bytes(
        [dim, count]: [usize; 2],
        lengths: &[usize],
        [indices, values]: [&[u8]; 2],
    ) -> Result<Self, String> {
        let values = floats("values", values)?;
        let (indices, rest) = indices.as_chunks::<4>();
        if !rest.is_empty() || indices.len() != values.len() {
            return Err("`indices` and `values` of the output differ in length".into());
        }
        let mut indices = indices.iter().map(|b| u32::from_le_bytes(*b));
        let vectors = split(lengths, 1, &values)?.into_iter().map(|values| SparseVector {
            indices: indices.by_ref().take(values.len()).collect(),
            values: values.to_vec(),
        });
        Self { dim, vectors: vectors.collect() }.checked(count)
    }

    /// Of the fields that JSON has.
    pub(crate) fn of_vectors(
        dim: usize,
        count: usize,
        vectors: Vec<SparseVector>,
    ) -> Result<Self, String> {
        Self { dim, vectors }.checked(count)
    }

    fn checked(self, count: usize) -> Result<Self, String> {
        let sound = |vector: &SparseVector| {
            vector.indices.len() == vector.values.len()
                && vector.indices.is_sorted_by(|a, b| a < b)
                && vector.indices.last().is_none_or(|&last| (last as usize) < self.dim)
        };
        if self.vectors.len() != count || !self.vectors.iter().all(sound) {
            return Err(format!(
                "the output is not {count} vectors of ascending indices below {}, each with a value",
                self.dim
            ));
        }
        Ok(self)
    }
}

impl TokensOutput {
    /// Of the fields that msgpack has.
    pub(crate) fn of_bytes(
        [dim, count]: [usize; 2],
        lengths: &[usize],
        data: &[u8],
    ) -> Result<Self, String> {
        let data = floats("data", data)?;
        let inputs = split(lengths, dim, &data)?.into_iter().map(<[f32]>::to_vec).collect();
        Self { dim, inputs }.checked(count)
    }

    /// Of the fields that JSON has.
    pub(crate) fn of_rows(
        dim: usize,
        count: usize,
        rows: &[Vec<Vec<f32>>],
    ) -> Result<Self, String> {
        if rows.iter().flatten().any(|row| row.len() != dim) {
            return Err(format!("`token_embeddings` of the output are not rows of {dim} values"));
        }
        Self { dim, inputs: rows.iter().map(|rows| rows.concat()).collect() }.checked(count)
    }

    fn checked(self, count: usize) -> Result<Self, String> {
        if self.inputs.len() != count {
            let found = self.inputs.len();
            return Err(format!("the output has vectors of {found} inputs: expected {count}"));
        }
        Ok(self)
    }
}

/// Cuts values into so many times `width`, and nothing may be left.
fn split<'a>(
    lengths: &[usize],
    width: usize,
    mut values: &'a [f32],
) -> Result<Vec<&'a [f32]>, String> {
    let wrong = || "`lengths` of the output do not add up to its values".to_owned();
    let mut parts = Vec::with_capacity(lengths.len());
    for length in lengths {
        let length = length.checked_mul(width).ok_or_else(wrong)?;
        let (part, rest) = values.split_at_checked(length).ok_or_else(wrong)?;
        parts.push(part);
        values = rest;
    }
    if values.is_empty() { Ok(parts) } else { Err(wrong()) }
}
