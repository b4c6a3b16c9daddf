//! The error of operations that need the broker or Redis.

use forebay_fabric::{
    broker::{BrokerError, PublishError},
    store::StoreError,
};

/// An operation that the broker or Redis did not carry out.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The broker can't be used.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The broker did not accept a message.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Redis can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}
