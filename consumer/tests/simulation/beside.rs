//! Jobs beside a load of others, of another lane or another tenant, on paused time: how long they wait is counted, not
//! measured.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use forebay_consumer::{
    encode::budget::BATCH_TIME,
    in_hand::InHand,
    memory::MemoryLimit,
    peers::Peers,
    pipeline::{Parts, Pipeline, Source as LaneSource},
    stats::Stats,
    watchdog::EngineCalls,
};
use forebay_fabric::{
    broker::{Properties, Window},
    clock::Clock,
    config::WorkerConfig,
    rng,
    telemetry::Health,
};
use forebay_schemas::{
    ContentType, EmbedParams, Job, JobId, Lane, Limits, MESSAGE_TYPE, Outcome, Work,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    broker::{Broker, Sender, Source},
    executor::InPlace,
    life::Life,
    model::{Behavior, model},
    store::{Connection, Store},
};

/// As fast as all-MiniLM-L6-v2 on two cores.
const MACHINE: InPlace = InPlace {
    batch: Duration::from_micros(500),
    token: Duration::from_micros(30),
    // A tokenizer ten times as slow as that model's.
    text_byte: Duration::from_nanos(500),
};
/// The longest wait of an interactive job: for the rest of the batch that runs, in which it is journaled, and then for
/// its own of some ten tokens, which nothing fills up.
const BATCHES_MAX: Duration = BATCH_TIME.saturating_add(Duration::from_millis(1));
/// The rest of its way: a handful of text that is tokenized before its own, the linger, and the round trips of its
/// admission, its journal entry and its record (each may wait for another one), of 3 ms at most each.
const WAY_MAX: Duration = Duration::from_millis(8 + 1 + 5 + 6 * 3);
/// The longest wait of a small job beside other tenants of its lane: for the batch that runs, the one that was packed
/// behind it, and its own, which is a full one. Before it are tokenized the handfuls that were cut before it came (one
/// on the thread, one at it, one that has room behind it) and its own, in which others have their turns.
const BESIDE_TENANTS_MAX: Duration = Duration::from_millis(3 * 26 + 4 * 9 + 1 + 5 + 6 * 3);
const PATIENCE: Duration = Duration::from_secs(60);
/// The budget of tokens finds its size in this time.
const WARM_UP: Duration = Duration::from_secs(1);
/// More than a batch may have in [`BATCH_TIME`].
const BATCH_TOKENS_MAX: usize = 4_096;
/// Longer than the model reads.
pub const LONG_WORDS: usize = 200;

/// One worker, with its broker and its store.
pub struct Beside {
    pub broker: Broker,
    pub store: Store,
    jobs: usize,
    _pipeline: Pipeline,
    _deaths: mpsc::UnboundedReceiver<String>,
}

impl Beside {
    pub fn start() -> Self {
        Self::start_weighted([])
    }

    /// Starts a worker that gives tenants these weights.
    pub fn start_weighted<const N: usize>(weights: [(&str, u32); N]) -> Self {
        let weights: BTreeMap<String, u32> =
            weights.into_iter().map(|(tenant, weight)| (tenant.into(), weight)).collect();
        rng::seed(1);
        let broker = Broker::default();
        let store = Store::default();
        let (to_deaths, deaths) = mpsc::unbounded_channel();
        let life = Life::new("worker".into(), to_deaths);
        let sources = Lane::ALL.map(|lane| -> LaneSource {
            let broker = broker.clone();
            let life = life.clone();
            let window = Window::new(256, u64::MAX);
            (lane, Box::new(Source { broker, life, lane, window, cancelled: false }))
        });
        let clock = Clock::of_runtime(1_700_000_000_000);
        let parts = Parts {
            config: WorkerConfig {
                batch_tokens_max: BATCH_TOKENS_MAX,
                tenant_weights: Arc::new(weights),
                ..WorkerConfig::default()
            },
            limits: Limits::default(),
            name: "m".parse().unwrap(),
            worker: life.name.clone(),
            memory: MemoryLimit::new(u64::MAX, 1),
            publisher: Arc::new(Sender { broker: broker.clone(), life: life.clone() }),
            store: Arc::new(Connection { store: store.clone(), life: life.clone() }),
            health: Health::default(),
            stats: Arc::new(Stats::new(clock)),
            in_hand: Arc::new(InHand::new(clock)),
            calls: Arc::new(EngineCalls::default()),
            peers: watch::channel(Peers::Unknown).1,
            clock,
        };
        let model = model(life, Instant::now());
        let pipeline = Pipeline::start(&parts, model, sources, &MACHINE).unwrap();
        Self { broker, store, jobs: 0, _pipeline: pipeline, _deaths: deaths }
    }

    /// Submits a job of these texts.
    pub fn submit(&mut self, lane: Lane, input: Vec<String>, truncate: bool) -> JobId {
        let dimensions = Some(Behavior::Good as u32);
        let params = EmbedParams { dimensions, truncate, ..EmbedParams::default() };
        self.send(lane, Job::new("m".parse().unwrap(), Work::Embed { input, params }))
    }

    /// Submits a tenant's job of these texts to the batch lane.
    pub fn submit_of(&mut self, tenant: &str, input: Vec<String>) -> JobId {
        let dimensions = Some(Behavior::Good as u32);
        let params = EmbedParams { dimensions, ..EmbedParams::default() };
        let mut job = Job::new("m".parse().unwrap(), Work::Embed { input, params });
        job.tenant = Some(tenant.into());
        self.send(Lane::Batch, job)
    }

    fn send(&mut self, lane: Lane, mut job: Job) -> JobId {
        self.jobs += 1;
        job.id = format!("job-{}", self.jobs).parse().unwrap();
        let properties = Properties::default()
            .with_content_type(ContentType::Msgpack.as_str().into())
            .with_message_id(job.id.as_str().into())
            .with_type(MESSAGE_TYPE.into());
        self.broker.publish(lane, job.encode(ContentType::Msgpack).unwrap(), properties);
        job.id
    }

    pub fn is_done(&self, id: &JobId) -> bool {
        self.store.kept().records.contains_key(id)
    }

    pub fn outcome(&self, id: &JobId) -> Outcome {
        Outcome::decode(&self.store.kept().records[id]).unwrap()
    }

    /// Waits for a job's record. Returns how long that took.
    pub async fn wait(&self, id: &JobId) -> Duration {
        let began = Instant::now();
        while !self.is_done(id) {
            assert!(began.elapsed() < PATIENCE, "{id} is stuck");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        began.elapsed()
    }

    /// Waits until the broker has no message left.
    pub async fn all_settled(&self) {
        let began = Instant::now();
        while self.broker.left() > 0 {
            assert!(began.elapsed() < PATIENCE, "{} messages are left", self.broker.left());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Submits one text of another tenant after the other until `load` has ended. None of them waits longer than
    /// documented, from when the worker can have it.
    pub async fn tenant_beside(&mut self, load: &JobId) {
        tokio::time::sleep(WARM_UP).await;
        let mut jobs = 0;
        while !self.is_done(load) {
            let id = self.submit_of("small", texts(1, 8));
            let took = self.wait(&id).await;
            assert!(took <= BESIDE_TENANTS_MAX, "job {jobs} took {took:?}");
            tokio::time::sleep(Duration::from_millis(7)).await;
            jobs += 1;
        }
        assert!(jobs > 20, "{jobs} jobs: the load was too small");
    }

    /// Submits one interactive text after the other until `load` has ended. None of them waits longer than documented.
    pub async fn interactive_beside(&mut self, load: &JobId) {
        tokio::time::sleep(WARM_UP).await;
        let mut jobs = 0;
        while !self.is_done(load) {
            let id = self.submit(Lane::Interactive, texts(1, 8), true);
            let took = self.wait(&id).await;
            assert!(took <= BATCHES_MAX + WAY_MAX, "job {jobs} took {took:?}");
            tokio::time::sleep(Duration::from_millis(7)).await;
            jobs += 1;
        }
        assert!(jobs > 50, "{jobs} jobs: the load was too small");
    }
}

pub fn texts(count: usize, words: usize) -> Vec<String> {
    vec!["word ".repeat(words); count]
}
