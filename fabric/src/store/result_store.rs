//! The part of the store that a worker needs, as a trait, so that a test can stand in for Redis.

use forebay_schemas::{JobId, TokenChunk};
use futures_util::{FutureExt, future::BoxFuture};

use super::{Appended, ResultRecord, Standing, Store, StoreError, TokenAppend, Written};

/// The answer to one request to the store.
pub type Asked<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The store as a worker needs it: Redis, or a test's stand-in.
pub trait ResultStore: Send + Sync {
    /// Writes each record unless its job has one, which makes the write idempotent: an error leaves it unknown which
    /// were written, and writing them again is safe.
    fn write_results<'a>(&'a self, records: &'a [ResultRecord]) -> Asked<'a, Vec<Written>>;
    /// For each of these jobs, whether its cancellation was asked for.
    fn cancelled<'a>(&'a self, ids: &'a [JobId]) -> Asked<'a, Vec<bool>>;
    /// Writes the jobs that `worker`, which started then, is about to compute, over those that were written before.
    fn write_journal<'a>(
        &'a self,
        worker: &'a str,
        started_at_ms: u64,
        jobs: &'a [JobId],
    ) -> Asked<'a, ()>;
    /// Counts the death of an earlier worker of this name, which one that starts takes over.
    fn name_taken_over<'a>(&'a self, worker: &'a str) -> Asked<'a, ()>;
    /// Crash attribution: the standing of each of these jobs, for `worker`, which lives and asks.
    fn standings<'a>(&'a self, worker: &'a str, ids: &'a [JobId]) -> Asked<'a, Vec<Standing>>;
    /// Appends entries to token streams, which is idempotent.
    fn append_tokens<'a>(&'a self, appends: &'a [TokenAppend]) -> Asked<'a, Vec<Appended>>;
    /// Makes `owner` the only one that appends to a job's token stream, and returns the entries that it has.
    fn claim_tokens<'a>(&'a self, id: &'a JobId, owner: &'a str) -> Asked<'a, Vec<TokenChunk>>;
}

impl ResultStore for Store {
    fn write_results<'a>(&'a self, records: &'a [ResultRecord]) -> Asked<'a, Vec<Written>> {
        Store::write_results(self, records).boxed()
    }

    fn cancelled<'a>(&'a self, ids: &'a [JobId]) -> Asked<'a, Vec<bool>> {
        Store::cancelled(self, ids).boxed()
    }

    fn write_journal<'a>(
        &'a self,
        worker: &'a str,
        started_at_ms: u64,
        jobs: &'a [JobId],
    ) -> Asked<'a, ()> {
        Store::write_journal(self, worker, started_at_ms, jobs).boxed()
    }

    fn name_taken_over<'a>(&'a self, worker: &'a str) -> Asked<'a, ()> {
        Store::name_taken_over(self, worker).boxed()
    }

    fn standings<'a>(&'a self, worker: &'a str, ids: &'a [JobId]) -> Asked<'a, Vec<Standing>> {
        Store::standings(self, worker, ids).boxed()
    }

    fn append_tokens<'a>(&'a self, appends: &'a [TokenAppend]) -> Asked<'a, Vec<Appended>> {
        Store::append_tokens(self, appends).boxed()
    }

    fn claim_tokens<'a>(&'a self, id: &'a JobId, owner: &'a str) -> Asked<'a, Vec<TokenChunk>> {
        Store::claim_tokens(self, id, owner).boxed()
    }
}
