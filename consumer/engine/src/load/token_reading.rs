//! How a model of token vectors (`ColBERT`) reads queries and documents: prompts, lengths, and what fills queries up.
//!
//! `sentence-transformers` keeps this with the transformer, `PyLate` before version 4 in the model's main
//! configuration.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

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
    /// Whether a query is never longer than its filled length.
    pub(crate) fn is_fixed(&self) -> bool {
        self.strategy == "fixed"
    }
}

/// `config_sentence_transformers.json`.
#[derive(Default, Deserialize)]
struct MainFields {
    model_type: Option<String>,
    #[serde(default)]
    prompts: BTreeMap<String, Option<String>>,
    query_prefix: Option<String>,
    document_prefix: Option<String>,
    query_length: Option<usize>,
    document_length: Option<usize>,
    do_query_expansion: Option<bool>,
    attend_to_expansion_tokens: Option<bool>,
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
    /// The fields that are read of the model's main configuration, beside the prompts.
    pub(crate) const OF_MAIN: &[&str] = &[
        "query_prefix",
        "document_prefix",
        "query_length",
        "document_length",
        "do_query_expansion",
        "attend_to_expansion_tokens",
        "skiplist_words",
    ];
    /// The fields that are read of the transformer's configuration.
    pub(crate) const OF_TRANSFORMER: &[&str] =
        &["query_length", "document_length", "query_expansion"];

    /// Reads the files in `folder` and in that of its transformer.
    pub(crate) fn read(folder: &Path, transformer: &Path) -> Result<Self, EngineError> {
        let path = folder.join("config_sentence_transformers.json");
        let main: MainFields = if_there(&path)?.unwrap_or_default();
        let path = transformer.join("sentence_bert_config.json");
        let own: TransformerFields = if_there(&path)?.unwrap_or_default();
        if let Some(Expansion { strategy, .. }) = &own.query_expansion
            && !matches!(strategy.as_str(), "fixed" | "min")
        {
            return Err(EngineError::NotSupported {
                path,
                field: "query_expansion",
                value: strategy.clone(),
                supported: "the strategies fixed and min".to_owned(),
            });
        }
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
            expansion: own.query_expansion.or_else(|| main.expansion()),
            skipped: main.skipped(),
        })
    }
}

impl MainFields {
    /// Whether the configuration is `PyLate`'s.
    fn is_pylate(&self) -> bool {
        self.model_type.as_deref() == Some("ColBERT")
            || self.query_prefix.is_some()
            || self.query_length.is_some()
            || self.do_query_expansion.is_some()
    }

    fn expansion(&self) -> Option<Expansion> {
        (self.is_pylate() && self.do_query_expansion != Some(false)).then(|| Expansion {
            strategy: "fixed".to_owned(),
            length: self.query_length.unwrap_or(FILLED_LENGTH),
            attend: self.attend_to_expansion_tokens.unwrap_or(false),
            token: None,
        })
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
