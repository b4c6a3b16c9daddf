//! Stage 6: batches to vectors, on the engine's thread. A device that computes by itself is given the next batches before
//! the first one is waited for. A batch that fails is halved until the guilty input stands alone; one that memory does not
//! suffice for makes the next ones smaller too. A device that is lost ends the stage, and with it the worker: what it held
//! is done elsewhere.

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
use tokio::{
    sync::mpsc::{self, error::TryRecvError},
    time::Instant,
};

use crate::{
    budget::Budget,
    faults::Faults,
    memory::Memory,
    packer::{Batch, Piece},
    stats::Stats,
};

/// A batch with what came of it.
#[derive(Debug)]
pub struct Computed {
    /// The pieces, in the order of the rows.
    pub pieces: Vec<Piece>,
    /// `[inputs, dim]`, row-major; zeros where an input failed.
    pub vectors: Vec<f32>,
    /// Values a row.
    pub dim: usize,
    /// The inputs that failed, by row.
    pub failures: BTreeMap<usize, JobError>,
    /// When computing began.
    pub started_at: Instant,
    /// When it ended.
    pub ended_at: Instant,
    /// Tokens in the batch.
    pub tokens: usize,
}

/// The stage.
pub struct Compute {
    /// The model.
    encoder: Box<dyn Encoder>,
    /// Values in one of its vectors.
    dim: usize,
    /// How many tokens a batch may have.
    budget: Arc<Budget>,
    /// How much memory there is.
    memory: Memory,
    /// Told what was computed.
    stats: Arc<Stats>,
    /// Where computed batches go.
    computed: mpsc::Sender<Computed>,
    /// When the last batch ended.
    ended_at: Instant,
    /// Why nothing can be computed any more.
    lost: Option<EngineError>,
}

/// A batch that the engine was given.
struct Begun {
    number: u64,
    pieces: Vec<Piece>,
    packed: PackedBatch,
    faults: Faults,
    started_at: Instant,
    rows: Result<Pending, JobError>,
}

impl Compute {
    /// Its beginning: nothing was computed yet.
    pub fn new(
        (encoder, dim): (Box<dyn Encoder>, usize),
        budget: Arc<Budget>,
        memory: Memory,
        stats: Arc<Stats>,
        computed: mpsc::Sender<Computed>,
    ) -> Self {
        let (ended_at, lost) = (Instant::now(), None);
        Self { encoder, dim, budget, memory, stats, computed, ended_at, lost }
    }

    /// Runs until its input ends or its device is lost. Blocks its thread.
    pub fn run(mut self, mut batches: mpsc::Receiver<Batch>) {
        let mut begun = VecDeque::new();
        loop {
            let next = match begun.len() {
                0 => batches.blocking_recv().ok_or(TryRecvError::Disconnected),
                some if some < self.encoder.ahead() => batches.try_recv(),
                _ => Err(TryRecvError::Empty),
            };
            if let Ok(batch) = next {
                begun.push_back(self.begin(batch));
                continue;
            }
            let Some(oldest) = begun.pop_front() else { return };
            let computed = self.finish(oldest);
            if let Some(error) = &self.lost {
                tracing::error!(%error, "this worker ends, and what it holds goes back to its queue");
                return;
            }
            fail::point("after_compute");
            if self.computed.blocking_send(computed).is_err() {
                return;
            }
        }
    }

    /// The same without a thread of its own, each batch taking as long as `cost` says of its tokens:
    /// for tests of whole schedules on a clock that stands still.
    pub async fn run_in_place(
        mut self,
        mut batches: mpsc::Receiver<Batch>,
        cost: fn(usize) -> Duration,
    ) {
        while let Some(batch) = batches.recv().await {
            tokio::time::sleep(cost(batch.packed.tokens())).await;
            let begun = self.begin(batch);
            let computed = self.finish(begun);
            if self.computed.send(computed).await.is_err() {
                return;
            }
        }
    }

    fn begin(&mut self, batch: Batch) -> Begun {
        let Batch { number, pieces, packed, .. } = batch;
        let (faults, started_at) = (Faults::of(&pieces), Instant::now());
        let rows = self.call(|encoder, memory| {
            faults.before(0..packed.sequences(), packed.tokens())?;
            memory.check(packed.tokens())?;
            encoder.begin(&packed)
        });
        Begun { number, pieces, packed, faults, started_at, rows }
    }

    fn finish(&mut self, begun: Begun) -> Computed {
        let Begun { number, pieces, packed, faults, started_at, rows } = begun;
        let rows = rows.and_then(|pending| self.call(|_, _| pending.wait()));
        let (all, dim, tokens) = (0..packed.sequences(), self.dim, packed.tokens());
        let mut halving = Halving {
            vectors: Vec::new(),
            failures: BTreeMap::new(),
            faults,
            packed: &packed,
            stage: self,
        };
        match rows {
            Ok(mut rows) => {
                halving.faults.after(all, &mut rows);
                halving.vectors = rows.data;
                halving.stage.budget.fitted();
            }
            Err(error) => {
                halving.vectors = vec![0.0; all.len() * dim];
                halving.failed(all, tokens, &error);
            }
        }
        let (vectors, failures) = (halving.vectors, halving.failures);
        // Batches that overlapped were computed one after the other.
        let (before, ended_at) = (started_at.max(self.ended_at), Instant::now());
        self.ended_at = ended_at;
        self.report(number, tokens, ended_at - before);
        Computed { pieces, vectors, dim, failures, started_at, ended_at, tokens }
    }

    /// One call of the engine. The watchdog sees it, and a panic in it is an error like any other.
    fn call<R>(
        &mut self,
        work: impl FnOnce(&mut dyn Encoder, &Memory) -> Result<R, EngineError>,
    ) -> Result<R, JobError> {
        self.stats.call_begins();
        let (encoder, memory) = (self.encoder.as_mut(), &self.memory);
        let result = catch_unwind(AssertUnwindSafe(|| work(encoder, memory)));
        self.stats.call_ends();
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

    fn report(&self, number: u64, tokens: usize, took: Duration) {
        self.stats.computed(number, tokens as u64, took);
        counter!("forebay_compute_tokens_total").increment(tokens as u64);
        counter!("forebay_compute_busy_us_total").increment(took.as_micros() as u64);
        histogram!("forebay_compute_ms").record(took.as_secs_f64() * 1_000.0);
    }
}

fn job_error(error: &EngineError) -> JobError {
    let code = match error {
        EngineError::Item { .. } => ErrorCode::InvalidRequest,
        error if error.is_out_of_memory() => ErrorCode::OutOfMemory,
        _ => ErrorCode::Internal,
    };
    JobError::new(code, error.to_string())
}

/// A batch that failed as a whole and is computed in halves of halves.
struct Halving<'a> {
    stage: &'a mut Compute,
    packed: &'a PackedBatch,
    faults: Faults,
    vectors: Vec<f32>,
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
            Ok(mut computed) => {
                self.faults.after(rows.clone(), &mut computed);
                let (from, to) = (rows.start * self.stage.dim, rows.end * self.stage.dim);
                self.vectors[from..to].copy_from_slice(&computed.data);
            }
            Err(error) => self.failed(rows, part.tokens(), &error),
        }
    }

    fn failed(&mut self, rows: Range<usize>, tokens: usize, error: &JobError) {
        if self.stage.lost.is_some() {
            return; // nothing else would be computed either
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use forebay_engine::Finish;

    use super::*;

    /// Embeds a sequence as its first token id, and whole batches only if `willing`.
    struct Picky(fn(&[u32]) -> Result<(), EngineError>);

    impl Encoder for Picky {
        fn begin(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError> {
            let ids = batch.token_ids();
            (self.0)(ids)?;
            let firsts = batch.cu_seqlens().ranges().map(|range| ids[range.start] as f32);
            Ok(Pending::done(Rows { width: 1, data: firsts.collect() }))
        }
    }

    fn stage(encoder: Box<dyn Encoder>, computed: mpsc::Sender<Computed>) -> Compute {
        let (budget, memory) = (Arc::new(Budget::new(1_000)), Memory::new(u64::MAX, 1));
        Compute::new((encoder, 1), budget, memory, Arc::default(), computed)
    }

    fn computed(willing: fn(&[u32]) -> Result<(), EngineError>, ids: &[u32]) -> (Computed, usize) {
        let mut packed = PackedBatch::new();
        for &id in ids {
            packed.push(&[id], Finish::default());
        }
        let mut compute = stage(Box::new(Picky(willing)), mpsc::channel(1).0);
        let begun = compute.begin(Batch { number: 1, alone: false, pieces: Vec::new(), packed });
        let computed = compute.finish(begun);
        (computed, compute.budget.tokens())
    }

    #[test]
    fn only_the_guilty_input_of_a_batch_fails() {
        let (computed, budget) = computed(
            |ids| {
                if ids.contains(&13) {
                    return Err(EngineError::Tokenizer { problem: "thirteen".into() });
                }
                Ok(())
            },
            &[1, 2, 13, 4, 5],
        );
        assert_eq!(computed.vectors, [1.0, 2.0, 0.0, 4.0, 5.0]);
        assert_eq!(computed.failures.keys().copied().collect::<Vec<_>>(), [2]);
        let error = &computed.failures[&2];
        assert!(error.message.contains("thirteen") && error.retryable, "{error}");
        assert_eq!(budget, 1_000, "memory was not the matter");
    }

    #[test]
    fn a_panic_of_the_engine_is_the_guilty_input_s_alone() {
        let (computed, _) = computed(
            |ids| {
                assert!(!ids.contains(&13), "a panic on purpose");
                Ok(())
            },
            &[13, 2, 3],
        );
        assert_eq!(computed.vectors, [0.0, 2.0, 3.0]);
        assert_eq!(computed.failures[&0].code, ErrorCode::Internal);
    }

    #[test]
    fn short_memory_makes_batches_smaller_and_fails_nobody_who_fits() {
        let (computed, budget) = computed(
            |ids| match ids.len() {
                0..=2 => Ok(()),
                tokens => Err(EngineError::OutOfMemory { tokens, needed: 2, left: 1 }),
            },
            &[1, 2, 3, 4, 5, 6, 7, 8],
        );
        assert_eq!(computed.vectors, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert!(computed.failures.is_empty());
        assert_eq!(budget, 2);
    }

    #[test]
    fn an_input_that_fits_nowhere_fails_for_want_of_memory() {
        let (computed, _) = computed(
            |ids| {
                if ids.contains(&13) {
                    return Err(EngineError::OutOfMemory { tokens: 1, needed: 2, left: 1 });
                }
                Ok(())
            },
            &[1, 13],
        );
        assert_eq!(computed.failures[&1].code, ErrorCode::OutOfMemory);
        assert_eq!(computed.vectors, [1.0, 0.0]);
    }

    /// A device that takes three batches, and counts how many it has.
    #[derive(Default)]
    struct Device {
        has: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
        lost_at: Option<u32>,
    }

    impl Encoder for Device {
        fn begin(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError> {
            let id = batch.token_ids()[0];
            let has = self.has.clone();
            self.most.fetch_max(has.fetch_add(1, Relaxed) + 1, Relaxed);
            let lost = self.lost_at == Some(id);
            Ok(Pending::new(move || {
                has.fetch_sub(1, Relaxed);
                if lost {
                    let (device, problem) = ("cuda:0".to_owned(), "it fell off the bus".to_owned());
                    return Err(EngineError::DeviceLost { device, problem });
                }
                Ok(Rows { width: 1, data: vec![id as f32] })
            }))
        }

        fn ahead(&self) -> usize {
            3
        }
    }

    /// What comes of eight batches of one sequence each.
    fn through(device: Device) -> Vec<Computed> {
        let ((to, batches), (computed, mut from)) = (mpsc::channel(8), mpsc::channel(8));
        for id in 0..8 {
            let mut packed = PackedBatch::new();
            packed.push(&[id], Finish::default());
            let batch = Batch { number: u64::from(id), alone: false, pieces: Vec::new(), packed };
            to.try_send(batch).unwrap();
        }
        drop(to);
        stage(Box::new(device), computed).run(batches);
        std::iter::from_fn(|| from.try_recv().ok()).collect()
    }

    #[test]
    fn a_device_has_the_next_batches_before_the_first_is_done_and_no_more_than_it_takes() {
        let device = Device::default();
        let most = device.most.clone();
        let computed = through(device);
        let values: Vec<f32> = computed.iter().map(|batch| batch.vectors[0]).collect();
        assert_eq!(values, [0., 1., 2., 3., 4., 5., 6., 7.], "in their order");
        assert_eq!(most.load(Relaxed), 3);
    }

    #[test]
    fn a_lost_device_ends_the_stage_and_fails_no_job() {
        let computed = through(Device { lost_at: Some(2), ..Device::default() });
        assert_eq!(computed.len(), 2, "those before it are told of");
        assert!(computed.iter().all(|batch| batch.failures.is_empty()));
    }
}
