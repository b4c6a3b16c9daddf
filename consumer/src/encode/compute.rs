//! Stage 6: batches to vectors, on the engine's thread.
//!
//! A device that computes by itself is given the next batches before the first one is waited for. A batch that fails is
//! halved until the failing input is alone; one that memory does not suffice for makes the next ones smaller too. A
//! device that is lost ends the stage, and with it the worker: its jobs go back to their queue.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use forebay_engine::{Encoder, EngineError, PackedBatch, Pending, Rows};
use forebay_fabric::fail;
use forebay_schemas::{ErrorCode, JobError};
use metrics::{counter, histogram};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    encode::{
        budget::Budget,
        device_time::{self, DeviceTime},
        faults::Faults,
        packer::{Batch, Piece},
    },
    journal::{Journaled, Sequences},
    lanes::LaneReceiver,
    memory::MemoryLimit,
    stats::Stats,
    watchdog::EngineCalls,
};

/// A batch that was computed.
#[derive(Debug)]
pub struct Computed {
    /// The batch's entry in the journal.
    pub sequences: Sequences,
    /// The pieces, in the order of the rows.
    pub pieces: Vec<Piece>,
    /// One for each input; empty where it failed.
    pub rows: Vec<Vec<f32>>,
    /// The inputs that failed, by row.
    pub failures: BTreeMap<usize, JobError>,
    /// When computing began.
    pub started_at: Instant,
    /// When it ended.
    pub ended_at: Instant,
    /// Tokens in the batch.
    pub tokens: usize,
    /// Each piece's share of the device's time, in microseconds.
    pub device_us: Vec<u64>,
}

/// Computing of batches with one encoder.
pub struct Compute {
    /// The model.
    encoder: Box<dyn Encoder>,
    /// How many tokens a batch may have.
    budget: Budget,
    /// How much memory this process may use.
    memory: MemoryLimit,
    /// Counts what is computed.
    stats: Arc<Stats>,
    /// The engine's calls, which the watchdog watches.
    calls: Arc<EngineCalls>,
    /// When the last batch ended.
    ended_at: Instant,
    /// Counts the device's time.
    time: DeviceTime,
    /// Why nothing can be computed any more.
    lost: Option<EngineError>,
}

/// The stage's channels.
pub struct Ports {
    /// Batches that are to be computed.
    pub batches: LaneReceiver<Journaled<Batch>>,
    /// Reports to the journal which sequences the device is done with.
    pub done: mpsc::Sender<Sequences>,
    /// Where computed batches go.
    pub computed: mpsc::Sender<Computed>,
}

/// A batch that the engine was given.
pub struct Begun {
    sequences: Sequences,
    pieces: Vec<Piece>,
    packed: PackedBatch,
    faults: Faults,
    started_at: Instant,
    rows: Result<Pending, JobError>,
}

impl Compute {
    /// A stage that has computed nothing yet.
    pub fn new(
        encoder: Box<dyn Encoder>,
        budget: Budget,
        memory: MemoryLimit,
        stats: Arc<Stats>,
        calls: Arc<EngineCalls>,
    ) -> Self {
        let ended_at = Instant::now();
        let time = DeviceTime::default();
        Self { encoder, budget, memory, stats, calls, ended_at, time, lost: None }
    }

    /// Runs until its input ends or its device is lost. Blocks its thread, which needs a runtime's context.
    pub fn run(mut self, ports: Ports) {
        let Ports { mut batches, done, computed } = ports;
        let mut begun = VecDeque::new();
        loop {
            let next = match begun.len() {
                0 => batches.blocking_recv(),
                some if some < self.encoder.ahead() => batches.try_recv(),
                _ => None,
            };
            if let Some(batch) = next {
                begun.push_back(self.begin(batch));
                continue;
            }
            let Some(oldest) = begun.pop_front() else { return };
            let batch = self.finish(oldest);
            if let Some(error) = &self.lost {
                tracing::error!(%error, "this worker ends, and what it holds goes back to its queue");
                return;
            }
            // The journal ends only when the device holds nothing, or with the whole worker.
            let _ = done.blocking_send(batch.sequences);
            fail::point("after_compute");
            if computed.blocking_send(batch).is_err() {
                return;
            }
        }
    }

    /// Gives a batch to the engine.
    pub fn begin(&mut self, batch: Journaled<Batch>) -> Begun {
        let Journaled { step: Batch { pieces, packed, .. }, sequences } = batch;
        let faults = Faults::of(&pieces);
        let started_at = Instant::now();
        let rows = self.call(|encoder, memory| {
            faults.before(0..packed.sequences(), packed.tokens())?;
            memory.check(packed.tokens())?;
            encoder.begin(&packed)
        });
        Begun { sequences, pieces, packed, faults, started_at, rows }
    }

    /// Waits for the engine to compute a batch, and computes what failed in halves.
    pub fn finish(&mut self, begun: Begun) -> Computed {
        let Begun { sequences, pieces, packed, faults, started_at, rows } = begun;
        let rows = rows.and_then(|pending| self.call(|_, _| pending.wait()));
        let is_whole = rows.is_ok();
        let all = 0..packed.sequences();
        let tokens = packed.tokens();
        let mut halving = Halving {
            rows: Vec::new(),
            failures: BTreeMap::new(),
            faults,
            packed: &packed,
            stage: self,
        };
        match rows {
            Ok(rows) => {
                halving.rows = rows.rows().map(<[f32]>::to_vec).collect();
                halving.faults.after(all, &mut halving.rows);
            }
            Err(error) => {
                halving.rows = vec![Vec::new(); all.len()];
                halving.failed(all, tokens, &error);
            }
        }
        let Halving { rows, failures, .. } = halving;
        // Batches that overlapped were computed one after the other.
        let begun_at = started_at.max(self.ended_at);
        let ended_at = Instant::now();
        self.ended_at = ended_at;
        let took = ended_at - begun_at;
        if is_whole {
            self.budget.computed(tokens, took);
        }
        let busy_us = self.time.add(took);
        self.report(tokens, busy_us, took);
        let device_us = device_time::share(busy_us, &tokens_of(&pieces, &packed));
        Computed { sequences, pieces, rows, failures, started_at, ended_at, tokens, device_us }
    }

    /// One call of the engine. The watchdog sees it, and a panic in it is an error like any other.
    fn call<R>(
        &mut self,
        work: impl FnOnce(&mut dyn Encoder, &MemoryLimit) -> Result<R, EngineError>,
    ) -> Result<R, JobError> {
        self.calls.begin();
        let encoder = self.encoder.as_mut();
        let memory = &self.memory;
        let result = catch_unwind(AssertUnwindSafe(|| work(encoder, memory)));
        self.calls.end();
        match result {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                let failed = job_error(&error);
                if error.is_device_lost() {
                    self.lost = Some(error);
                }
                Err(failed)
            }
            Err(_) => Err(JobError::new(ErrorCode::Internal, "the engine panicked")),
        }
    }

    fn report(&self, tokens: usize, busy_us: u64, took: Duration) {
        self.stats.computed(tokens as u64, busy_us);
        counter!("forebay_compute_tokens_total").increment(tokens as u64);
        counter!("forebay_compute_busy_us_total").increment(busy_us);
        histogram!("forebay_compute_ms").record(took.as_secs_f64() * 1_000.0);
    }
}

/// The tokens of each piece of a batch.
fn tokens_of(pieces: &[Piece], packed: &PackedBatch) -> Vec<usize> {
    let mut sequences = packed.cu_seqlens().ranges();
    let tokens =
        |piece: &Piece| sequences.by_ref().take(piece.count).map(|range| range.len()).sum();
    pieces.iter().map(tokens).collect()
}

fn job_error(error: &EngineError) -> JobError {
    let code = match error {
        EngineError::Item { .. } => ErrorCode::InvalidRequest,
        error if error.is_out_of_memory() => ErrorCode::OutOfMemory,
        _ => ErrorCode::Internal,
    };
    JobError::new(code, error.to_string())
}

/// A batch that failed as a whole and is computed in ever smaller halves.
struct Halving<'a> {
    stage: &'a mut Compute,
    packed: &'a PackedBatch,
    faults: Faults,
    rows: Vec<Vec<f32>>,
    failures: BTreeMap<usize, JobError>,
}

impl Halving<'_> {
    fn part(&mut self, rows: Range<usize>) {
        let mut part = PackedBatch::new();
        for row in rows.clone() {
            part.push_from(self.packed, row);
        }
        let faults = &self.faults;
        let computed: Result<Rows, JobError> = self.stage.call(|encoder, memory| {
            faults.before(rows.clone(), part.tokens())?;
            memory.check(part.tokens())?;
            encoder.compute(&part)
        });
        match computed {
            Ok(computed) => {
                let own = &mut self.rows[rows.clone()];
                for (own, row) in own.iter_mut().zip(computed.rows()) {
                    *own = row.to_vec();
                }
                self.faults.after(rows, own);
            }
            Err(error) => self.failed(rows, part.tokens(), &error),
        }
    }

    fn failed(&mut self, rows: Range<usize>, tokens: usize, error: &JobError) {
        if self.stage.lost.is_some() {
            return; // no other input would be computed either
        }
        if error.code == ErrorCode::OutOfMemory {
            counter!("forebay_compute_out_of_memory_total").increment(1);
            self.stage.budget.short(tokens);
        }
        if rows.len() > 1 {
            tracing::warn!(inputs = rows.len(), %error, "a batch failed; halving it");
            counter!("forebay_compute_halved_total").increment(1);
            let middle = rows.start + rows.len() / 2;
            self.part(rows.start..middle);
            self.part(middle..rows.end);
        } else {
            self.failures.extend(rows.map(|row| (row, error.clone())));
        }
    }
}

#[cfg(test)]
mod tests;
