//! Stage 6: batches to vectors, on the engine's thread. A batch that fails is halved until the guilty
//! input stands alone; one that memory does not suffice for makes the next ones smaller too.

use std::{
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use forebay_engine::{Encoder, EngineError, PackedBatch, Rows};
use forebay_fabric::fail;
use forebay_schemas::{ErrorCode, JobError};
use metrics::{counter, histogram};
use tokio::{sync::mpsc, time::Instant};

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
    pub encoder: Box<dyn Encoder>,
    /// Values in one of its vectors.
    pub dim: usize,
    /// How many tokens a batch may have.
    pub budget: Arc<Budget>,
    /// How much memory there is.
    pub memory: Memory,
    /// Told what was computed.
    pub stats: Arc<Stats>,
    /// Where computed batches go.
    pub computed: mpsc::Sender<Computed>,
}

impl Compute {
    /// Runs until its input ends. Blocks its thread.
    pub fn run(mut self, mut batches: mpsc::Receiver<Batch>) {
        while let Some(batch) = batches.blocking_recv() {
            let computed = self.compute(batch);
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
            let computed = self.compute(batch);
            if self.computed.send(computed).await.is_err() {
                return;
            }
        }
    }

    fn compute(&mut self, batch: Batch) -> Computed {
        let Batch { number, pieces, packed, .. } = batch;
        let started_at = Instant::now();
        let mut halving = Halving {
            vectors: vec![0.0; packed.sequences() * self.dim],
            failures: BTreeMap::new(),
            faults: Faults::of(&pieces),
            packed: &packed,
            stage: self,
        };
        halving.whole();
        let (vectors, failures) = (halving.vectors, halving.failures);
        let ended_at = Instant::now();
        self.report(number, packed.tokens(), ended_at - started_at);
        let (dim, tokens) = (self.dim, packed.tokens());
        Computed { pieces, vectors, dim, failures, started_at, ended_at, tokens }
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

/// A batch that is computed whole, or in halves of halves.
struct Halving<'a> {
    stage: &'a mut Compute,
    packed: &'a PackedBatch,
    faults: Faults,
    vectors: Vec<f32>,
    failures: BTreeMap<usize, JobError>,
}

impl Halving<'_> {
    /// Computes all at once; only if that fails, in parts.
    fn whole(&mut self) {
        let all = 0..self.packed.sequences();
        match self.call(self.packed, all.clone()) {
            Ok(computed) => {
                self.vectors = computed.data;
                self.stage.budget.fitted();
            }
            Err(error) => self.failed(all, self.packed.tokens(), &error),
        }
    }

    fn part(&mut self, rows: Range<usize>) {
        let mut part = PackedBatch::new();
        for row in rows.clone() {
            part.push_from(self.packed, row);
        }
        match self.call(&part, rows.clone()) {
            Ok(computed) => {
                let (from, to) = (rows.start * self.stage.dim, rows.end * self.stage.dim);
                self.vectors[from..to].copy_from_slice(&computed.data);
            }
            Err(error) => self.failed(rows, part.tokens(), &error),
        }
    }

    /// One call of the engine for these rows, which `batch` holds. The watchdog sees it, and a panic in
    /// it is an error like any other.
    fn call(&mut self, batch: &PackedBatch, rows: Range<usize>) -> Result<Rows, JobError> {
        let Compute { encoder, memory, stats, .. } = &mut *self.stage;
        let faults = &self.faults;
        let call = || {
            faults.before(rows.clone(), batch.tokens())?;
            memory.check(batch.tokens())?;
            encoder.compute(batch)
        };
        stats.call_begins();
        let computed = catch_unwind(AssertUnwindSafe(call));
        stats.call_ends();
        match computed {
            Ok(Ok(mut computed)) => {
                faults.after(rows, &mut computed);
                Ok(computed)
            }
            Ok(Err(error)) => Err(job_error(&error)),
            Err(_) => Err(JobError::new(ErrorCode::Internal, "the engine panicked")),
        }
    }

    fn failed(&mut self, rows: Range<usize>, tokens: usize, error: &JobError) {
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
    use forebay_engine::Finish;

    use super::*;

    /// Embeds a sequence as its first token id, and whole batches only if `willing`.
    struct Picky(fn(&[u32]) -> Result<(), EngineError>);

    impl Encoder for Picky {
        fn compute(&mut self, batch: &PackedBatch) -> Result<Rows, EngineError> {
            let ids = batch.token_ids();
            (self.0)(ids)?;
            let firsts = batch.cu_seqlens().ranges().map(|range| ids[range.start] as f32);
            Ok(Rows { width: 1, data: firsts.collect() })
        }
    }

    fn computed(willing: fn(&[u32]) -> Result<(), EngineError>, ids: &[u32]) -> (Computed, usize) {
        let mut packed = PackedBatch::new();
        for &id in ids {
            packed.push(&[id], Finish::default());
        }
        let mut compute = Compute {
            encoder: Box::new(Picky(willing)),
            dim: 1,
            budget: Arc::new(Budget::new(1_000)),
            memory: Memory::new(u64::MAX, 1),
            stats: Arc::default(),
            computed: mpsc::channel(1).0,
        };
        let computed =
            compute.compute(Batch { number: 1, alone: false, pieces: Vec::new(), packed });
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
}
