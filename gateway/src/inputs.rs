//! Inputs to embed as clients send them: a text, or a list of texts; or token ids, where the request says whose.

use schemars::JsonSchema;
use serde_json::value::RawValue;

use crate::{
    error::ApiError,
    fields::{Fields, Kind, each, kind, text, texts, top, unexpected},
    token_ids,
};

/// One text, or a list of them; a text may be empty.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Texts {
    /// One text.
    One(String),
    /// A list.
    Many(#[schemars(length(min = 1))] Vec<String>),
}

/// Texts as in [`Texts`], or sequences of token ids.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum TextsOrIds {
    /// Texts.
    Texts(Texts),
    /// One sequence of token ids, whole, with its special tokens.
    Ids(#[schemars(length(min = 1))] Vec<TokenId>),
    /// A list of sequences.
    Sequences(#[schemars(length(min = 1))] Vec<Sequence>),
}

/// A sequence of token ids.
#[derive(JsonSchema)]
pub struct Sequence(#[schemars(length(min = 1))] pub Vec<TokenId>);

/// A token id: a whole number below 2^32.
#[derive(JsonSchema)]
pub struct TokenId(#[schemars(range(min = 0, max = u32::MAX))] pub u32);

/// A document to rank.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum RankedDocument {
    /// Its text.
    Text(String),
    /// Its text in an object, whose other fields are ignored.
    Object {
        /// Its text.
        text: String,
    },
}

/// Inputs to embed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Texts.
    Texts(Vec<String>),
    /// Sequences of token ids.
    Ids {
        /// The sequences.
        sequences: Vec<Vec<u32>>,
        /// The model whose tokenizer made them, as the client named it.
        tokenizer: String,
    },
}

impl Input {
    /// The inputs of the field `name`: token ids where the field `tokenizer` says whose they are, else texts.
    pub fn required(
        fields: &Fields<'_>,
        name: &'static str,
        count_max: usize,
    ) -> Result<Self, ApiError> {
        match (fields.raw(name), fields.text("tokenizer")?) {
            (Some(raw), Some(tokenizer)) if kind(raw) == Kind::List && token_ids::is_there(raw) => {
                let sequences = token_ids::sequences(name, raw, count_max)?;
                Ok(Self::Ids { sequences, tokenizer })
            }
            _ => required(fields, name, count_max).map(Self::Texts),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Ids { sequences, .. } => sequences.len(),
        }
    }
}

/// The texts of the field `name`, which has to be there.
pub fn required(
    fields: &Fields<'_>,
    name: &'static str,
    count_max: usize,
) -> Result<Vec<String>, ApiError> {
    let missing =
        || ApiError::invalid(name, format!("`{name}` is missing: send a string or a list of them"));
    let raw = fields.raw(name).ok_or_else(missing)?;
    match kind(raw) {
        Kind::Text => Ok(vec![text(name, raw)?]),
        Kind::List if token_ids::is_there(raw) => Err(whose(name)),
        Kind::List => texts(name, raw, count_max),
        _ => Err(unexpected(name, raw, "a string or a list of strings")),
    }
}

/// Which tokenizer made them can't be seen, and LangChain's default sends those of OpenAI's own whatever the model: fed
/// to another model they would make vectors of other texts.
fn whose(name: &'static str) -> ApiError {
    let message = format!(
        "`{name}` has token ids, and this model has a tokenizer of its own: send texts. In LangChain, set \
         check_embedding_ctx_length=False. At /v1/embeddings, ids of the model's own tokenizer are taken where the \
         body's `tokenizer` is the model's name"
    );
    ApiError::invalid(name, message)
}

/// Documents to rank: strings, or objects with a `text`.
pub fn documents(
    name: &'static str,
    raw: &RawValue,
    count_max: usize,
) -> Result<Vec<String>, ApiError> {
    let mut documents = Vec::new();
    each(name, raw, count_max, |index, element| {
        let name = format!("{name}[{index}]");
        let document = match kind(element) {
            Kind::Text => text(&name, element)?,
            Kind::Object => {
                let fields = Fields::scan(element.get().as_bytes(), &["text"])?;
                let inner = fields.raw("text").ok_or_else(|| {
                    let message = format!("`{name}` has no `text`: send it, or a string");
                    ApiError::invalid(top(&name), message)
                })?;
                text(&format!("{name}.text"), inner)?
            }
            _ => return Err(unexpected(&name, element, "a string or an object with a `text`")),
        };
        documents.push(document);
        Ok(())
    })?;
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str) -> Result<Vec<String>, ApiError> {
        let body = format!(r#"{{"input": {input}}}"#);
        required(&Fields::scan(body.as_bytes(), &["input"]).unwrap(), "input", 3)
    }

    #[test]
    fn one_text_is_a_list_of_one_and_empty_texts_are_texts() {
        assert_eq!(read(r#""x""#).unwrap(), ["x"]);
        assert_eq!(read(r#""""#).unwrap(), [""]);
        assert_eq!(read(r#"["a", "", "b"]"#).unwrap(), ["a", "", "b"]);
    }

    #[test]
    fn token_ids_are_refused_with_the_setting_that_helps() {
        for ids in ["[1, 2]", "[[1, 2], [3]]", "[9906]", "[[9906]]"] {
            let error = read(ids).unwrap_err();
            assert!(error.message.contains("check_embedding_ctx_length=False"), "{error}");
            assert_eq!(error.param.as_deref(), Some("input"));
        }
    }

    #[test]
    fn token_ids_are_taken_where_the_request_says_whose_they_are() {
        let read = |input: &str, tokenizer: &str| {
            let body = format!(r#"{{"input": {input}, "tokenizer": {tokenizer}}}"#);
            let names = ["input", "tokenizer"];
            Input::required(&Fields::scan(body.as_bytes(), &names).unwrap(), "input", 3)
        };
        let ids = Input::Ids { sequences: vec![vec![101, 7]], tokenizer: "m".into() };
        assert_eq!(read("[101, 7]", "\"m\"").unwrap(), ids);
        assert_eq!(read("[[101, 7]]", "\"m\"").unwrap(), ids);
        assert!(read("[101, 7]", "null").unwrap_err().message.contains("check_embedding_ctx"));
        assert_eq!(read("[101, 7]", "7").unwrap_err().param.as_deref(), Some("tokenizer"));
        assert_eq!(read("[\"a\"]", "\"m\"").unwrap(), Input::Texts(vec!["a".into()]));
    }

    #[test]
    fn other_inputs_are_refused_by_what_they_are() {
        for (input, why) in [
            ("[]", "is empty"),
            ("[[]]", "`input[0]` is a list"),
            (r#"[["a"]]"#, "`input[0]` is a list"),
            ("{}", "is an object"),
            ("3", "is a number"),
            ("null", "is missing"),
            (r#"["a", null]"#, "`input[1]` is null"),
            (r#"["a", "b", "c", "d"]"#, "more than 3"),
        ] {
            let error = read(input).unwrap_err();
            assert!(error.message.contains(why), "{input}: {error}");
        }
    }

    #[test]
    fn documents_are_texts_or_objects_with_one() {
        let documents = |list: &str| {
            let raw: Box<RawValue> = serde_json::from_str(list).unwrap();
            super::documents("documents", &raw, 9)
        };
        assert_eq!(documents(r#"["a", {"text": "b", "title": 1}]"#).unwrap(), ["a", "b"]);
        let error = documents(r#"[{"title": "x"}]"#).unwrap_err();
        assert_eq!(error.message, "`documents[0]` has no `text`: send it, or a string");
        assert_eq!(error.param.as_deref(), Some("documents"));
        assert!(documents("[1]").unwrap_err().message.contains("`documents[0]` is a number"));
    }
}
