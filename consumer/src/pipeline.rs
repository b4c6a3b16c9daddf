//! The stages and the channels between them.

mod generator;

use std::{sync::Arc, time::Duration};

use forebay_engine::{Encoder, EngineError, Model, ModelTask};
use forebay_fabric::{
    answer::Answerer,
    broker::{JobSource, Publisher},
    clock::Clock,
    config::WorkerConfig,
    disposition::Disposition,
    fail,
    store::ResultStore,
    telemetry::Health,
    ticket::Ticket,
};
use forebay_schemas::{Lane, Limits, ModelId, Outcome, Task};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admit::Admit,
    decode::Decode,
    encode::{
        assemble::assemble,
        batch::Batching,
        budget::Budget,
        compute::{Compute, Ports},
        packer::{Batch, BatchLimits},
    },
    in_flight::Part,
    in_hand::InHand,
    job::{Admitted, Decoded},
    journal::{Due, Journaled, Journaling, SharedJournal},
    lanes::{self, LaneReceiver, LaneSender},
    memory::MemoryLimit,
    pace::Hold,
    peers::Peers,
    remote::{
        call::{self, Calls},
        model::{ROW_VALUES_MAX, Remote},
    },
    settle::Settle,
    stats::Stats,
    tokenize::{Handful, Tokenize},
    watchdog::EngineCalls,
};

/// Jobs that wait between two stages, in each lane.
const JOBS_BETWEEN_STAGES: usize = 64;
/// Handfuls of tokenized parts that wait to be packed, in each lane.
const HANDFULS_TOKENIZED: usize = 4;
/// Batches that wait for the device in each lane, packed and journaled. An urgent one goes before one of the batch
/// lane.
const BATCHES_AHEAD: usize = 1;
/// Computed batches that wait to be settled.
const BATCHES_BEHIND: usize = 4;
/// Batches that the device is done with before the journal has read that: more than the device can have been given, so
/// that it does not wait for the journal while the store is away.
const BATCHES_DONE: usize = 16;

/// The parts that stages are made of, apart from the model.
pub struct Parts {
    /// The worker's settings.
    pub config: WorkerConfig,
    /// The bounds that jobs must keep.
    pub limits: Limits,
    /// The model's name.
    pub name: ModelId,
    /// This worker's id.
    pub worker: String,
    /// How much memory this process may use.
    pub memory: MemoryLimit,
    /// Publishes copies, dead letters and further attempts.
    pub publisher: Arc<dyn Publisher>,
    /// The store of results and journals.
    pub store: Arc<dyn ResultStore>,
    /// While it names a problem of the store or of memory, nothing is taken.
    pub health: Health,
    /// Figures that are reported.
    pub stats: Arc<Stats>,
    /// The jobs in hand.
    pub in_hand: Arc<InHand>,
    /// The engine's calls, which the watchdog watches.
    pub calls: Arc<EngineCalls>,
    /// The other workers of the model.
    pub peers: watch::Receiver<Peers>,
    /// The time.
    pub clock: Clock,
}

/// The source of one lane's jobs.
pub type Source = (Lane, Box<dyn JobSource>);

/// Runs the two stages whose work blocks a thread.
pub trait Executor {
    /// Runs the stage until its input ends and all that it took is passed on.
    fn tokenize(
        &self,
        stage: Tokenize,
        admitted: LaneReceiver<Admitted>,
    ) -> impl Future<Output = ()> + Send + 'static;

    /// Runs the stage until its input ends or its device is lost.
    fn compute(&self, stage: Compute, ports: Ports) -> impl Future<Output = ()> + Send + 'static;
}

/// The worker's executor: tokenizes on tokio's blocking threads, computes on one of its own.
#[derive(Debug, Clone, Copy)]
pub struct Threads;

impl Executor for Threads {
    fn tokenize(
        &self,
        stage: Tokenize,
        admitted: LaneReceiver<Admitted>,
    ) -> impl Future<Output = ()> + Send + 'static {
        stage.run(admitted, |handful: Handful| async {
            // An error says that the runtime is shutting down; the deliveries go back to their queue.
            tokio::task::spawn_blocking(|| handful.tokenize()).await.unwrap_or_default()
        })
    }

    fn compute(&self, stage: Compute, ports: Ports) -> impl Future<Output = ()> + Send + 'static {
        on_thread(move || stage.run(ports))
    }
}

/// Runs a stage that blocks, on a thread of its own.
fn on_thread(stage: impl FnOnce() + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
    let thread = tokio::task::spawn_blocking(stage);
    async {
        // A panic of the stage becomes the task's. Only the end of the runtime cancels the thread.
        if let Err(error) = thread.await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The running stages.
pub struct Pipeline {
    stages: JoinSet<&'static str>,
    journal: SharedJournal,
    take_no_more: CancellationToken,
}

impl Pipeline {
    /// Starts every stage.
    pub fn start(
        parts: &Parts,
        model: Model,
        sources: [Source; 2],
        executor: &impl Executor,
    ) -> Result<Self, EngineError> {
        if model.info.task == ModelTask::Generate {
            return Self::start_generator(parts, model, sources);
        }
        let take_no_more = CancellationToken::new();
        let (to_admit, from_decode) = lanes::channel(JOBS_BETWEEN_STAGES);
        let (to_tokenize, from_admit) = lanes::channel(JOBS_BETWEEN_STAGES);
        let (to_batch, from_tokenize) = lanes::channel(HANDFULS_TOKENIZED);
        // Each has room at the device, of both lanes.
        let (to_journal, from_batch) = mpsc::channel(2 * BATCHES_AHEAD);
        let (to_compute, batches) = lanes::channel(BATCHES_AHEAD);
        let (computed, from_compute) = mpsc::channel(BATCHES_BEHIND);
        let (not_computed, from_all) = mpsc::channel(JOBS_BETWEEN_STAGES);
        // The token budget and the finished sequences, which travel against the jobs.
        let (budget, published_budget) = Budget::new(parts.config.batch_tokens_max);
        let (done, from_device) = mpsc::channel(BATCHES_DONE);
        let journal = SharedJournal::start(parts.worker.clone(), parts.store.clone());

        let mut stages = JoinSet::new();
        for (lane, source) in sources {
            let decode = parts.decode(
                lane,
                model.info.row_values_max(),
                to_admit.clone(),
                not_computed.clone(),
            );
            stages.spawn(named("decode", decode.run(source, take_no_more.clone())));
        }
        drop(to_admit);
        let admit = parts.admit(task(&model), to_tokenize, not_computed.clone());
        stages.spawn(named("admit", admit.run(from_decode)));
        let tokenize = parts.tokenize(&model, journal.clone(), to_batch, not_computed.clone());
        stages.spawn(named("tokenize", executor.tokenize(tokenize, from_admit)));
        let batching = parts.batching(published_budget, to_compute, to_journal, not_computed);
        stages.spawn(named("batch", batching.run(from_tokenize)));
        let journaling = Journaling { journal: journal.clone(), done: from_device };
        stages.spawn(named("journal", journaling.run(from_batch)));
        let labels = model.info.labels.clone();
        let dim = model.info.dim;
        let compute = parts.compute(model.engine.into_encoder()?, budget);
        let ports = Ports { batches, done, computed };
        stages.spawn(named("compute", executor.compute(compute, ports)));
        let whole = move |batch| assemble(batch, dim, &labels);
        stages.spawn(named("settle", parts.settle().run(from_compute, from_all, whole)));
        Ok(Self { stages, journal, take_no_more })
    }

    /// Starts the stages of a remote model.
    pub fn start_remote(parts: &Parts, remote: Remote, sources: [Source; 2]) -> Self {
        let take_no_more = CancellationToken::new();
        let (to_admit, from_decode) = lanes::channel(JOBS_BETWEEN_STAGES);
        let (to_call, from_admit) = lanes::channel(JOBS_BETWEEN_STAGES);
        let (ended, from_all) = mpsc::channel(JOBS_BETWEEN_STAGES);
        let journal = SharedJournal::start(parts.worker.clone(), parts.store.clone());
        let mut stages = JoinSet::new();
        for (lane, source) in sources {
            let decode = parts.decode(lane, ROW_VALUES_MAX, to_admit.clone(), ended.clone());
            stages.spawn(named("decode", decode.run(source, take_no_more.clone())));
        }
        drop(to_admit);
        let admit = parts.admit(call::task(&remote.config), to_call, ended.clone());
        stages.spawn(named("admit", admit.run(from_decode)));
        let calls = parts.calls(remote, journal.clone(), take_no_more.clone(), ended);
        stages.spawn(named("call", calls.run(from_admit)));
        // Each job ends with its disposition: no device's stage sends parts of jobs.
        let (_, no_device) = mpsc::channel::<Vec<(Ticket, Outcome)>>(1);
        stages.spawn(named("settle", parts.settle().run(no_device, from_all, |whole| whole)));
        Self { stages, journal, take_no_more }
    }

    /// Waits for a stage to end, which none does while work may come. Its name, or its panic.
    pub async fn ended(&mut self) -> Result<&'static str, JoinError> {
        self.stages.join_next().await.unwrap_or(Ok("all"))
    }

    /// Leaves nothing in the in-flight journal, for a worker that ends in good order, drained or not: what its device
    /// still computes goes back, and has killed no worker.
    pub async fn leave_journal(&self) {
        self.journal.close().await;
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
    fn decode(
        &self,
        lane: Lane,
        row_values_max: usize,
        jobs: LaneSender<Decoded>,
        not_computed: mpsc::Sender<Disposition>,
    ) -> Decode {
        Decode {
            lane,
            prefetch_max: match lane {
                Lane::Interactive => self.config.prefetch_interactive,
                Lane::Batch => self.config.prefetch_batch,
            },
            // Without a sender it stays so.
            hold: watch::channel(Hold::at_least(0)).1,
            row_values_max,
            limits: self.limits.clone(),
            health: self.health.clone(),
            clock: self.clock,
            in_hand: self.in_hand.clone(),
            jobs,
            not_computed,
        }
    }

    fn admit(
        &self,
        task: Task,
        jobs: LaneSender<Admitted>,
        not_computed: mpsc::Sender<Disposition>,
    ) -> Admit {
        Admit {
            model: self.name.clone(),
            task,
            worker: self.worker.clone(),
            attempts_max: self.config.attempts_max,
            store: self.store.clone(),
            clock: self.clock,
            jobs,
            not_computed,
        }
    }

    fn tokenize(
        &self,
        model: &Model,
        journal: SharedJournal,
        to_batch: LaneSender<Vec<Part>>,
        not_computed: mpsc::Sender<Disposition>,
    ) -> Tokenize {
        Tokenize {
            tokenizer: model.tokenizer.clone(),
            dim: model.info.dim,
            weights: self.config.tenant_weights.clone(),
            vocabulary: model.info.vocabulary,
            threads: self.config.tokenize_threads,
            attempts_max: self.config.attempts_max,
            memory: self.memory,
            journal,
            parts: to_batch,
            not_computed,
        }
    }

    fn batching(
        &self,
        budget: watch::Receiver<usize>,
        device: LaneSender<Journaled<Batch>>,
        batches: mpsc::Sender<Due<Batch>>,
        not_computed: mpsc::Sender<Disposition>,
    ) -> Batching {
        Batching {
            limits: BatchLimits {
                tokens_max: self.config.batch_tokens_max,
                items_max: self.config.batch_items_max,
            },
            weights: self.config.tenant_weights.clone(),
            linger: Duration::from_millis(self.config.linger_ms_max),
            budget,
            attempts_max: self.config.attempts_max,
            stats: self.stats.clone(),
            device,
            batches,
            not_computed,
        }
    }

    fn compute(&self, encoder: Box<dyn Encoder>, budget: Budget) -> Compute {
        let stats = self.stats.clone();
        Compute::new(encoder, budget, self.memory, stats, self.calls.clone())
    }

    fn calls(
        &self,
        Remote { endpoint, gate, config }: Remote,
        journal: SharedJournal,
        stop: CancellationToken,
        ended: mpsc::Sender<Disposition>,
    ) -> Calls {
        Calls {
            endpoint,
            config,
            gate,
            journal,
            store: self.store.clone(),
            attempts_max: self.config.attempts_max,
            clock: self.clock,
            stats: self.stats.clone(),
            stop,
            ended,
        }
    }

    fn settle(&self) -> Settle {
        let answerer = Answerer {
            worker_id: self.worker.clone(),
            store: self.store.clone(),
            publisher: self.publisher.clone(),
            attempts_max: self.config.attempts_max,
            clock: self.clock,
        };
        Settle { answerer, in_hand: self.in_hand.clone() }
    }
}

/// The task that a model does.
fn task(model: &Model) -> Task {
    match model.info.task {
        ModelTask::Embed => Task::Embed,
        ModelTask::EmbedSparse => Task::EmbedSparse,
        ModelTask::EmbedTokens => Task::EmbedTokens,
        ModelTask::Classify => Task::Classify,
        ModelTask::Rerank => Task::Rerank,
        ModelTask::Generate => Task::Generate,
    }
}

async fn named(name: &'static str, stage: impl Future<Output = ()>) -> &'static str {
    stage.await;
    name
}
