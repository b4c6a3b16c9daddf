//! Stage 5: batches to vectors, on the engine's thread. A batch that fails is halved until the guilty
//! input stands alone.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use forebay_engine::{Encoder, EngineError, PackedBatch};
use forebay_fabric::fail;
use forebay_schemas::{ErrorCode, JobError};
use metrics::{counter, histogram};
use tokio::sync::mpsc;

use crate::{
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

    fn compute(&mut self, batch: Batch) -> Computed {
        let Batch { pieces, packed } = batch;
        let started_at = Instant::now();
        let mut rows = Rows {
            encoder: self.encoder.as_mut(),
            packed: &packed,
            vectors: vec![0.0; packed.sequences() * self.dim],
            dim: self.dim,
            failures: BTreeMap::new(),
        };
        rows.whole();
        let (vectors, failures) = (rows.vectors, rows.failures);
        let ended_at = Instant::now();
        self.report(packed.tokens(), ended_at - started_at);
        let (dim, tokens) = (self.dim, packed.tokens());
        Computed { pieces, vectors, dim, failures, started_at, ended_at, tokens }
    }

    fn report(&self, tokens: usize, took: Duration) {
        self.stats.computed(tokens as u64, took);
        counter!("forebay_compute_tokens_total").increment(tokens as u64);
        counter!("forebay_compute_busy_us_total").increment(took.as_micros() as u64);
        histogram!("forebay_compute_ms").record(took.as_secs_f64() * 1_000.0);
    }
}

struct Rows<'a> {
    encoder: &'a mut dyn Encoder,
    packed: &'a PackedBatch,
    vectors: Vec<f32>,
    dim: usize,
    failures: BTreeMap<usize, JobError>,
}

impl Rows<'_> {
    /// Computes all at once; only if that fails, in parts.
    fn whole(&mut self) {
        match self.encoder.embed(self.packed) {
            Ok(embeddings) => {
                self.dim = embeddings.dim;
                self.vectors = embeddings.data;
            }
            Err(error) => self.failed(0..self.packed.sequences(), &error),
        }
    }

    fn part(&mut self, rows: Range<usize>) {
        let mut part = PackedBatch::new();
        let starts = self.packed.cu_seqlens();
        for row in rows.clone() {
            let ids = &self.packed.token_ids()[starts.range(row)];
            part.push(ids, self.packed.finishes()[row]);
        }
        match self.encoder.embed(&part) {
            Ok(embeddings) => {
                let (from, to) = (rows.start * self.dim, rows.end * self.dim);
                self.vectors[from..to].copy_from_slice(&embeddings.data);
            }
            Err(error) => self.failed(rows, &error),
        }
    }

    fn failed(&mut self, rows: Range<usize>, error: &EngineError) {
        if rows.len() > 1 {
            tracing::warn!(inputs = rows.len(), %error, "a batch failed; halving it");
            counter!("forebay_compute_halved_total").increment(1);
            let middle = rows.start + rows.len() / 2;
            self.part(rows.start..middle);
            self.part(middle..rows.end);
        } else {
            let error = JobError::new(ErrorCode::Internal, error.to_string());
            self.failures.extend(rows.map(|row| (row, error.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_engine::{Embeddings, Finish};

    use super::*;

    /// Embeds a sequence as its first token id, and fails whole batches that hold the id 13.
    struct FailsOn13;

    impl Encoder for FailsOn13 {
        fn embed(&mut self, batch: &PackedBatch) -> Result<Embeddings, EngineError> {
            if batch.token_ids().contains(&13) {
                return Err(EngineError::Tokenizer { problem: "thirteen".into() });
            }
            Ok(Embeddings { dim: 1, data: batch.token_ids().iter().map(|&id| id as f32).collect() })
        }
    }

    #[test]
    fn only_the_guilty_input_of_a_batch_fails() {
        let mut packed = PackedBatch::new();
        for id in [1, 2, 13, 4, 5] {
            packed.push(&[id], Finish::default());
        }
        let mut compute = Compute {
            encoder: Box::new(FailsOn13),
            dim: 1,
            stats: Arc::default(),
            computed: mpsc::channel(1).0,
        };
        let computed = compute.compute(Batch { pieces: Vec::new(), packed });
        assert_eq!(computed.vectors, [1.0, 2.0, 0.0, 4.0, 5.0]);
        assert_eq!(computed.failures.keys().copied().collect::<Vec<_>>(), [2]);
        assert!(computed.failures[&2].message.contains("thirteen"));
    }
}
