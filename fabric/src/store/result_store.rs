//! The part of the store that a worker needs, as a trait, so that a test can stand in for Redis.

use forebay_schemas::JobId;
use futures_util::{FutureExt, future::BoxFuture};

use super::{ResultRecord, Store, StoreError, Written};

/// The answer to one request to the store.
pub type Asked<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The store as a worker needs it: Redis, or a test's stand-in.
pub trait ResultStore: Send + Sync {
    /// Writes each record unless its job has one, which makes the write idempotent: an error leaves it unknown which
    /// were written, and writing them again is safe.
    fn write_results<'a>(&'a self, records: &'a [ResultRecord]) -> Asked<'a, Vec<Written>>;
    /// For each of these jobs, whether its cancellation was asked for.
    fn cancelled<'a>(&'a self, ids: &'a [JobId]) -> Asked<'a, Vec<bool>>;
    /// For each of these jobs, whether its record is there.
    fn present<'a>(&'a self, ids: &'a [JobId]) -> Asked<'a, Vec<bool>>;
    /// Writes the jobs that `worker`'s device holds, over those that were written before.
    fn write_journal<'a>(&'a self, worker: &'a str, jobs: &'a [&'a JobId]) -> Asked<'a, ()>;
    /// For each of these jobs, how many workers other than `worker` had it in their journal: they died, or were cut
    /// off from the broker, while their device held it.
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

    fn write_journal<'a>(&'a self, worker: &'a str, jobs: &'a [&'a JobId]) -> Asked<'a, ()> {
        Store::write_journal(self, worker, jobs).boxed()
    }

    fn deaths<'a>(&'a self, worker: &'a str, ids: &'a [JobId]) -> Asked<'a, Vec<u32>> {
        Store::deaths(self, worker, ids).boxed()
    }
}
