//! `POST /v1/embeddings`: its request and its answer.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Serialize, Serializer, ser::SerializeSeq};
use serde_json::{Value, json};

use crate::{
    error::ApiError,
    fields::Fields,
    inputs::{Input, TextsOrIds},
};

/// The body of a request, as the document has it.
#[derive(JsonSchema)]
#[schemars(extend("anyOf" = ids_have_a_tokenizer()))]
pub struct EmbeddingsBody {
    /// The model; may be left out where `gateway.embed_model` names one, or the fleet has only one.
    pub model: Option<String>,
    /// The texts; or token ids, beside `tokenizer`.
    pub input: TextsOrIds,
    /// How vectors are written: `float` unless set.
    pub encoding_format: Option<Encoding>,
    /// Keep only this many of the first dimensions.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub dimensions: Option<u32>,
    /// The model whose tokenizer made the token ids, which is the one that reads them. Token ids without it are
    /// refused: which tokenizer made them can't be seen.
    pub tokenizer: Option<String>,
}

/// Token ids are taken where `tokenizer` says whose they are.
fn ids_have_a_tokenizer() -> Value {
    let texts =
        json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]});
    json!([
        {"properties": {"tokenizer": {"type": "string"}}, "required": ["tokenizer"]},
        {"properties": {"input": texts}},
    ])
}

/// A request for vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingsRequest {
    /// The model as the client named it.
    pub model: Option<String>,
    /// The texts, or the token ids.
    pub input: Input,
    /// How vectors are written.
    pub encoding: Encoding,
    /// Keep only this many of the first dimensions.
    pub dimensions: Option<u32>,
}

/// How the vectors of an answer are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Encoding {
    /// Lists of numbers.
    Float,
    /// The base64 of little-endian 32-bit floats.
    Base64,
}

/// The fields that `parse` reads.
pub const NAMES: [&str; 5] = ["model", "input", "encoding_format", "dimensions", "tokenizer"];

impl EmbeddingsRequest {
    /// Reads a body with at most `inputs_max` texts.
    pub fn parse(body: &[u8], inputs_max: usize) -> Result<Self, ApiError> {
        let fields = Fields::scan(body, &NAMES)?;
        let encoding = match fields.text("encoding_format")?.as_deref() {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(other) => {
                let came: String = other.chars().take(40).collect();
                let message = format!("`encoding_format` is `{came}`: send `float` or `base64`");
                return Err(ApiError::invalid("encoding_format", message));
            }
        };
        Ok(Self {
            model: fields.text("model")?,
            input: Input::required(&fields, "input", inputs_max)?,
            encoding,
            dimensions: fields.count("dimensions")?,
        })
    }
}

/// The body of the answer: one element for each input, in the inputs' order.
pub fn answer(
    model: &str,
    rows: &[&[f32]],
    encoding: Encoding,
    tokens: u64,
) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Answer {
        object: "list",
        data: Data { rows, encoding },
        model,
        usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
    })
}

/// One vector for each input, in the inputs' order.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Embeddings")]
pub struct Answer<'a> {
    #[schemars(extend("const" = "list"))]
    object: &'static str,
    #[schemars(with = "Vec<Element<'static>>")]
    data: Data<'a>,
    /// The model that made them.
    model: &'a str,
    usage: Usage,
}

/// The tokens of a request.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TokenUsage")]
pub struct Usage {
    /// Those that the model read.
    pub prompt_tokens: u64,
    /// As many: nothing is generated.
    pub total_tokens: u64,
}

struct Data<'a> {
    rows: &'a [&'a [f32]],
    encoding: Encoding,
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(Some(self.rows.len()))?;
        for (index, values) in self.rows.iter().enumerate() {
            let embedding = Vector { values, encoding: self.encoding };
            list.serialize_element(&Element { object: "embedding", index, embedding })?;
        }
        list.end()
    }
}

/// The vector of one input.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Embedding")]
struct Element<'a> {
    #[schemars(extend("const" = "embedding"))]
    object: &'static str,
    /// The input's position.
    index: usize,
    #[schemars(with = "WrittenVector")]
    embedding: Vector<'a>,
}

/// Numbers, or the padded base64 of little-endian 32-bit floats.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)] // the schema of what `Vector` writes
enum WrittenVector {
    Float(Vec<f32>),
    Base64(#[schemars(extend("contentEncoding" = "base64"))] String),
}

struct Vector<'a> {
    values: &'a [f32],
    encoding: Encoding,
}

impl Serialize for Vector<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.encoding {
            Encoding::Float => self.values.serialize(to),
            Encoding::Base64 => {
                let bytes: Vec<u8> =
                    self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
                to.serialize_str(&STANDARD.encode(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &Value) -> Result<EmbeddingsRequest, ApiError> {
        EmbeddingsRequest::parse(body.to_string().as_bytes(), 100)
    }

    const ROWS: [&[f32]; 3] = [&[0.5, -1.0], &[0.25, 3.0], &[1e-8, 2.0]];

    #[test]
    fn a_request_of_the_official_client_is_read() {
        let body = json!({"input": ["a", "b"], "model": "m", "encoding_format": "base64",
                          "user": "u", "dimensions": null, "truncate_prompt_tokens": -1});
        let expected = EmbeddingsRequest {
            model: Some("m".into()),
            input: Input::Texts(vec!["a".into(), "b".into()]),
            encoding: Encoding::Base64,
            dimensions: None,
        };
        assert_eq!(parsed(&body).unwrap(), expected);
    }

    #[test]
    fn floats_are_written_where_nothing_else_was_asked_for() {
        for body in [json!({"input": "x"}), json!({"input": "x", "encoding_format": null})] {
            assert_eq!(parsed(&body).unwrap().encoding, Encoding::Float);
        }
        let error = parsed(&json!({"input": "x", "encoding_format": "int8"})).unwrap_err();
        assert_eq!(error.message, "`encoding_format` is `int8`: send `float` or `base64`");
        let error = parsed(&json!({"input": "x", "dimensions": 0})).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("dimensions"));
    }

    fn element(index: usize, embedding: [f64; 2]) -> Value {
        json!({"object": "embedding", "index": index, "embedding": embedding})
    }

    #[test]
    fn the_answer_has_an_element_for_each_input_in_order() {
        let bytes = answer("m", &ROWS, Encoding::Float, 7).unwrap();
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        let expected = json!({
            "object": "list",
            "data": [element(0, [0.5, -1.0]), element(1, [0.25, 3.0]), element(2, [1e-8, 2.0])],
            "model": "m",
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        });
        assert_eq!(answer, expected);
    }

    #[test]
    fn base64_is_padded_and_holds_little_endian_floats() {
        let bytes = answer("m", &ROWS, Encoding::Base64, 7).unwrap();
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        let written = answer["data"][1]["embedding"].as_str().unwrap();
        assert!(written.ends_with('='), "{written}");
        let floats = STANDARD.decode(written).unwrap();
        assert_eq!(floats, [0.25_f32.to_le_bytes(), 3.0_f32.to_le_bytes()].concat());
    }
}
