//! The error type of the engine. Every message names the wrong thing and what to do about it.

use std::path::PathBuf;

use forebay_kernels::{DeviceFailure, KernelError};

/// An error of loading a model, tokenizing a text or computing a batch.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A file of the model folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A JSON file of the model folder is not what it should be.
    #[error("{} is not a valid model file: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why the parser stopped.
        source: serde_json::Error,
    },
    /// A setting of the model that this engine cannot honour.
    #[error("{}: {field} = {value} is not supported; supported: {supported}", path.display())]
    NotSupported {
        /// The file that asks for it.
        path: PathBuf,
        /// The field that holds the setting, such as `model_type`.
        field: &'static str,
        /// The refused value.
        value: String,
        /// The values that would be accepted.
        supported: String,
    },
    /// Numbers of the configuration that contradict each other.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The problem that was found.
        problem: String,
    },
    /// The weights file is not a whole safetensors file.
    #[error("{} is not a whole safetensors file ({problem}); fetch the model again", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The problem that was found.
        problem: String,
    },
    /// The model's file is not a whole GGUF.
    #[error("{} is not a whole GGUF ({problem}); fetch the model again", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The problem that was found.
        problem: String,
    },
    /// The weights file lacks a tensor that the architecture needs.
    #[error("{} has no tensor {name:?}, which this architecture needs", path.display())]
    TensorMissing {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A tensor has another shape than the configuration implies.
    #[error("{}: tensor {name:?} has shape {actual:?}, config.json implies {expected:?}", path.display())]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The shape that config.json implies.
        expected: Vec<usize>,
        /// The shape in the file.
        actual: Vec<usize>,
    },
    /// A tensor is stored in a type that the engine does not read.
    #[error("{}: tensor {name:?} is stored as {dtype}; readable: {readable}", path.display())]
    TensorDType {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The type in the file.
        dtype: String,
        /// The types that are read.
        readable: &'static str,
    },
    /// The tokenizer file is broken, or a text could not be tokenized.
    #[error("tokenizer: {problem}")]
    Tokenizer {
        /// The error of the tokenizers library.
        problem: String,
    },
    /// A text is longer than the model reads, and cutting it was not allowed.
    #[error(
        "the input has more than {tokens_max} tokens, which is the most that the model reads; shorten it or allow \
         truncation"
    )]
    InputTooLong {
        /// The most that the model reads, special tokens included.
        tokens_max: usize,
    },
    /// A text whose first tokens can't be found without tokenizing more of it than memory is given to.
    #[error(
        "the input has {bytes} bytes, and its first {bytes_max} don't settle the tokens that the model reads (they are \
         mostly one word, or spaces); shorten it"
    )]
    TextTooLarge {
        /// Bytes of the text.
        bytes: usize,
        /// The most that are tokenized at once.
        bytes_max: usize,
    },
    /// A device name that means nothing.
    #[error("unknown device {0:?}; use cpu or cuda:N, such as cuda:0")]
    DeviceUnknown(String),
    /// A device that this build cannot drive.
    #[error(
        "this build cannot use {0}: it was built without CUDA; use --device cpu, or build it with --features cuda"
    )]
    DeviceNotBuiltIn(String),
    /// A device that is not there, or that does not work.
    #[error("cannot use {device}: {problem}")]
    DeviceUnavailable {
        /// The device.
        device: String,
        /// The error of its driver.
        problem: String,
    },
    /// A device without room for the model and one batch.
    #[error(
        "{device} has {free} bytes of memory free and the model needs {needed}; end other processes on it or take \
         another one"
    )]
    DeviceTooSmall {
        /// The device.
        device: String,
        /// Bytes that the weights and a batch take.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A device that this process can use no more.
    #[error("{device} is lost: {problem}; this process must end, and nvidia-smi may say more")]
    DeviceLost {
        /// The device.
        device: String,
        /// The error of its driver.
        problem: String,
    },
    /// A number type that means nothing.
    #[error("unknown dtype {0:?}; use f32, bf16, f16, int8 or q4")]
    DTypeUnknown(String),
    /// A number type that the device cannot compute in.
    #[error("dtype {dtype} is not supported by {device}; use {supported}")]
    DTypeNotSupported {
        /// The type asked for.
        dtype: String,
        /// The device asked for, or the model on it.
        device: String,
        /// The types that are supported there.
        supported: &'static str,
    },
    /// The memory that is left does not suffice for a batch.
    #[error(
        "a batch of {tokens} tokens needs {needed} bytes of memory and {left} are left; make it smaller"
    )]
    OutOfMemory {
        /// Tokens in the batch.
        tokens: usize,
        /// Bytes that it would take.
        needed: u64,
        /// Bytes that are left.
        left: u64,
    },
    /// A step needs more pages than are free. Nothing was computed: close a sequence, or begin a smaller step.
    #[error(
        "the step needs {needed} more pages of memory and {left} are left; close a sequence or begin a smaller step"
    )]
    NoPages {
        /// Pages that it would take.
        needed: usize,
        /// Pages that are free or could be freed.
        left: usize,
    },
    /// A model of another kind than the caller needs.
    #[error("the model {found}; one that {expected} is needed")]
    OtherEngine {
        /// The model's own work.
        found: &'static str,
        /// The work that was asked of it.
        expected: &'static str,
    },
    /// An item that no batch can hold: leave it out and compute the others.
    #[error("item {index} of the batch: {problem}")]
    Item {
        /// Its position in the batch.
        index: usize,
        /// Why the item can't be computed.
        problem: String,
    },
    /// The compute threads could not be started.
    #[error("cannot start {threads} compute threads: {problem}")]
    Threads {
        /// The number of threads asked for.
        threads: usize,
        /// The operating system's error.
        problem: String,
    },
    /// A fused operation failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl EngineError {
    /// Whether nothing can be computed any more by this process.
    pub fn is_device_lost(&self) -> bool {
        matches!(self, Self::DeviceLost { .. })
    }

    /// Whether a smaller batch may fit where this one did not.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::OutOfMemory { .. } => true,
            Self::Tensor(error) | Self::Kernel(KernelError::Tensor(error)) => {
                DeviceFailure::of(error) == Some(DeviceFailure::OutOfMemory)
            }
            _ => false,
        }
    }
}
