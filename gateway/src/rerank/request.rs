//! Requests for a ranking.

use crate::{
    error::ApiError,
    fields::{Fields, texts},
    inputs,
};

/// A request for a ranking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RerankRequest {
    /// The shape of the answer.
    pub shape: Shape,
    /// The model as the client named it.
    pub model: Option<String>,
    /// The query.
    pub query: String,
    /// The documents.
    pub documents: Vec<String>,
    /// Answer with only this many, the best first.
    pub top_n: Option<u32>,
    /// Answer with the documents' texts too.
    pub with_documents: bool,
    /// Answer with the model's own scores instead of numbers from 0 to 1.
    pub raw_scores: bool,
}

/// The shape of a request and of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Cohere's of this API version, which Jina's clients read too.
    Cohere(u8),
    /// Voyage's.
    Voyage,
    /// That of text-embeddings-inference.
    Tei,
}

/// The path that a request came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// `/v1/rerank`
    V1,
    /// `/v2/rerank`
    V2,
    /// `/rerank`
    Bare,
}

/// The fields that `parse` reads.
pub const NAMES: [&str; 13] = [
    "model",
    "query",
    "documents",
    "texts",
    "top_n",
    "top_k",
    "return_documents",
    "return_text",
    "raw_scores",
    "truncate",
    "truncation",
    "rank_fields",
    "max_tokens_per_doc",
];

impl RerankRequest {
    /// Reads a body with at most `documents_max` documents.
    pub fn parse(body: &[u8], path: Path, documents_max: usize) -> Result<Self, ApiError> {
        let fields = Fields::scan(body, &NAMES)?;
        let shape = match path {
            Path::Bare if fields.raw("texts").is_some() => Shape::Tei,
            // Voyage's client always sends one of these, and no other does.
            _ if fields.has("truncation") || fields.has("top_k") => Shape::Voyage,
            Path::V2 => Shape::Cohere(2),
            Path::V1 | Path::Bare => Shape::Cohere(1),
        };
        for name in ["truncate", "truncation"] {
            only_true(&fields, name)?;
        }
        if fields.raw("rank_fields").is_some() {
            let message = "`rank_fields` is not supported: send documents as strings";
            return Err(ApiError::invalid("rank_fields", message));
        }
        let [list, top, with_documents] = match shape {
            Shape::Cohere(_) => ["documents", "top_n", "return_documents"],
            Shape::Voyage => ["documents", "top_k", "return_documents"],
            Shape::Tei => ["texts", "top_n", "return_text"],
        };
        let missing =
            || ApiError::invalid(list, format!("`{list}` is missing: send a list of strings"));
        let raw = fields.raw(list).ok_or_else(missing)?;
        let documents = match shape {
            Shape::Tei => texts(list, raw, documents_max)?,
            _ => inputs::documents(list, raw, documents_max)?,
        };
        if shape != Shape::Tei {
            // Those of both shapes: which of them counts depends on the others, and a mistake is a mistake.
            fields.count("top_n")?;
            fields.count("top_k")?;
        }
        if let Some(tokens_max) = fields.count("max_tokens_per_doc")? {
            check_lengths(list, &documents, tokens_max)?;
        }
        Ok(Self {
            shape,
            model: fields.text("model")?,
            query: fields.required_text("query")?,
            documents,
            top_n: fields.count(top)?,
            with_documents: fields.flag(with_documents)?.unwrap_or(false),
            raw_scores: fields.flag("raw_scores")?.unwrap_or(false),
        })
    }

    /// The field that the documents came in.
    pub fn documents_field(&self) -> &'static str {
        if self.shape == Shape::Tei { "texts" } else { "documents" }
    }
}

/// Refuses a limit of tokens that may cut one of the documents: they are cut to what the model reads, and nowhere else.
fn check_lengths(list: &str, documents: &[String], tokens_max: u32) -> Result<(), ApiError> {
    let may_be_cut = |document: &String| tokens_at_most(document) > tokens_max as usize;
    let Some(index) = documents.iter().position(may_be_cut) else { return Ok(()) };
    let message = format!(
        "`max_tokens_per_doc` is {tokens_max}, and `{list}[{index}]` may have more tokens: documents are cut to what \
         the model reads beside the query, and to no other length; leave it out, or send shorter documents"
    );
    Err(ApiError::invalid("max_tokens_per_doc", message))
}

/// A number of tokens that no tokenizer makes more of.
fn tokens_at_most(text: &str) -> usize {
    // A token has at least one byte, of the text and of the space that some put before it. Normalization makes up to 33
    // bytes of 3, never of ASCII.
    let bytes = if text.is_ascii() { text.len() } else { text.len().saturating_mul(11) };
    bytes.saturating_add(1)
}

/// Refuses `false` for a field that asks whether texts may be cut: these tasks always cut them.
pub fn only_true(fields: &Fields<'_>, name: &str) -> Result<(), ApiError> {
    if fields.flag(name)? == Some(false) {
        let message = format!(
            "`{name}` is false, and this task cuts texts that are longer than the model reads: leave it out"
        );
        return Err(ApiError::invalid(name, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(body: &Value, path: Path) -> Result<RerankRequest, ApiError> {
        RerankRequest::parse(body.to_string().as_bytes(), path, 10)
    }

    fn asked(extra: &Value) -> Value {
        let mut body = json!({"model": "m", "query": "q", "documents": ["a", {"text": "b"}, "c"]});
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    }

    #[test]
    fn the_shape_is_known_by_the_path_and_by_what_only_one_client_sends() {
        let shape = |extra: &Value, path| parsed(&asked(extra), path).unwrap().shape;
        assert_eq!(shape(&json!({}), Path::V1), Shape::Cohere(1));
        assert_eq!(shape(&json!({}), Path::V2), Shape::Cohere(2));
        assert_eq!(shape(&json!({"top_n": 2}), Path::Bare), Shape::Cohere(1));
        assert_eq!(shape(&json!({"top_k": null, "truncation": true}), Path::V1), Shape::Voyage);
        let tei = json!({"query": "q", "texts": ["a"]});
        assert_eq!(parsed(&tei, Path::Bare).unwrap().shape, Shape::Tei);
        assert!(parsed(&tei, Path::V1).unwrap_err().message.contains("`documents` is missing"));
    }

    #[test]
    fn a_limit_of_tokens_that_may_cut_a_document_is_refused_and_any_other_changes_nothing() {
        let with = |documents: Value, tokens_max: Value| {
            let body =
                json!({"query": "q", "documents": documents, "max_tokens_per_doc": tokens_max});
            parsed(&body, Path::V2).map(|request| request.documents.len())
        };
        let long = "x".repeat(4_096);
        assert_eq!(with(json!(["x", &long[1..]]), json!(4_096)), Ok(2));
        assert_eq!(with(json!([long]), json!(null)), Ok(1));
        let refused = with(json!(["x", long]), json!(4_096)).unwrap_err();
        assert_eq!(refused.param.as_deref(), Some("max_tokens_per_doc"));
        assert!(refused.message.contains("`documents[1]` may have more tokens"), "{refused}");
        // Three bytes of this character are 33 once they are normalized.
        assert!(with(json!(["\u{fdfa}"]), json!(30)).is_err());
        assert!(with(json!(["x"]), json!(0)).is_err());
    }

    #[test]
    fn requests_that_cannot_be_honoured_are_refused_by_the_field() {
        for (extra, param) in [
            (json!({"truncation": false}), "truncation"),
            (json!({"rank_fields": ["x"]}), "rank_fields"),
            (json!({"top_n": 0}), "top_n"),
            (json!({"query": null}), "query"),
            (json!({"documents": []}), "documents"),
        ] {
            let error = parsed(&asked(&extra), Path::V1).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{error}");
        }
    }
}
