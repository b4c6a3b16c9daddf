//! The worker's errors.

use std::path::PathBuf;

use forebay_engine::EngineError;
use forebay_fabric::{
    broker::BrokerError,
    config::ConfigError,
    store::StoreError,
    telemetry::{ServerError, TelemetryError},
};
use forebay_schemas::ModelId;

/// The reason why a worker could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No model was named, and the configuration does not have exactly one.
    #[error("name the model with --model; the configuration has: {0}")]
    NoModel(String),
    /// The model's files are not in the cache.
    #[error("model `{model}` is not in {folder}; get it with: forebay pull {model}")]
    NotPulled {
        /// The model.
        model: ModelId,
        /// The folder that its files would be in.
        folder: PathBuf,
    },
    /// The model's output is not finite.
    #[error(
        "model `{model}` in {folder} gives values that are not finite; its weights are broken, fetch it again"
    )]
    NotFinite {
        /// The model.
        model: ModelId,
        /// The folder of its files.
        folder: PathBuf,
    },
    /// The command embeds, and the model gives scores.
    #[error("model `{model}` does not embed: it gives scores; send it jobs instead")]
    NoVectors {
        /// The model.
        model: ModelId,
    },
    /// The model can't be loaded, or the engine failed as a whole.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The broker can't be used.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Logs or metrics can't be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The telemetry port can't be had.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Input or output of a command failed.
    #[error("{action}: {source}")]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A line of the input can't be read.
    #[error("line {line} of the input: {reason}; write {{\"id\": \"...\", \"{expected}\": ...}}")]
    Line {
        /// The line, counted from 1.
        line: usize,
        /// The reason.
        reason: String,
        /// The field that a line needs.
        expected: &'static str,
    },
    /// The API key of a remote model can't be read.
    #[error("the API key of the model's endpoint can't be read from {source_name}: {reason}")]
    ApiKey {
        /// The variable or the file.
        source_name: String,
        /// The reason.
        reason: String,
    },
    /// The command computes, and the model is remote.
    #[error("model `{0}` is computed by an endpoint, and not here; send it jobs instead")]
    IsRemote(ModelId),
    /// A stage ended while it was needed.
    #[error("the stage `{0}` ended unexpectedly; its log line above says why")]
    StageEnded(&'static str),
}

impl WorkerError {
    /// The exit code: 2 for wrong usage or configuration, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Broker(error) => 1 + u8::from(error.is_final()),
            Self::Store(error) => 1 + u8::from(error.is_final()),
            Self::Config(_)
            | Self::NoModel(_)
            | Self::NoVectors { .. }
            | Self::IsRemote(_)
            | Self::ApiKey { .. }
            | Self::Line { .. }
            | Self::Telemetry(TelemetryError::Filter { .. })
            | Self::Engine(
                EngineError::DeviceUnknown(_)
                | EngineError::DeviceNotBuiltIn(_)
                | EngineError::DTypeUnknown(_)
                | EngineError::DTypeNotSupported { .. },
            ) => 2,
            _ => 1,
        }
    }
}
