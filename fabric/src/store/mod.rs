//! Redis: results, token streams, cancel requests, the worker registry, leader election, the fleet's status, and the
//! channels that wake waiters.
//!
//! Every command has a time-out, after which its outcome is unknown; every write is therefore idempotent.

mod connection;
mod dial;
mod error;
mod journal;
mod lease;
mod metering;
mod notices;
mod registry;
mod result_store;
mod results;
mod retract;
pub(crate) mod scripts;
mod status;
#[cfg(test)]
pub(crate) mod testing;
mod tokens;

pub use connection::Store;
pub use error::StoreError;
pub use journal::Standing;
pub use lease::Lease;
pub use notices::Notices;
pub use registry::Registered;
pub use result_store::{Asked, ResultStore};
pub use results::{ResultRecord, Written};
pub use tokens::{Appended, TokenAppend};
