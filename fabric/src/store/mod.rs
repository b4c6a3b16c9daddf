//! Redis: results, cancel requests, the worker registry, leader election, the fleet's status, and the
//! channels that wake waiters.
//!
//! Every command has a time-out, after which its outcome is unknown; every write is therefore idempotent.

mod blame;
mod connection;
mod error;
mod lease;
mod notices;
mod registry;
mod results;
mod retract;
mod status;

use std::collections::BTreeMap;

use forebay_schemas::JobId;
use futures_util::{FutureExt, future::BoxFuture};

pub use connection::Store;
pub use error::StoreError;
pub use lease::Lease;
pub use notices::Notices;
pub use results::{ResultRecord, Written};

/// A request to the store, to be awaited.
pub type Asked<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The job ids of the batches that a worker computes, by the batch's number.
pub type Note = BTreeMap<u64, Vec<JobId>>;

/// The store as a worker uses it: Redis, or a test's stand-in.
pub trait ResultStore: Send + Sync {
    /// Writes each record unless its job has one. An error leaves it unknown which were written;
    /// writing them again is safe.
    fn write_results<'a>(&'a self, records: &'a [ResultRecord]) -> Asked<'a, Vec<Written>>;
    /// For each of these jobs, whether its cancellation was asked for.
    fn cancelled<'a>(&'a self, ids: &'a [JobId]) -> Asked<'a, Vec<bool>>;
    /// For each of these jobs, whether its record is there.
    fn present<'a>(&'a self, ids: &'a [JobId]) -> Asked<'a, Vec<bool>>;
    /// Writes what `worker` is about to compute, in place of what it wrote before.
    fn note<'a>(&'a self, worker: &'a str, note: &'a Note) -> Asked<'a, ()>;
    /// For each of these jobs, how many workers died while they computed it, as far as notes tell.
    /// `worker` asks, so it is alive, and its own note does not count.
    fn deaths<'a>(&'a self, worker: &'a str, ids: &'a [JobId]) -> Asked<'a, Vec<u32>>;
}

impl ResultStore for Store {
    fn write_results<'a>(&'a self, records: &'a [ResultRecord]) -> Asked<'a, Vec<Written>> {
        Store::write_results(self, records).boxed()
    }

    fn cancelled<'a>(&'a self, ids: &'a [JobId]) -> Asked<'a, Vec<bool>> {
        Store::cancelled(self, ids).boxed()
    }

    fn present<'a>(&'a self, ids: &'a [JobId]) -> Asked<'a, Vec<bool>> {
        Store::present(self, ids).boxed()
    }

    fn note<'a>(&'a self, worker: &'a str, note: &'a Note) -> Asked<'a, ()> {
        Store::note(self, worker, note).boxed()
    }

    fn deaths<'a>(&'a self, worker: &'a str, ids: &'a [JobId]) -> Asked<'a, Vec<u32>> {
        Store::deaths(self, worker, ids).boxed()
    }
}
