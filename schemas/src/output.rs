//! The output of a job, in the shape of its task.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

/// The output of a job that succeeded; each task has a shape of its own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "OutputFields")]
pub enum Output {
    /// Vectors, one for each input, in order.
    Embed(EmbedOutput),
    /// Scores and the documents' order by them.
    Rerank {
        /// One score for each document, in the documents' order.
        scores: Vec<f32>,
        /// Document indices, best first.
        order: Vec<u32>,
    },
    /// Labels with scores, best first, for each input.
    Classify {
        /// One list for each input, in order.
        labels: Vec<Vec<LabelScore>>,
    },
    /// More text.
    Generate {
        /// The text.
        text: String,
        /// Why it ended: `stop` or `length`.
        finish_reason: String,
    },
}

/// One label and how well it fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LabelScore {
    /// The label as the model's configuration names it.
    pub label: String,
    /// Its probability.
    pub score: f32,
}

/// `count` vectors of `dim` values, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedOutput {
    /// Values in a vector.
    pub dim: usize,
    /// `count * dim` values.
    pub data: Vec<f32>,
}

impl EmbedOutput {
    /// How many vectors there are.
    pub fn count(&self) -> usize {
        self.data.len() / self.dim.max(1)
    }

    /// The vectors in order.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks_exact(self.dim.max(1))
    }
}

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Embed(vectors) => vectors.serialize(to),
            Self::Rerank { scores, order } => {
                let mut map = to.serialize_struct("output", 2)?;
                map.serialize_field("scores", scores)?;
                map.serialize_field("order", order)?;
                map.end()
            }
            Self::Classify { labels } => {
                let mut map = to.serialize_struct("output", 1)?;
                map.serialize_field("labels", labels)?;
                map.end()
            }
            Self::Generate { text, finish_reason } => {
                let mut map = to.serialize_struct("output", 2)?;
                map.serialize_field("text", text)?;
                map.serialize_field("finish_reason", finish_reason)?;
                map.end()
            }
        }
    }
}

impl Serialize for EmbedOutput {
    /// JSON gets lists of numbers; msgpack gets the values' bytes, which need no parsing.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let human = to.is_human_readable();
        let mut map = to.serialize_struct("output", if human { 3 } else { 4 })?;
        map.serialize_field("dim", &self.dim)?;
        map.serialize_field("count", &self.count())?;
        if human {
            map.serialize_field("embeddings", &self.rows().collect::<Vec<_>>())?;
        } else {
            let bytes: Vec<u8> = self.data.iter().flat_map(|value| value.to_le_bytes()).collect();
            map.serialize_field("dtype", "f32")?;
            map.serialize_field("data", serde_bytes::Bytes::new(&bytes))?;
        }
        map.end()
    }
}

impl JsonSchema for Output {
    fn schema_name() -> Cow<'static, str> {
        "Output".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let labels = generator.subschema_for::<Vec<Vec<LabelScore>>>();
        let numbers = generator.subschema_for::<Vec<f32>>();
        json_schema!({
            "description": "By task, in JSON. In msgpack `embed` has `dtype` (\"f32\") and `data` (count * dim \
                little-endian floats) instead of `embeddings`.",
            "oneOf": [
                {"title": "embed", "type": "object", "required": ["dim", "count", "embeddings"],
                 "properties": {"dim": {"type": "integer"}, "count": {"type": "integer"},
                                "embeddings": {"type": "array", "items": numbers}}},
                {"title": "rerank", "type": "object", "required": ["scores", "order"],
                 "properties": {"scores": numbers, "order": {"type": "array", "items": {"type": "integer"}}}},
                {"title": "classify", "type": "object", "required": ["labels"],
                 "properties": {"labels": labels}},
                {"title": "generate", "type": "object", "required": ["text", "finish_reason"],
                 "properties": {"text": {"type": "string"}, "finish_reason": {"type": "string"}}},
            ],
        })
    }
}

/// Every field that an output of any task may have; those that are present identify the task.
#[derive(Deserialize)]
struct OutputFields {
    dim: Option<usize>,
    count: Option<usize>,
    dtype: Option<String>,
    data: Option<serde_bytes::ByteBuf>,
    embeddings: Option<Vec<Vec<f32>>>,
    scores: Option<Vec<f32>>,
    order: Option<Vec<u32>>,
    labels: Option<Vec<Vec<LabelScore>>>,
    text: Option<String>,
    finish_reason: Option<String>,
}

impl TryFrom<OutputFields> for Output {
    type Error = String;

    fn try_from(fields: OutputFields) -> Result<Self, String> {
        match fields {
            OutputFields {
                dim: Some(dim), count: Some(count), data: Some(data), dtype, ..
            } => {
                if dtype.as_deref() != Some("f32") {
                    return Err(format!("`dtype` of the output is {dtype:?}: expected \"f32\""));
                }
                let (values, rest) = data.as_chunks::<4>();
                let data: Vec<f32> = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
                if !rest.is_empty() || dim.checked_mul(count) != Some(data.len()) {
                    let found = data.len();
                    return Err(format!(
                        "`data` of the output has {found} values: expected {count} * {dim}"
                    ));
                }
                Ok(Self::Embed(EmbedOutput { dim, data }))
            }
            OutputFields { dim: Some(dim), count: Some(count), embeddings: Some(rows), .. } => {
                if rows.len() != count || rows.iter().any(|row| row.len() != dim) {
                    return Err(format!(
                        "`embeddings` of the output are not {count} rows of {dim} values"
                    ));
                }
                Ok(Self::Embed(EmbedOutput { dim, data: rows.concat() }))
            }
            OutputFields { scores: Some(scores), order: Some(order), .. } => {
                Ok(Self::Rerank { scores, order })
            }
            OutputFields { labels: Some(labels), .. } => Ok(Self::Classify { labels }),
            OutputFields { text: Some(text), finish_reason: Some(finish_reason), .. } => {
                Ok(Self::Generate { text, finish_reason })
            }
            _ => Err("the output has the fields of no known task".into()),
        }
    }
}
