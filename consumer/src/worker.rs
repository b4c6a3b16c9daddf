//! A worker's life: load, connect, work, drain.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use forebay_engine::{Device, Finish, LoadOptions, Model, ModelTask, PackedBatch};
use forebay_fabric::{
    Broker, Config, Store,
    broker::{JobSource, Window},
    clock::Clock,
    config::{ConfigError, RemoteConfig},
    host,
    telemetry::{self, Health, Server, TelemetryError, trace},
    tls::Tls,
};
use forebay_schemas::{Lane, ModelId, WorkerState, topology::Topology};
use tokio_util::sync::CancellationToken;

use crate::{
    encode::calibrate,
    error::WorkerError,
    generate::step_size,
    idle,
    in_hand::InHand,
    loading::{folder_of, warm_up, warn_of_ignored, with_pages},
    memory::MemoryLimit,
    pace, peers,
    pipeline::{Parts, Pipeline, Source, Threads},
    registry::Registry,
    remote::{model::Remote, watch},
    revision::Files,
    stats::Stats,
    watchdog::{self, EngineCalls},
};

/// How long the connection stays after the last acknowledgement. RabbitMQ passes a channel's acknowledgements on to a
/// quorum queue a few dozen at a time, as the queue applies them, and forgets those that have not been passed on when
/// the channel ends: their messages would come again. It does not report when it is done. On a busy machine half a
/// second was seen not to suffice.
const ACKS_PASS_ON: Duration = Duration::from_secs(3);

/// How long a worker that ends waits for the store to remove its in-flight journal. Without a store it can't.
const LEAVE_JOURNAL: Duration = Duration::from_secs(5);

/// The model to run: the one that is named, or the only one of the configuration.
pub fn choose_model(config: &Config, named: Option<ModelId>) -> Result<ModelId, WorkerError> {
    let mut models = config.models.keys();
    match (named, models.next(), models.next()) {
        (Some(model), ..) => Ok(model),
        (None, Some(only), None) => Ok(only.clone()),
        _ => {
            let models: Vec<&str> = config.models.keys().map(ModelId::as_str).collect();
            Err(WorkerError::NoModel(models.join(", ")))
        }
    }
}

/// Loads a model from the cache and runs one small batch, so that the first job finds warm memory. Returns with it the
/// most tokens of its batches: as the configuration says, or else as many as were measured to be best.
pub fn load(
    config: &Config,
    name: &ModelId,
    options: &LoadOptions,
) -> Result<(Model, usize), WorkerError> {
    let folder = folder_of(config, name)?;
    let mut model = forebay_engine::load(&folder, &with_pages(options, config))?;
    warn_of_ignored(&model);
    if model.info.task == ModelTask::Generate {
        warm_up(&mut model)?;
        let tokens_max = match config.worker.batch_tokens_max {
            0 => step_size::step_tokens(&mut model, &config.models_dir()?, name)?,
            tokens_max => tokens_max,
        };
        return Ok((model, tokens_max));
    }
    let mut batch = PackedBatch::new();
    batch.push(&model.tokenizer.encode("warm up")?.ids, Finish::default());
    let warm = model.engine.encoder()?.compute(&batch)?;
    // A model that fails on two words fails on any text.
    if warm.data.iter().any(|value| !value.is_finite()) {
        return Err(WorkerError::NotFinite { model: name.clone(), folder });
    }
    let tokens_max = match config.worker.batch_tokens_max {
        0 => calibrate::batch_tokens(&mut model, &config.models_dir()?, name)?,
        tokens_max => tokens_max,
    };
    Ok((model, tokens_max))
}

/// Runs a worker until `stop`, or until it was idle for too long, then drains it. `id` is its name, if it has one.
pub async fn run(
    mut config: Config,
    name: ModelId,
    options: LoadOptions,
    id: Option<String>,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let made_up = || format!("{}-{}-{:08x}", host::name(), std::process::id(), started_bits());
    let id = id.unwrap_or_else(made_up);
    let health = Health::new(&["broker", "store", "model"]);
    let server =
        Server::start(config.telemetry.listen, telemetry::init_metrics()?, health.clone()).await?;
    let traces = trace::start(&config.telemetry, &config.tls, "forebay-worker", &id)
        .map_err(TelemetryError::from)?;
    let store = Arc::new(Store::new(&config)?);
    let stats = Arc::new(Stats::default());
    let in_hand = Arc::new(InHand::default());
    let calls = Arc::new(EngineCalls::default());
    let registry = Registry::new(id.clone(), &name, store.clone(), stats.clone(), in_hand.clone());
    let background = CancellationToken::new();
    store.report_health(health.clone(), background.clone());
    let heartbeats = tokio::spawn(registry.clone().run(background.clone()));

    let topology = Topology::new(config.models.keys().chain([&name]), &config.queues);
    let broker = Broker::start(&config, &format!("forebay-worker {id}"), topology)?;
    broker.report_health(health.clone());
    let result = async {
        let starting = load_and_connect(&config, &name, options, &registry, &broker, &store);
        let Some(started) = stop.run_until_cancelled(starting).await else { return Ok(()) };
        let model = started?;
        health.set("model", Ok(()));
        let memory = model.memory_limit(&mut config);
        tokio::spawn(memory.watch(health.clone(), background.clone()));
        watch_over(&config, calls.clone(), in_hand.clone(), &store, &stop)?;
        let grace = Duration::from_secs(config.worker.grace_s);
        let sources = sources(&broker, &config, &name, &memory);
        let parts = Parts {
            peers: peers::start(&id, &name, &stats, &store, &background),
            config: config.worker,
            limits: config.limits,
            name,
            worker: id.clone(),
            memory,
            publisher: Arc::new(broker.clone()),
            store: store.clone(),
            health: health.clone(),
            stats,
            in_hand: in_hand.clone(),
            calls,
            clock: Clock::default(),
        };
        let mut pipeline = model.start(&parts, sources, &registry, &background)?;
        registry.update(|record| record.state = WorkerState::Ready).await;
        work_and_drain(&mut pipeline, &stop, &registry, &health, grace).await
    }
    .await;
    if let Some(pause) = ACKS_PASS_ON.checked_sub(in_hand.since_settled()) {
        tokio::time::sleep(pause).await;
    }
    // Jobs that are not settled by now go back to their queue with the connection. By then the in-flight journal is
    // empty, unless the worker ends with an error: then those in it are suspects, as soon as the record is gone.
    broker.close().await;
    background.cancel();
    let _ = heartbeats.await; // none comes after the removal
    registry.remove().await;
    trace::stop(traces).await;
    server.stop().await;
    result
}

impl Started {
    /// The limit of this process's memory. From here on the configuration has the size of the model's batches.
    fn memory_limit(&self, config: &mut Config) -> MemoryLimit {
        match self {
            Self::Local(model, batch_tokens_max) => {
                config.worker.batch_tokens_max = *batch_tokens_max;
                memory_limit(config, model)
            }
            Self::Remote(_) => MemoryLimit::new(config.worker.memory_bytes_max, 0),
        }
    }

    /// Starts the stages.
    fn start(
        self,
        parts: &Parts,
        sources: [Source; 2],
        registry: &Registry,
        background: &CancellationToken,
    ) -> Result<Pipeline, WorkerError> {
        Ok(match self {
            Self::Local(model, _) => Pipeline::start(parts, *model, sources, &Threads)?,
            Self::Remote(remote) => {
                let gate = remote.gate.clone();
                let health = parts.health.clone();
                tokio::spawn(watch::report(gate, health, registry.clone(), background.clone()));
                Pipeline::start_remote(parts, remote, sources)
            }
        })
    }
}

/// The limit of this process's memory. A GPU's memory is not this process's: its encoder checks it.
fn memory_limit(config: &Config, model: &Model) -> MemoryLimit {
    let is_on_processor = model.info.device == Device::Cpu;
    let bytes_per_token = if is_on_processor { model.info.bytes_per_token } else { 0 };
    MemoryLimit::new(config.worker.memory_bytes_max, bytes_per_token)
}

/// Ends the worker when its engine is stuck, and when it is idle and no autoscaler looks after it.
fn watch_over(
    config: &Config,
    calls: Arc<EngineCalls>,
    in_hand: Arc<InHand>,
    store: &Arc<Store>,
    stop: &CancellationToken,
) -> Result<(), WorkerError> {
    let deadline = Duration::from_secs(config.worker.batch_deadline_s);
    watchdog::start(calls, deadline)
        .map_err(|source| WorkerError::Io { action: "starting the watchdog", source })?;
    let idle = Duration::from_secs(config.worker.idle_s_max);
    let store = store.clone();
    // While the store does not answer, no autoscaler can be known to lead.
    let is_led = async move || store.is_led().await.unwrap_or(false);
    tokio::spawn(idle::stop_after(idle, in_hand, stop.clone(), is_led));
    Ok(())
}

/// The subscriptions of both lanes. Each lane has bytes of its own, so that neither waits for the other's jobs: a
/// quarter is for the interactive lane, whose jobs are small.
fn sources(broker: &Broker, config: &Config, model: &ModelId, memory: &MemoryLimit) -> [Source; 2] {
    let worker = &config.worker;
    let bytes_max = memory.for_deliveries(worker.batch_tokens_max, worker.held_bytes_max);
    tracing::info!(bytes_max, "messages in hand are bounded in bytes");
    let lanes = [
        (Lane::Interactive, worker.prefetch_interactive, bytes_max / 4),
        (Lane::Batch, worker.prefetch_batch, bytes_max / 4 * 3),
    ];
    lanes.map(|(lane, prefetch_max, bytes_max)| {
        let first = pace::first(prefetch_max, bytes_max, config.limits.body_bytes_max);
        let window = Window::new(first, bytes_max);
        let subscription = broker.subscribe(&lane.queue(model), window);
        (lane, Box::new(subscription) as Box<dyn JobSource>)
    })
}

/// The model that a worker runs.
enum Started {
    /// One that it computes, with the most tokens of its batches.
    Local(Box<Model>, usize),
    /// One that it calls for.
    Remote(Remote),
}

/// Loads the model, and waits for both servers meanwhile.
async fn load_and_connect(
    config: &Config,
    name: &ModelId,
    options: LoadOptions,
    registry: &Registry,
    broker: &Broker,
    store: &Store,
) -> Result<Started, WorkerError> {
    let start = async {
        match config.models.get(name).and_then(|model| model.remote.clone()) {
            Some(remote) => prepare_remote(config, remote, registry).await,
            None => load_blocking(config, name, options, registry).await,
        }
    };
    let (loaded, (), ()) = tokio::try_join!(start, async { Ok(broker.ready().await?) }, async {
        Ok(store.ready().await?)
    },)?;
    Ok(loaded)
}

async fn load_blocking(
    config: &Config,
    name: &ModelId,
    options: LoadOptions,
    registry: &Registry,
) -> Result<Started, WorkerError> {
    let started = Instant::now();
    let config = config.clone();
    let name = name.clone();
    let loading = tokio::task::spawn_blocking(move || {
        let files = config.model_dir(&name).ok().and_then(|folder| Files::of(&folder).ok());
        load(&config, &name, &options).map(|loaded| (loaded, files))
    });
    let ((model, batch_tokens_max), files) =
        loading.await.map_err(|_| WorkerError::StageEnded("load"))??;
    if let Some(files) = files {
        tokio::spawn(report_revision(files, registry.clone()));
    }
    let load_ms = started.elapsed().as_millis() as u64;
    let info = &model.info;
    tracing::info!(
        architecture = info.architecture, dim = info.dim, tokens_max = info.tokens_max,
        device = %info.device, dtype = %info.dtype, threads = info.threads, batch_tokens_max, load_ms,
        "model loaded"
    );
    registry.set_batch_tokens_max(batch_tokens_max);
    if let Some(gpu) = &info.gpu {
        tracing::info!(device = %info.device, name = gpu.name(), memory = ?gpu.memory(), "computing on a GPU");
        registry.set_gpu(gpu.clone());
    }
    registry
        .update(|record| {
            record.device = info.device.to_string();
            record.dtype = info.dtype.to_string();
            record.load_ms = load_ms;
        })
        .await;
    Ok(Started::Local(Box::new(model), batch_tokens_max))
}

/// Makes ready to call an endpoint. It may be away: the jobs are better in their queue than a worker that ends.
async fn prepare_remote(
    config: &Config,
    remote: RemoteConfig,
    registry: &Registry,
) -> Result<Started, WorkerError> {
    let remote = Remote::new(remote, &Tls::load(&config.tls).map_err(ConfigError::from)?)?;
    tracing::info!(url = %remote.endpoint.url(), model = remote.config.model, "calls an endpoint");
    registry
        .update(|record| {
            "remote".clone_into(&mut record.device);
            "remote".clone_into(&mut record.dtype);
        })
        .await;
    Ok(Started::Remote(remote))
}

/// Reports the model's revision once it is known: hashing a large model takes seconds, which no job waits for.
async fn report_revision(files: Files, registry: Registry) {
    match tokio::task::spawn_blocking(move || files.revision()).await {
        Ok(Ok(Some(revision))) => {
            registry.update(|record| record.revision = Some(revision)).await;
        }
        Ok(Ok(None)) => {
            tracing::warn!(
                "the model's files changed while it was loaded; its revision is unknown"
            );
        }
        Ok(Err(error)) => tracing::warn!(%error, "the model's revision is unknown"),
        // The runtime ends.
        Err(_) => {}
    }
}

async fn work_and_drain(
    pipeline: &mut Pipeline,
    stop: &CancellationToken,
    registry: &Registry,
    health: &Health,
    grace: Duration,
) -> Result<(), WorkerError> {
    tokio::select! {
        () = stop.cancelled() => {}
        stage = pipeline.ended() => return Err(WorkerError::StageEnded(stage.unwrap_or("panicked"))),
    }
    health.set("model", Err("draining".into()));
    registry.update(|record| record.state = WorkerState::Draining).await;
    let started = Instant::now();
    if tokio::time::timeout(grace, pipeline.drain()).await.is_ok() {
        tracing::info!(took_ms = started.elapsed().as_millis() as u64, "drained");
    } else {
        tracing::warn!(grace_s = grace.as_secs(), "the grace period is over; the rest goes back");
    }
    if tokio::time::timeout(LEAVE_JOURNAL, pipeline.leave_journal()).await.is_err() {
        tracing::warn!("the store did not remove the in-flight journal: its jobs will be suspects");
    }
    Ok(())
}

/// Distinguishes workers when a process id is reused.
fn started_bits() -> u32 {
    forebay_fabric::clock::now_ms() as u32
}
