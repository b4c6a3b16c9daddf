//! Errors of the driver and its libraries as the tensor library's.

use candle_core::Error;

pub(super) fn error(problem: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Cuda(Box::new(problem))
}
