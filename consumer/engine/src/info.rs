//! The facts of a loaded model, which callers report and plan with.

use forebay_kernels::Pooling;

use crate::device::Gpu;
use crate::load::options::{DType, Device};

/// The task of a model: what its row for a text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelTask {
    /// The row is the text's vector.
    Embed,
    /// The row is a probability for each label.
    Classify,
    /// The row is one score: how well the text answers a query, the first text of a pair.
    Rerank,
}

/// The facts of a loaded model.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// The architecture's name as in `config.json`, such as `bert`.
    pub architecture: &'static str,
    /// The model's task.
    pub task: ModelTask,
    /// Values a row: the vector's dimensions, the labels of a classifier, one of a reranker.
    pub dim: usize,
    /// The labels of a classifier, in the order of a row's values; empty for other models.
    pub labels: Vec<String>,
    /// The most tokens of a text that the model reads, special tokens included.
    pub tokens_max: usize,
    /// How token vectors become one.
    pub pooling: Pooling,
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
}
