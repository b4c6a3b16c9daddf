//! How a model of token vectors (`ColBERT`) reads queries and documents: prompts, lengths, and what fills queries up.
//!
//! `sentence-transformers` keeps this with the transformer, `PyLate` before version 4 in the model's main
//! configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::EngineError;
use crate::load::files::{from_json, read_if_there};

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
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub(crate) struct Expansion {
    strategy: String,
    /// The tokens of a filled query.
    pub(crate) length: usize,
    /// Whether other tokens see the fillers.
    #[serde(default)]
    pub(crate) attend: bool,
    /// The filler; the mask token where it is absent.
    pub(crate) token: Option<String>,
}

impl Expansion {
    /// Refuses a strategy that is unknown here; `path` names the file that has it.
    fn check(self, path: PathBuf) -> Result<Self, EngineError> {
        if matches!(self.strategy.as_str(), "fixed" | "min") {
            return Ok(self);
        }
        Err(EngineError::NotSupported {
            path,
            field: "query_expansion",
            value: self.strategy,
            supported: "the strategies fixed and min".to_owned(),
        })
    }

    /// Whether a query is never longer than its filled length.
    pub(crate) fn is_fixed(&self) -> bool {
        self.strategy == "fixed"
    }
}

/// `config_sentence_transformers.json`. Of fields in which it matters whether they are there, `null` is a value.
#[derive(Default, Deserialize)]
#[serde(default)]
struct MainFields {
    model_type: Option<String>,
    prompts: BTreeMap<String, Option<String>>,
    query_prefix: Option<String>,
    document_prefix: Option<String>,
    query_length: Option<usize>,
    document_length: Option<usize>,
    query_expansion: Option<Expansion>,
    do_query_expansion: Option<bool>,
    attend_to_expansion_tokens: Option<bool>,
    attend_to_mask_tokens: Option<bool>,
    skiplist_words: Option<Vec<String>>,
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
struct TransformerFields {
    query_length: Option<usize>,
    document_length: Option<usize>,
    query_expansion: Option<Expansion>,
}

/// The length that `PyLate` fills queries up to unless its configuration says another.
const FILLED_LENGTH: usize = 32;
/// `PyLate` leaves these out of documents unless its configuration says something else: ASCII punctuation.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

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
    /// The fields that are read of the transformer's configuration.
    pub(crate) const OF_TRANSFORMER: &[&str] =
        &["query_length", "document_length", "query_expansion"];

    /// Reads the files in `folder` and in that of its transformer.
    pub(crate) fn read(folder: &Path, transformer: &Path) -> Result<Self, EngineError> {
        let path = folder.join("config_sentence_transformers.json");
        let keys: Map<String, Value> = if_there(&path)?.unwrap_or_default();
        let main: MainFields = if_there(&path)?.unwrap_or_default();
        let of_main = main.expansion(&keys).map(|expansion| (path, expansion));
        let path = transformer.join("sentence_bert_config.json");
        let own: TransformerFields = if_there(&path)?.unwrap_or_default();
        let of_own = own.query_expansion.map(|expansion| (path, expansion));
        let expansion = of_own.or(of_main).map(|(path, expansion)| expansion.check(path));
        let expansion = expansion.transpose()?;
        let kind = |name, marker: &Option<String>, lengths: [Option<usize>; 2]| {
            let prompt = main.prompts.get(name).cloned().flatten().unwrap_or_default();
            let marker = marker.clone().filter(|marker| !marker.trim().is_empty());
            let prompt = match &marker {
                Some(marker) if !prompt.starts_with(marker) => format!("{marker}{prompt}"),
                _ => prompt,
            };
            KindReading { prompt, marker, tokens_max: lengths.into_iter().flatten().next() }
        };
        let lengths = [own.query_length, main.query_length];
        Ok(Self {
            queries: kind("query", &main.query_prefix, lengths),
            documents: kind(
                "document",
                &main.document_prefix,
                [own.document_length, main.document_length],
            ),
            expansion,
            skipped: main.skipped(),
        })
    }
}

impl MainFields {
    /// How the configuration with these keys fills queries up, if it does.
    fn expansion(&self, keys: &Map<String, Value>) -> Option<Expansion> {
        if keys.contains_key("query_expansion") {
            return self.query_expansion.clone();
        }
        let marks_pylate = TokenReading::OF_MAIN.iter().any(|key| keys.contains_key(*key));
        let attend = if keys.contains_key("attend_to_expansion_tokens") {
            self.attend_to_expansion_tokens
        } else {
            self.attend_to_mask_tokens
        };
        let expansion = Expansion {
            strategy: "fixed".to_owned(),
            length: self.query_length.filter(|&length| length > 0).unwrap_or(FILLED_LENGTH),
            attend: attend.unwrap_or(false),
            token: None,
        };
        (marks_pylate && self.do_query_expansion != Some(false)).then_some(expansion)
    }

    fn skipped(&self) -> Option<Vec<String>> {
        (self.model_type.as_deref() == Some("ColBERT")).then(|| {
            let punctuation = || PUNCTUATION.chars().map(String::from).collect();
            self.skiplist_words.clone().unwrap_or_else(punctuation)
        })
    }
}

fn if_there<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    read_if_there(path)?.map(|json| from_json(path, &json)).transpose()
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
