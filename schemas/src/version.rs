//! The version of the contract.

/// The version of the contract that this crate speaks.
pub const VERSION: u64 = 1;

/// The AMQP `type` property of a job.
pub const MESSAGE_TYPE: &str = "forebay.job.v1";
