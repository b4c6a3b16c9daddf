//! Texts to embed as clients send them: one, or a list. Ids of a tokenizer are refused.

use schemars::JsonSchema;
use serde_json::value::RawValue;

use crate::{
    error::ApiError,
    fields::{Fields, Kind, each, kind, text, texts, top, unexpected},
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
        Kind::List if has_token_ids(raw) => Err(token_ids(name)),
        Kind::List => texts(name, raw, count_max),
        _ => Err(unexpected(name, raw, "a string or a list of strings")),
    }
}

/// Whether a list has numbers, or lists of numbers: its first element says so.
fn has_token_ids(list: &RawValue) -> bool {
    match first(list).map(|element| (kind(element), element)) {
        Some((Kind::List, inner)) => first(inner).is_some_and(|id| kind(id) == Kind::Number),
        Some((kind, _)) => kind == Kind::Number,
        None => false,
    }
}

/// The first element of a list.
fn first(list: &RawValue) -> Option<&RawValue> {
    let mut first = None;
    // The error is that there are more, or none.
    let _ = each("", list, 1, |_, element| {
        first = Some(element);
        Ok(())
    });
    first
}

/// Which tokenizer made them can't be seen, and LangChain's default sends those of OpenAI's own whatever the model: fed
/// to another model they would make vectors of other texts.
fn token_ids(name: &'static str) -> ApiError {
    let message = format!(
        "`{name}` has token ids, and this model has a tokenizer of its own: send texts. In LangChain, set \
         check_embedding_ctx_length=False"
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
