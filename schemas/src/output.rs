//! The output of a job, in the shape of its task.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use crate::{
    generate::{FinishReason, TokenLogprob, ToolCall},
    vectors::{SparseOutput, SparseVector, TokensOutput, floats},
};

/// The output of a job that succeeded; each task has a shape of its own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "OutputFields")]
pub enum Output {
    /// Vectors, one for each input, in order.
    Embed(EmbedOutput),
    /// Sparse vectors, one for each input, in order.
    EmbedSparse(SparseOutput),
    /// Vectors of the tokens of each input, in order.
    EmbedTokens(TokensOutput),
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
        /// Why it ended.
        finish_reason: FinishReason,
        /// The tools that the model called; the text has no more of them.
        tool_calls: Vec<ToolCall>,
        /// The text's token ids, if the job asks for them.
        token_ids: Option<Vec<u32>>,
        /// The tokens' log-probabilities, if the job asks for them.
        logprobs: Option<Vec<TokenLogprob>>,
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
            Self::EmbedSparse(vectors) => vectors.serialize(to),
            Self::EmbedTokens(vectors) => vectors.serialize(to),
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
            Self::Generate { text, finish_reason, tool_calls, token_ids, logprobs } => {
                let optional = [!tool_calls.is_empty(), token_ids.is_some(), logprobs.is_some()];
                let len = 2 + optional.iter().filter(|is_there| **is_there).count();
                let mut map = to.serialize_struct("output", len)?;
                map.serialize_field("text", text)?;
                map.serialize_field("finish_reason", finish_reason)?;
                if !tool_calls.is_empty() {
                    map.serialize_field("tool_calls", tool_calls)?;
                }
                if let Some(ids) = token_ids {
                    map.serialize_field("token_ids", ids)?;
                }
                if let Some(logprobs) = logprobs {
                    map.serialize_field("logprobs", logprobs)?;
                }
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
        let finish_reason = generator.subschema_for::<FinishReason>();
        let tool_calls = generator.subschema_for::<Vec<ToolCall>>();
        let logprobs = generator.subschema_for::<Vec<TokenLogprob>>();
        let sparse = json_schema!({
            "type": "object", "required": ["indices", "values"],
            "properties": {"indices": {"type": "array", "items": {"type": "integer"}}, "values": numbers},
        });
        json_schema!({
            "description": "By task, in JSON. In msgpack `embed` has `dtype` (\"f32\") and `data` (count * dim \
                little-endian floats) instead of `embeddings`; `embed_sparse` has `dtype`, `lengths` (values of each \
                vector), `indices` (little-endian u32) and `values` (floats) instead of `vectors`; `embed_tokens` has \
                `dtype`, `lengths` (vectors of each input) and `data` instead of `token_embeddings`.",
            "oneOf": [
                {"title": "embed", "type": "object", "required": ["dim", "count", "embeddings"],
                 "properties": {"dim": {"type": "integer"}, "count": {"type": "integer"},
                                "embeddings": {"type": "array", "items": numbers}}},
                {"title": "embed_sparse", "type": "object", "required": ["dim", "count", "vectors"],
                 "properties": {"dim": {"type": "integer"}, "count": {"type": "integer"},
                                "vectors": {"type": "array", "items": sparse}}},
                {"title": "embed_tokens", "type": "object", "required": ["dim", "count", "token_embeddings"],
                 "properties": {"dim": {"type": "integer"}, "count": {"type": "integer"},
                                "token_embeddings": {"type": "array", "items": {"type": "array", "items": numbers}}}},
                {"title": "rerank", "type": "object", "required": ["scores", "order"],
                 "properties": {"scores": numbers, "order": {"type": "array", "items": {"type": "integer"}}}},
                {"title": "classify", "type": "object", "required": ["labels"],
                 "properties": {"labels": labels}},
                {"title": "generate", "type": "object", "required": ["text", "finish_reason"],
                 "properties": {"text": {"type": "string"}, "finish_reason": finish_reason, "tool_calls": tool_calls,
                                "token_ids": {"type": "array", "items": {"type": "integer"}},
                                "logprobs": logprobs}},
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
    lengths: Option<Vec<usize>>,
    indices: Option<serde_bytes::ByteBuf>,
    values: Option<serde_bytes::ByteBuf>,
    vectors: Option<Vec<SparseVector>>,
    token_embeddings: Option<Vec<Vec<Vec<f32>>>>,
    scores: Option<Vec<f32>>,
    order: Option<Vec<u32>>,
    labels: Option<Vec<Vec<LabelScore>>>,
    text: Option<String>,
    finish_reason: Option<FinishReason>,
    tool_calls: Option<Vec<ToolCall>>,
    token_ids: Option<Vec<u32>>,
    logprobs: Option<Vec<TokenLogprob>>,
}

impl TryFrom<OutputFields> for Output {
    type Error = String;

    fn try_from(fields: OutputFields) -> Result<Self, String> {
        let has_bytes = fields.data.is_some() || fields.values.is_some();
        if has_bytes && fields.dtype.as_deref() != Some("f32") {
            let dtype = fields.dtype;
            return Err(format!("`dtype` of the output is {dtype:?}: expected \"f32\""));
        }
        if let OutputFields { dim: Some(dim), count: Some(count), .. } = fields {
            return fields.vectors([dim, count]);
        }
        match fields {
            OutputFields { scores: Some(scores), order: Some(order), .. } => {
                Ok(Self::Rerank { scores, order })
            }
            OutputFields { labels: Some(labels), .. } => Ok(Self::Classify { labels }),
            OutputFields {
                text: Some(text),
                finish_reason: Some(finish_reason),
                tool_calls,
                token_ids,
                logprobs,
                ..
            } => {
                let tool_calls = tool_calls.unwrap_or_default();
                Ok(Self::Generate { text, finish_reason, tool_calls, token_ids, logprobs })
            }
            _ => Err("the output has the fields of no known task".into()),
        }
    }
}

impl OutputFields {
    /// The output of one of the tasks whose outputs say how many inputs there were.
    fn vectors(self, [dim, count]: [usize; 2]) -> Result<Output, String> {
        let sizes = [dim, count];
        match self {
            Self {
                lengths: Some(lengths), indices: Some(indices), values: Some(values), ..
            } => SparseOutput::of_bytes(sizes, &lengths, [&indices, &values])
                .map(Output::EmbedSparse),
            Self { vectors: Some(vectors), .. } => {
                SparseOutput::of_vectors(dim, count, vectors).map(Output::EmbedSparse)
            }
            Self { lengths: Some(lengths), data: Some(data), .. } => {
                TokensOutput::of_bytes(sizes, &lengths, &data).map(Output::EmbedTokens)
            }
            Self { token_embeddings: Some(rows), .. } => {
                TokensOutput::of_rows(dim, count, &rows).map(Output::EmbedTokens)
            }
            Self { data: Some(data), .. } => {
                let data = floats("data", &data)?;
                if dim.checked_mul(count) != Some(data.len()) {
                    let found = data.len();
                    return Err(format!(
                        "`data` of the output has {found} values: expected {count} * {dim}"
                    ));
                }
                Ok(Output::Embed(EmbedOutput { dim, data }))
            }
            Self { embeddings: Some(rows), .. } => {
                if rows.len() != count || rows.iter().any(|row| row.len() != dim) {
                    return Err(format!(
                        "`embeddings` of the output are not {count} rows of {dim} values"
                    ));
                }
                Ok(Output::Embed(EmbedOutput { dim, data: rows.concat() }))
            }
            _ => Err("the output has the fields of no known task".into()),
        }
    }
}
