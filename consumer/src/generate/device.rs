//! The device's stage at one moment: the jobs that it has, and how each of them ends.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use forebay_engine::{EngineError, Generator, Keep, SequenceId};
use forebay_fabric::{clock::Clock, disposition::Disposition, fail};
use forebay_schemas::{
    ErrorCode, FinishReason, GenerateRecord, JobError,
    tokens::{TOKENS_AFTER_RESULT_TTL_S, TOKENS_TTL_S},
};
use metrics::counter;
use tokio::{
    sync::mpsc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    encode::device_time::DeviceTime,
    generate::{
        answer::Words,
        checkpoint::{Entering, Order, Reply},
        holding::Holding,
        measure::{self, Measure},
        schedule::{Key, Schedule},
        sequence::Sequence,
    },
    journal::SharedJournal,
    stats::Stats,
    watchdog::EngineCalls,
};

/// Generation with one generator.
pub struct Generate {
    /// The model.
    pub generator: Box<dyn Generator>,
    /// Decides what runs, and when.
    pub schedule: Schedule,
    /// The texts of tokens.
    pub words: Words,
    /// The journal that sequences leave when the device is done with them.
    pub journal: SharedJournal,
    /// The most attempts at a job.
    pub attempts_max: u32,
    /// The time.
    pub clock: Clock,
    /// Counts what is computed.
    pub stats: Arc<Stats>,
    /// The engine's calls, which the watchdog watches.
    pub calls: Arc<EngineCalls>,
    /// How many jobs are worth holding.
    pub holding: Holding,
    /// How long a delivery is held.
    pub held_max: HeldMax,
}

/// How long a delivery is held before it goes back to its queue, so that the broker does not take it back with all
/// others of its channel.
#[derive(Debug, Clone, Copy)]
pub struct HeldMax {
    /// One whose job waits.
    pub waiting: Duration,
    /// One whose job runs: its output is in its token stream, and goes on from there.
    pub running: Duration,
}

impl HeldMax {
    /// Whether a job's delivery is held for too long. A running job without a token stream is soon done, and would be
    /// computed again from its beginning.
    pub(super) fn is_over(&self, sequence: &Sequence) -> bool {
        let held = sequence.admitted_at.elapsed();
        match sequence.open {
            Some(_) => held >= self.running && sequence.streamed.is_some(),
            None => held >= self.waiting,
        }
    }
}

/// Half of the broker's usual time-out (`consumer_timeout`, 30 minutes), and what leaves it some minutes.
pub const HELD_MAX: HeldMax =
    HeldMax { waiting: Duration::from_secs(15 * 60), running: Duration::from_secs(25 * 60) };

/// The stage's channels.
pub struct Ports {
    /// Jobs that come.
    pub sequences: mpsc::Receiver<Box<Sequence>>,
    /// Answers to what was asked.
    pub replies: mpsc::Receiver<Reply>,
    /// Orders to the store, and jobs that are done.
    pub orders: mpsc::Sender<Order>,
    /// Sequences that are to enter the journal.
    pub entering: mpsc::Sender<Entering>,
    /// From then on all jobs go back to their queue.
    pub drain: CancellationToken,
}

/// A running stage.
pub(super) struct Run {
    pub(super) stage: Generate,
    pub(super) ports: Ports,
    pub(super) jobs: HashMap<Key, Box<Sequence>>,
    pub(super) keys: HashMap<SequenceId, Key>,
    pub(super) last_key: Key,
    pub(super) time: DeviceTime,
    /// Tokens of output so far.
    pub(super) tokens: u64,
    /// Tokens that were found in the cache since the last step.
    pub(super) cached: usize,
    pub(super) measure: Measure,
    pub(super) looked_at: Instant,
    pub(super) is_draining: bool,
    pub(super) input_ended: bool,
    /// Whether nothing can be computed or passed on any more.
    pub(super) is_lost: bool,
}

impl Run {
    /// Writes what the token stream does not have yet.
    pub(super) fn stream(&mut self, key: Key, ttl_s: u64) {
        let Some(sequence) = self.jobs.get_mut(&key) else { return };
        if let Some(append) = sequence.append(ttl_s) {
            self.order(Order::Append(key, Box::new(append)));
        }
    }

    pub(super) fn finish(&mut self, key: Key, reason: FinishReason) {
        self.stream(key, TOKENS_AFTER_RESULT_TTL_S);
        let Some(sequence) = self.jobs.remove(&key) else { return };
        self.stage.schedule.ended(key, sequence.output());
        self.measure.ended(&sequence);
        self.close(&sequence, Keep::Prefix);
        fail::point("after_compute");
        let disposition = Disposition::Answer(Box::new(sequence.succeed(reason)));
        self.order(Order::Settle(disposition));
    }

    pub(super) fn fail(&mut self, key: Key, error: JobError, keep: Keep) {
        let Some(sequence) = self.jobs.remove(&key) else { return };
        self.dropped(key, &sequence, keep);
        let disposition = sequence.fail(error, self.stage.attempts_max);
        self.order(Order::Settle(disposition));
    }

    pub(super) fn engine_failed(&mut self, key: Key, failure: &Failure) {
        if failure.is_lost() {
            return self.lost(failure);
        }
        let code = match failure {
            Failure::Engine(EngineError::Item { .. }) => ErrorCode::InvalidRequest,
            Failure::Engine(error) if error.is_out_of_memory() => ErrorCode::OutOfMemory,
            _ => ErrorCode::Internal,
        };
        self.fail(key, JobError::new(code, failure.to_string()), Keep::Nothing);
    }

    pub(super) fn lost(&mut self, error: &Failure) {
        tracing::error!(%error, "this worker ends, and what it holds goes back to its queue");
        self.is_lost = true;
    }

    /// A job whose delivery is another worker's by now.
    pub(super) fn lose(&mut self, key: Key) {
        let Some(sequence) = self.jobs.remove(&key) else { return };
        self.dropped(key, &sequence, Keep::Prefix);
        self.order(Order::Settle(Disposition::GiveBack(sequence.ticket.acker)));
    }

    fn dropped(&mut self, key: Key, sequence: &Sequence, keep: Keep) {
        self.stage.schedule.drop(sequence.lane, sequence.job.tenant.as_deref(), key);
        self.close(sequence, keep);
    }

    /// The schedule let a sequence give way: its tokens are kept here, and its pages as long as there is room.
    pub(super) fn gave_way(&mut self, key: Key) {
        let Some(sequence) = self.jobs.get_mut(&key) else { return };
        counter!("forebay_generate_preempted_total").increment(1);
        if let Some(open) = sequence.open.take() {
            self.keys.remove(&open.id);
            self.stage.generator.close(open.id, Keep::Prefix);
        }
        if let Some(entry) = sequence.entry.take() {
            self.stage.journal.leave(entry);
        }
    }

    pub(super) fn close(&mut self, sequence: &Sequence, keep: Keep) {
        if let Some(open) = sequence.open {
            self.keys.remove(&open.id);
            self.stage.generator.close(open.id, keep);
        }
        if let Some(entry) = sequence.entry {
            self.stage.journal.leave(entry);
        }
    }

    /// Gives a job back, with what there is of its output.
    pub(super) fn hand_back(&mut self, key: Key) {
        self.stream(key, TOKENS_TTL_S);
        let Some(sequence) = self.jobs.remove(&key) else { return };
        self.dropped(key, &sequence, Keep::Prefix);
        self.give_back(sequence);
    }

    /// Writes what there is of all outputs, and gives the jobs back.
    pub(super) fn drain(&mut self) {
        self.is_draining = true;
        let keys: Vec<Key> = self.jobs.keys().copied().collect();
        for key in keys {
            self.stream(key, TOKENS_TTL_S);
            if let Some(sequence) = self.jobs.remove(&key) {
                self.close(&sequence, Keep::Nothing);
                self.give_back(sequence);
            }
        }
        self.stage.schedule.stop();
    }

    pub(super) fn give_back(&mut self, sequence: Box<Sequence>) {
        self.order(Order::Settle(Disposition::GiveBack(sequence.ticket.acker)));
    }

    pub(super) fn order(&mut self, order: Order) {
        if self.ports.orders.blocking_send(order).is_err() {
            self.is_lost = true;
        }
    }

    pub(super) fn report(&mut self) {
        let room = self.stage.generator.room();
        let running = self.stage.schedule.running();
        let bounds = self.stage.schedule.bounds();
        let counted = GenerateRecord {
            pages: room.pages() as u64,
            pages_free: room.pages_left() as u64,
            running: running as u64,
            waiting: self.jobs.len().saturating_sub(running) as u64,
            tokens: self.tokens,
            running_max: Some(bounds.sequences_max as u64),
            pages_held: Some(room.pages_held as u64),
            bytes_per_token: Some(room.bytes_per_token as u64),
            ..GenerateRecord::default()
        };
        let jobs = self.jobs.values().map(|sequence| &**sequence);
        let record = self.measure.complete(counted, jobs, Instant::now());
        measure::publish(&record, room.pages_cached);
        self.stage.stats.generates(record);
    }
}

/// Why a call of the engine failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Engine(EngineError),
    #[error("the engine panicked")]
    Panic,
}

impl Failure {
    /// Whether nothing can be computed any more.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Engine(error) if error.is_device_lost())
    }
}

/// One call of the engine. The watchdog sees it, and a panic in it is an error like any other.
pub(super) fn called<R>(
    calls: &EngineCalls,
    work: impl FnOnce() -> Result<R, EngineError>,
) -> Result<R, Failure> {
    calls.begin();
    let result = catch_unwind(AssertUnwindSafe(work));
    calls.end();
    match result {
        Ok(done) => done.map_err(Failure::Engine),
        Err(_) => Err(Failure::Panic),
    }
}
