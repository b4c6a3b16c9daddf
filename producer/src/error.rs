//! The error of a command, and the exit status that it means.

use std::io;

use forebay_client::{ClientError, SubmitError, WaitError};
use forebay_fabric::{access::AccessError, config::ConfigError};
use forebay_producer::pull::{PullError, SourceError};

/// The error that ends a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("[models.{model}] in the configuration: {error}")]
    ModelSource { model: String, error: SourceError },
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error(transparent)]
    Wait(#[from] WaitError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Pull(#[from] PullError),
    #[error("can't write to standard output: {0}")]
    Output(#[from] io::Error),
    #[error("interrupted{0}")]
    Interrupted(String),
    #[error("{0}")]
    Failed(String),
}

impl CommandError {
    /// 2 for mistakes of the caller, 1 for all other errors.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Config(_)
            | Self::ModelSource { .. }
            | Self::Source(_)
            | Self::Submit(SubmitError::Invalid { .. } | SubmitError::UnknownModel { .. }) => 2,
            // A wrong address, login or queue argument: waiting does not correct it.
            Self::Submit(SubmitError::Broker(error)) | Self::Client(ClientError::Broker(error))
                if error.is_final() =>
            {
                2
            }
            Self::Client(ClientError::Store(error)) | Self::Wait(WaitError::Store(error))
                if error.is_final() =>
            {
                2
            }
            Self::Access(error) if error.is_final() => 2,
            _ => 1,
        }
    }

    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

pub(crate) type CommandResult = Result<(), CommandError>;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use forebay_client::Lane;

    use super::*;

    #[test]
    fn mistakes_of_the_caller_end_with_2_and_other_errors_with_1() {
        let usage = CommandError::Usage(String::new());
        let model = "m".parse().unwrap();
        let unknown = CommandError::Submit(SubmitError::UnknownModel { model, known: vec![] });
        assert_eq!((usage.exit_code(), unknown.exit_code()), (2, 2));
        let model = "m".parse().unwrap();
        let lane = Lane::Batch;
        let waited = Duration::ZERO;
        let full = CommandError::Submit(SubmitError::QueueFull { model, lane, waited });
        assert_eq!((full.exit_code(), CommandError::Failed(String::new()).exit_code()), (1, 1));
    }
}
