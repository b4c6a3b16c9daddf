//! The job: a task with its input for one model, and how its result is kept.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    generate::{GenerateParams, Prompt},
    limits::RESULT_TTL_S_DEFAULT,
    names::{JobId, ModelId, shown},
};

/// The kind of work that a job asks of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Texts to vectors.
    Embed,
    /// Texts to sparse vectors.
    EmbedSparse,
    /// Texts to a vector for each token.
    EmbedTokens,
    /// Documents to scores against a query.
    Rerank,
    /// Texts to labels.
    Classify,
    /// A prompt to more text.
    Generate,
}

impl Task {
    /// Every task of this version.
    pub const ALL: [Self; 6] = [
        Self::Embed,
        Self::EmbedSparse,
        Self::EmbedTokens,
        Self::Rerank,
        Self::Classify,
        Self::Generate,
    ];

    /// The task's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::EmbedSparse => "embed_sparse",
            Self::EmbedTokens => "embed_tokens",
            Self::Rerank => "rerank",
            Self::Classify => "classify",
            Self::Generate => "generate",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A task that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown task `{0}`: use `embed`, `embed_sparse`, `embed_tokens`, `rerank`, `classify` or `generate`"
)]
pub struct UnknownTask(pub String);

impl FromStr for Task {
    type Err = UnknownTask;

    fn from_str(text: &str) -> Result<Self, UnknownTask> {
        Self::ALL
            .into_iter()
            .find(|task| task.as_str() == text)
            .ok_or_else(|| UnknownTask(shown(text)))
    }
}

/// One job: a message on the queue, one terminal record at its result key.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Equals the message id; chosen by the publisher.
    pub id: JobId,
    /// The model that computes it.
    pub model: ModelId,
    /// The task with its input and parameters.
    pub work: Work,
    /// The tenant that the job is accounted to, as the publisher names it: jobs that a worker holds go in fair order
    /// among tenants.
    pub tenant: Option<String>,
    /// When it was submitted, in Unix milliseconds.
    pub submitted_at_ms: Option<u64>,
    /// The job expires this many milliseconds after it was submitted.
    pub expires_in_ms: Option<u64>,
    /// How long the result is kept, in seconds; one day unless set.
    pub result_ttl_s: Option<u64>,
    /// A Redis channel on which the id is published once the result is written.
    pub notify: Option<String>,
    /// Returned unchanged in the result.
    pub metadata: BTreeMap<String, String>,
}

/// A task with its input and its parameters.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // a job has one, and the fewest have many jobs at once
pub enum Work {
    /// One vector for each text.
    Embed {
        /// The texts.
        input: Vec<String>,
        /// How the vectors are post-processed.
        params: EmbedParams,
    },
    /// One vector for each sequence of the model's own token ids.
    EmbedIds {
        /// The sequences, each as the model reads it, with its special tokens.
        input_ids: Vec<Vec<u32>>,
        /// How the vectors are post-processed.
        params: EmbedParams,
    },
    /// One sparse vector for each text.
    EmbedSparse {
        /// The texts.
        input: Vec<String>,
        /// How much of them is read and kept.
        params: SparseParams,
    },
    /// The vectors of each text's tokens.
    EmbedTokens {
        /// The texts.
        input: Vec<String>,
        /// How they are read.
        params: TokensParams,
    },
    /// One score for each document.
    Rerank {
        /// The query that the documents are scored against.
        query: String,
        /// The documents.
        documents: Vec<String>,
        /// How many documents are returned.
        params: RerankParams,
    },
    /// Scored labels for each text.
    Classify {
        /// The texts.
        input: Vec<String>,
    },
    /// A continuation of a prompt or a conversation.
    Generate {
        /// A bare prompt or a conversation.
        prompt: Prompt,
        /// How it is sampled.
        params: GenerateParams,
    },
}

impl Work {
    /// The task that this is.
    pub fn task(&self) -> Task {
        match self {
            Self::Embed { .. } | Self::EmbedIds { .. } => Task::Embed,
            Self::EmbedSparse { .. } => Task::EmbedSparse,
            Self::EmbedTokens { .. } => Task::EmbedTokens,
            Self::Rerank { .. } => Task::Rerank,
            Self::Classify { .. } => Task::Classify,
            Self::Generate { .. } => Task::Generate,
        }
    }

    /// How many token ids it carries.
    pub fn token_ids(&self) -> usize {
        match self {
            Self::EmbedIds { input_ids, .. } => input_ids.iter().map(Vec::len).sum(),
            _ => 0,
        }
    }

    /// The texts that a model reads for it; a query once for each document. None where it carries token ids.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Embed { input, .. }
            | Self::EmbedSparse { input, .. }
            | Self::EmbedTokens { input, .. }
            | Self::Classify { input } => input.iter().map(String::as_str).collect(),
            Self::EmbedIds { .. } => Vec::new(),
            Self::Rerank { query, documents, .. } => {
                documents.iter().flat_map(|document| [query.as_str(), document]).collect()
            }
            Self::Generate { prompt: Prompt::Text(text), .. } => vec![text],
            Self::Generate { prompt: Prompt::Messages(messages), .. } => {
                messages.iter().map(|message| message.content.as_str()).collect()
            }
        }
    }

    /// How many texts, sequences, documents or messages it carries.
    pub fn inputs(&self) -> usize {
        match self {
            Self::Embed { input, .. }
            | Self::EmbedSparse { input, .. }
            | Self::EmbedTokens { input, .. }
            | Self::Classify { input } => input.len(),
            Self::EmbedIds { input_ids, .. } => input_ids.len(),
            Self::Rerank { documents, .. } => documents.len(),
            Self::Generate { prompt: Prompt::Text(_), .. } => 1,
            Self::Generate { prompt: Prompt::Messages(messages), .. } => messages.len(),
        }
    }
}

/// How embeddings are post-processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedParams {
    /// Scale each vector to length 1.
    pub normalize: bool,
    /// Cut a text that is longer than the model reads; otherwise it is refused.
    pub truncate: bool,
    /// Keep only this many of the first dimensions.
    pub dimensions: Option<u32>,
}

impl Default for EmbedParams {
    fn default() -> Self {
        Self { normalize: true, truncate: true, dimensions: None }
    }
}

/// How sparse vectors are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseParams {
    /// Cut a text that is longer than the model reads; otherwise it is refused.
    pub truncate: bool,
    /// Keep only this many of the largest values of a vector;
    /// [`SPARSE_VALUES_MAX`](crate::limits::SPARSE_VALUES_MAX) unless set.
    pub top_k: Option<u32>,
}

impl Default for SparseParams {
    fn default() -> Self {
        Self { truncate: true, top_k: None }
    }
}

/// How token vectors are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokensParams {
    /// Cut a text that is longer than the model reads; otherwise it is refused.
    pub truncate: bool,
    /// The texts' kind.
    pub input_type: InputType,
}

impl Default for TokensParams {
    fn default() -> Self {
        Self { truncate: true, input_type: InputType::default() }
    }
}

/// The kind of a text to a model that reads queries otherwise than documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InputType {
    /// A text that is searched for.
    #[default]
    Document,
    /// A text that is searched with.
    Query,
}

impl InputType {
    /// The type's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Query => "query",
        }
    }
}

/// An input type that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown `input_type` `{0}`: use `document` or `query`")]
pub struct UnknownInputType(pub String);

impl FromStr for InputType {
    type Err = UnknownInputType;

    fn from_str(text: &str) -> Result<Self, UnknownInputType> {
        match text {
            "document" => Ok(Self::Document),
            "query" => Ok(Self::Query),
            _ => Err(UnknownInputType(shown(text))),
        }
    }
}

/// How a ranking is returned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RerankParams {
    /// Return only this many documents, the best first.
    pub top_n: Option<u32>,
}

impl Job {
    /// A job with a new id and every option at its default.
    pub fn new(model: ModelId, work: Work) -> Self {
        Self {
            id: JobId::random(),
            model,
            work,
            tenant: None,
            submitted_at_ms: None,
            expires_in_ms: None,
            result_ttl_s: None,
            notify: None,
            metadata: BTreeMap::new(),
        }
    }

    /// A job that embeds `input` with the default parameters.
    pub fn embed(model: ModelId, input: Vec<String>) -> Self {
        Self::new(model, Work::Embed { input, params: EmbedParams::default() })
    }

    /// How long the result is kept, in seconds.
    pub fn result_ttl_s(&self) -> u64 {
        self.result_ttl_s.unwrap_or(RESULT_TTL_S_DEFAULT)
    }

    /// The Unix millisecond after which the job is not worth doing; `None` if it never expires or
    /// does not say when it was submitted.
    pub fn expires_at_ms(&self) -> Option<u64> {
        Some(self.submitted_at_ms?.saturating_add(self.expires_in_ms?))
    }
}
