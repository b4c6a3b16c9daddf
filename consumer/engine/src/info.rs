//! The facts of a loaded model, which callers report and plan with.

use std::collections::BTreeMap;

use crate::device::Gpu;
use crate::load::fields::Ignored;
use crate::load::generation::GenerationInfo;
use crate::load::options::{DType, Device};
use crate::load::per_token::{SPARSE_VALUES_MAX, SpladePooling};
use crate::load::pooling::Pooling;

/// The task of a model: what its row for a text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelTask {
    /// The row is the text's vector.
    Embed,
    /// The row has the values of the text's sparse vector that are not zero, each behind its dimension.
    EmbedSparse,
    /// The row has the vectors of the text's tokens.
    EmbedTokens,
    /// The row is a probability for each label.
    Classify,
    /// The row is one score: how well the text answers a query, the first text of a pair.
    Rerank,
    /// There is no row: the model continues texts.
    Generate,
}

/// How a model of token vectors reads texts of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindInfo {
    /// The most tokens of a text, special tokens included.
    pub tokens_max: usize,
    /// How many tokens a shorter text is filled up to.
    pub filled_to: Option<usize>,
    /// Whether the other tokens see those that fill a text up.
    pub sees_fillers: bool,
    /// How many tokens of the vocabulary have no vectors.
    pub skipped: usize,
}

/// The facts of a loaded model.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// The architecture's name as in `config.json`, such as `bert`.
    pub architecture: &'static str,
    /// The model's task.
    pub task: ModelTask,
    /// Values a row: the vector's dimensions, the labels of a classifier, one of a reranker. Of sparse vectors the
    /// words of the vocabulary, of token vectors the dimensions of one.
    pub dim: usize,
    /// The labels of a classifier, in the order of a row's values; empty for other models.
    pub labels: Vec<String>,
    /// The most tokens of a text that the model reads, special tokens included.
    pub tokens_max: usize,
    /// The token ids that the model has rows for: those below this.
    pub vocabulary: usize,
    /// Whether a longer text keeps its end instead of its beginning.
    pub keeps_end: bool,
    /// How token vectors become one; those of several ways stand side by side.
    pub pooling: Vec<Pooling>,
    /// How a model of sparse vectors pools the weights of words.
    pub sparse_pooling: Option<SpladePooling>,
    /// How a model of token vectors reads queries, and documents.
    pub kinds: Option<[KindInfo; 2]>,
    /// The prompt that a reranker is asked by, of `{query}` and `{document}`; `None` where it reads pairs as they are.
    pub pair_prompt: Option<String>,
    /// The modules after the pooling, such as `dense to 256, Tanh`, in order.
    pub after_pooling: Vec<String>,
    /// The prompts that the model knows, by their names.
    pub prompts: BTreeMap<String, String>,
    /// The prompt that goes before every text.
    pub default_prompt: Option<String>,
    /// Fields of the model's files that the engine ignores.
    pub ignored: Vec<Ignored>,
    /// The number types that the weights are stored in.
    pub stored_dtypes: Vec<String>,
    /// The number type computed in.
    pub dtype: DType,
    /// The device computed on.
    pub device: Device,
    /// The GPU, if the device is one.
    pub gpu: Option<Gpu>,
    /// Worker threads that compute.
    pub threads: usize,
    /// An upper bound of the device memory, in bytes, that a token of a batch takes while it is computed.
    pub bytes_per_token: usize,
    /// Settings of a model that generates text; `None` for others.
    pub generation: Option<GenerationInfo>,
}

impl ModelInfo {
    /// The most values that a text's row has.
    pub fn row_values_max(&self) -> usize {
        match self.task {
            ModelTask::EmbedSparse => 2 * SPARSE_VALUES_MAX.min(self.dim),
            ModelTask::EmbedTokens => self.dim.saturating_mul(self.tokens_max),
            ModelTask::Embed | ModelTask::Classify | ModelTask::Rerank => self.dim,
            ModelTask::Generate => 0,
        }
    }
}
