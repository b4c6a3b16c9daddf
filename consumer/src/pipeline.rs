//! The stages and the channels between them.

use std::{sync::Arc, time::Duration};

use forebay_engine::{Model, ModelTask};
use forebay_fabric::{
    answer::Answerer,
    broker::{JobSource, Publisher},
    clock::Clock,
    config::WorkerConfig,
    fail,
    intake::Ended,
    store::ResultStore,
    telemetry::Health,
};
use forebay_schemas::{Lane, Limits, ModelId, Task};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admit::Admit,
    batch::Batching,
    budget::Budget,
    compute::{Compute, Computed},
    decode::Decode,
    job::{Admitted, Decoded},
    lanes::{self, LaneSender},
    memory::Memory,
    note::Noting,
    packer::{Batch, BatchLimits},
    settle::Settle,
    stats::Stats,
    tokenize::{Tokenize, Tokenized},
};

/// Jobs that wait between two stages, in each lane.
const JOBS_BETWEEN_STAGES: usize = 64;
/// Batches that are packed ahead of the device.
const BATCHES_AHEAD: usize = 1;
/// Computed batches that wait to be settled.
const BATCHES_BEHIND: usize = 4;

/// What the stages have in common.
pub struct Parts {
    /// How the worker works.
    pub config: WorkerConfig,
    /// The bounds that jobs must keep.
    pub limits: Limits,
    /// The model's name.
    pub name: ModelId,
    /// This worker's id.
    pub worker: String,
    /// How much memory there is.
    pub memory: Memory,
    /// Where copies, dead letters and further tries go.
    pub publisher: Arc<dyn Publisher>,
    /// Where results go.
    pub store: Arc<dyn ResultStore>,
    /// Says when nothing is to be taken.
    pub health: Health,
    /// The worker's counts.
    pub stats: Arc<Stats>,
    /// What tells the time.
    pub clock: Clock,
    /// Where the engine computes.
    pub seat: Seat,
}

/// Where one lane's jobs come from.
pub type Source = (Lane, Box<dyn JobSource>);

/// Where the engine computes.
#[derive(Debug, Clone, Copy)]
pub enum Seat {
    /// On a thread of its own, as fast as it can; texts are tokenised on threads too.
    Threads,
    /// In place, each batch taking as long as this says of its tokens: for tests of whole schedules on
    /// a clock that stands still, where a thread would bring in a time of its own.
    InPlace(fn(usize) -> Duration),
}

/// The running stages.
pub struct Pipeline {
    stages: JoinSet<&'static str>,
    take_no_more: CancellationToken,
}

impl Pipeline {
    /// Starts every stage.
    pub fn start(parts: &Parts, model: Model, sources: [Source; 2]) -> Self {
        let take_no_more = CancellationToken::new();
        let (to_admit, from_decode) = lanes::channel(JOBS_BETWEEN_STAGES);
        let (to_tokenize, from_admit) = lanes::channel(JOBS_BETWEEN_STAGES);
        let (to_batch, from_tokenize) = lanes::channel(JOBS_BETWEEN_STAGES);
        let (to_note, from_batch) = mpsc::channel(BATCHES_AHEAD);
        let (to_compute, from_note) = mpsc::channel(BATCHES_AHEAD);
        let (to_settle, from_compute) = mpsc::channel(BATCHES_BEHIND);
        let (ended, from_all) = mpsc::channel(JOBS_BETWEEN_STAGES);
        let budget = Arc::new(Budget::new(parts.config.batch_tokens_max));

        let mut stages = JoinSet::new();
        for (lane, source) in sources {
            let decode = parts.decode(lane, to_admit.clone(), ended.clone());
            stages.spawn(named("decode", decode.run(source, take_no_more.clone())));
        }
        drop(to_admit);
        let admit = parts.admit(&model, to_tokenize, ended.clone());
        stages.spawn(named("admit", admit.run(from_decode)));
        let tokenize = parts.tokenize(&model, to_batch, ended);
        stages.spawn(named("tokenize", tokenize.run(from_admit)));
        let batching = parts.batching(budget.clone(), to_note);
        stages.spawn(named("batch", batching.run(from_tokenize)));
        let noting = parts.noting(to_compute);
        stages.spawn(named("note", noting.run(from_batch)));
        let settle = parts.settle(&model);
        let compute = parts.compute(model, budget, to_settle);
        match parts.seat {
            Seat::Threads => drop(stages.spawn_blocking(move || {
                compute.run(from_note);
                "compute"
            })),
            Seat::InPlace(cost) => {
                drop(stages.spawn(named("compute", compute.run_in_place(from_note, cost))));
            }
        }
        stages.spawn(named("settle", settle.run(from_compute, from_all)));
        Self { stages, take_no_more }
    }

    /// Waits for a stage to end, which none does while work may come. Its name, or its panic.
    pub async fn ended(&mut self) -> Result<&'static str, JoinError> {
        self.stages.join_next().await.unwrap_or(Ok("all"))
    }

    /// Takes no more and finishes what was taken. Abandoned, it leaves the rest to the broker.
    pub async fn drain(&mut self) {
        self.take_no_more.cancel();
        fail::point("during_drain");
        while let Some(stage) = self.stages.join_next().await {
            match stage {
                Ok(stage) => tracing::debug!(stage, "drained"),
                Err(error) => tracing::error!(%error, "a stage failed while draining"),
            }
        }
    }
}

impl Parts {
    fn decode(&self, lane: Lane, jobs: LaneSender<Decoded>, ended: mpsc::Sender<Ended>) -> Decode {
        Decode {
            lane,
            limits: self.limits.clone(),
            health: self.health.clone(),
            clock: self.clock,
            stats: self.stats.clone(),
            jobs,
            ended,
        }
    }

    fn admit(
        &self,
        model: &Model,
        jobs: LaneSender<Admitted>,
        ended: mpsc::Sender<Ended>,
    ) -> Admit {
        Admit {
            model: self.name.clone(),
            task: match model.info.task {
                ModelTask::Embed => Task::Embed,
                ModelTask::Classify => Task::Classify,
                ModelTask::Rerank => Task::Rerank,
            },
            worker: self.worker.clone(),
            attempts_max: self.config.attempts_max,
            store: self.store.clone(),
            clock: self.clock,
            jobs,
            ended,
        }
    }

    fn tokenize(
        &self,
        model: &Model,
        jobs: LaneSender<Tokenized>,
        ended: mpsc::Sender<Ended>,
    ) -> Tokenize {
        let threads = match self.seat {
            Seat::Threads => self.config.tokenize_threads,
            Seat::InPlace(_) => 0,
        };
        let (tokenizer, dim) = (model.tokenizer.clone(), model.info.dim);
        Tokenize { tokenizer, dim, threads, jobs, ended }
    }

    fn batching(&self, budget: Arc<Budget>, batches: mpsc::Sender<Batch>) -> Batching {
        let limits = BatchLimits {
            tokens_max: self.config.batch_tokens_max,
            items_max: self.config.batch_items_max,
        };
        let linger = Duration::from_millis(self.config.linger_ms_max);
        Batching { limits, linger, budget, stats: self.stats.clone(), batches }
    }

    fn noting(&self, batches: mpsc::Sender<Batch>) -> Noting {
        let (worker, store) = (self.worker.clone(), self.store.clone());
        Noting { worker, store, stats: self.stats.clone(), batches }
    }

    fn compute(
        &self,
        model: Model,
        budget: Arc<Budget>,
        computed: mpsc::Sender<Computed>,
    ) -> Compute {
        let engine = (model.encoder, model.info.dim);
        Compute::new(engine, budget, self.memory, self.stats.clone(), computed)
    }

    fn settle(&self, model: &Model) -> Settle {
        let answerer = Answerer {
            signature: self.worker.clone(),
            store: self.store.clone(),
            publisher: self.publisher.clone(),
            attempts_max: self.config.attempts_max,
            clock: self.clock,
        };
        let labels = model.info.labels.clone();
        Settle { answerer, labels, stats: self.stats.clone() }
    }
}

async fn named(name: &'static str, stage: impl Future<Output = ()>) -> &'static str {
    stage.await;
    name
}
