//! How a model of token vectors (`ColBERT`) reads queries and documents: prompts, lengths, and what fills queries up.
//!
//! `sentence-transformers` keeps this with the transformer, `PyLate` before version 4 in the model's main
//! configuration.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::EngineError;
use crate::load::fields::Fields;
use crate::load::sentence_config;

/// The kind of a text to a model that reads queries otherwise than documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InputType {
    /// A text that is searched for.
    #[default]
    Document,
    /// A text that is searched with.
    Query,
}

/// How texts of one kind are read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct KindReading {
    /// Goes before each text.
    pub(crate) prompt: String,
    /// The beginning of `prompt` that is a token of its own, such as `[Q] `.
    pub(crate) marker: Option<String>,
    /// The most tokens; `None` for as many as the model reads.
    pub(crate) tokens_max: Option<usize>,
}

/// How queries and documents are read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TokenReading {
    pub(crate) queries: KindReading,
    pub(crate) documents: KindReading,
    pub(crate) expansion: Option<Expansion>,
    /// Tokens that documents' vectors leave out, where the folder says so in `PyLate`'s way.
    pub(crate) skipped: Option<Vec<String>>,
}

/// How queries are filled up to a length.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expansion {
    /// Whether a query is never longer than its filled length.
    pub(crate) is_fixed: bool,
    /// The tokens of a filled query.
    pub(crate) length: usize,
    /// Whether other tokens see the fillers.
    pub(crate) attend: bool,
    /// The filler; the mask token where it is absent.
    pub(crate) token: Option<String>,
}

impl Expansion {
    /// Exactly `length` mask tokens and other ones.
    pub(crate) fn fixed(length: usize, attend: bool) -> Self {
        Self { is_fixed: true, length, attend, token: None }
    }

    /// Takes the field `query_expansion`; `None` where it is `null`.
    fn take(fields: &mut Fields) -> Result<Option<Self>, EngineError> {
        const FIELD: &str = "query_expansion";
        if fields.is_null(FIELD) {
            return Ok(None);
        }
        let mut these = fields.object(FIELD)?;
        let strategy: String = these.required("strategy")?;
        let length = these.required("length")?;
        if !matches!(strategy.as_str(), "fixed" | "min") {
            let supported = "the strategies fixed and min";
            return Err(fields.not_supported(FIELD, &strategy, &supported));
        }
        if length == 0 {
            return Err(fields.not_supported(FIELD, &"length: 0", &"1 token or more"));
        }
        let expansion = Self {
            is_fixed: strategy == "fixed",
            length,
            attend: these.or("attend", false)?,
            token: these.get("token")?,
        };
        these.nothing_else(FIELD, &"strategy, length, attend, token")?;
        Ok(Some(expansion))
    }
}

/// The length that queries are filled up to where a configuration says that they are, but no length.
pub(super) const FILLED_LENGTH: usize = 32;

/// ASCII punctuation, which `PyLate` and Stanford leave out of documents unless a folder says something else.
pub(super) fn punctuation() -> Vec<String> {
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~".chars().map(String::from).collect()
}

impl TokenReading {
    /// The fields that are read of the model's main configuration, beside the prompts. Each of them, be it `null`,
    /// marks a configuration as `PyLate`'s.
    pub(crate) const OF_MAIN: &[&str] = &[
        "query_prefix",
        "document_prefix",
        "query_length",
        "document_length",
        "query_expansion",
        "do_query_expansion",
        "attend_to_expansion_tokens",
        "attend_to_mask_tokens",
        "skiplist_words",
    ];

    /// Reads the files in `folder` and in that of its transformer, whose fields count first.
    pub(crate) fn read(folder: &Path, transformer: &Path) -> Result<Self, EngineError> {
        const EXPANSION: &str = "query_expansion";
        let mut main = Fields::parse_if_there(&folder.join("config_sentence_transformers.json"))?;
        let mut own = sentence_config::fields(transformer)?;
        let of_pylate = expansion_of_pylate(&mut main)?;
        let expansion = if own.has(EXPANSION) {
            Expansion::take(&mut own)?
        } else if main.has(EXPANSION) {
            Expansion::take(&mut main)?
        } else {
            of_pylate
        };
        let mut length = |field| {
            let of_main = main.get(field)?;
            if own.has(field) { own.get(field) } else { Ok(of_main) }
        };
        let query_length: Option<usize> = length("query_length")?;
        let document_length = length("document_length")?;
        if let (Some(length), Some(expansion)) = (query_length, &expansion)
            && length < expansion.length
        {
            let supported = format!("no less than the {} of query_expansion", expansion.length);
            return Err(own.not_supported("query_length", &length, &supported));
        }
        let prompts: BTreeMap<String, Option<String>> = main.or("prompts", BTreeMap::new())?;
        let mut kind = |name, marker, tokens_max| {
            let prompt = prompts.get(name).cloned().flatten().unwrap_or_default();
            let marker: Option<String> = main.get(marker)?;
            let prompt = match &marker {
                Some(marker) if !prompt.starts_with(marker) => format!("{marker}{prompt}"),
                _ => prompt,
            };
            Ok::<_, EngineError>(KindReading { prompt, marker, tokens_max })
        };
        Ok(Self {
            queries: kind("query", "query_prefix", query_length)?,
            documents: kind("document", "document_prefix", document_length)?,
            expansion,
            skipped: skipped_by_pylate(&mut main)?,
        })
    }

    /// The markers that are tokens of their own, of both kinds.
    pub(crate) fn markers(&self) -> impl Iterator<Item = &str> {
        [&self.queries, &self.documents].into_iter().filter_map(|kind| kind.marker.as_deref())
    }
}

/// How a main configuration in `PyLate`'s words fills queries up, if it does and isn't overruled by `query_expansion`.
/// The length that it then fills them up to is taken.
fn expansion_of_pylate(main: &mut Fields) -> Result<Option<Expansion>, EngineError> {
    let is_pylates = TokenReading::OF_MAIN.iter().any(|field| main.has(field));
    let fills = main.get("do_query_expansion")? != Some(false);
    let [today, before] = ["attend_to_expansion_tokens", "attend_to_mask_tokens"];
    let attend = if main.has(today) { main.get(today)? } else { main.get(before)? };
    if !is_pylates || !fills || main.has("query_expansion") {
        return Ok(None);
    }
    let length = main.get("query_length")?.filter(|&length| length > 0);
    Ok(Some(Expansion::fixed(length.unwrap_or(FILLED_LENGTH), attend.unwrap_or(false))))
}

/// The tokens that documents' vectors leave out in a folder of `PyLate` before version 4.
fn skipped_by_pylate(main: &mut Fields) -> Result<Option<Vec<String>>, EngineError> {
    let kind: Option<String> = main.get("model_type")?;
    let skipped = main.get("skiplist_words")?;
    Ok((kind.as_deref() == Some("ColBERT")).then(|| skipped.unwrap_or_else(punctuation)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The length that queries are filled up to, with this main configuration.
    fn filled(main: &str) -> Option<usize> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config_sentence_transformers.json"), main).unwrap();
        let reading = TokenReading::read(folder.path(), folder.path()).unwrap();
        reading.expansion.map(|expansion| expansion.length)
    }

    #[test]
    fn any_field_of_pylate_makes_queries_full_be_it_null_and_the_type_alone_does_not() {
        for field in TokenReading::OF_MAIN.iter().filter(|field| **field != "query_expansion") {
            assert_eq!(filled(&format!(r#"{{"{field}": null}}"#)), Some(FILLED_LENGTH), "{field}");
        }
        for (main, length) in [
            (r#"{"model_type": "ColBERT"}"#, None),
            (r#"{"query_expansion": null, "query_length": 24}"#, None),
            (r#"{"query_expansion": {"strategy": "min", "length": 9}}"#, Some(9)),
            (r#"{"do_query_expansion": false, "query_length": 24}"#, None),
            (r#"{"query_length": 24}"#, Some(24)),
        ] {
            assert_eq!(filled(main), length, "{main}");
        }
    }
}
