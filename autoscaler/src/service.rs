//! The autoscaler's life: connect, settle and scale, and leave the fleet in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use forebay_fabric::{
    Broker, Config, Store,
    answer::Answerer,
    clock::{self, Clock},
    config::LauncherKind,
    host, shutdown,
    store::Registered,
    telemetry::{self, Health, Server, trace},
    usage::keep_rolling,
};
use forebay_schemas::{
    names::{DEAD_SETTLE, UNROUTABLE},
    topology::Topology,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{
    act::{Instance, launchers::Launchers},
    deadlines::Deadlines,
    declaring::Declaring,
    lead::Lead,
    leaving::Leaving,
    observe::{Proofs, Queues},
    reload::Reload,
    removed::Removed,
    scaler::{Scaler, timeouts},
    settle::{self, Settler},
    status::Board,
    unique::random_digits,
};

/// How often processes that drain are looked at while the autoscaler stops.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long processes that did not drain in time may take until they are gone after they were ended.
const END_MAX: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config, config_file: Option<PathBuf>) -> anyhow::Result<()> {
    let stop = shutdown::on_signal().context("listening for signals")?;
    let reload = Reload::new(config_file.as_deref()).context("listening for SIGHUP")?;
    let health = Health::new(&["broker", "store"]);
    let board = Board::default();
    let metrics = telemetry::init_metrics()?;
    let server =
        Server::start_with(config.telemetry.listen, metrics, health.clone(), board.page()).await?;
    let instance = format!("{}-{}", host::name(), std::process::id());
    let traces = trace::start(&config.telemetry, &config.tls, "forebay-autoscaler", &instance)?;
    let store = Arc::new(Store::new(&config)?);
    let background = CancellationToken::new();
    store.report_health(health.clone(), background.clone());
    keep_rolling(&store, &config.usage, background.clone());
    let topology = Topology::new(config.models.keys(), &config.queues);
    let broker = Broker::start(&config, "forebay-autoscaler", topology)?;
    broker.report_health(health);
    if let Some(ready) = stop.run_until_cancelled(ready(&broker, &store)).await {
        ready?;
        // Two containers on one host's network may have the same process id.
        let id = format!("{}-{}-{}", host::name(), std::process::id(), random_digits());
        let lease = Duration::from_millis(config.autoscaler.lease_ms);
        let every = Duration::from_millis(config.autoscaler.tick_ms);
        let (lead, keeper) =
            Lead::start(store.clone(), id.clone(), every, lease, background.clone());
        let proofs = Proofs::new(&config)?;
        let queues = Queues::new(broker.clone(), proofs, &config, background.clone())?;
        let answerer = answerer(&config, &broker, &store);
        let limits = config.limits.clone();
        let delivery_limit = config.queues.delivery_limit;
        let deadlines = Deadlines::new(broker.clone(), answerer.clone(), limits, delivery_limit);
        let scaler = Scaler {
            removed: Removed::new(broker.clone(), answerer.clone(), &config),
            config: config.clone(),
            reload,
            declaring: Declaring::new(broker.clone()),
            store: store.clone(),
            queues,
            deadlines,
            lead,
            clock: Clock::of_runtime(clock::now_ms()),
            board,
            id,
            launchers: Launchers::default(),
            pools: BTreeMap::new(),
            pools_token: 0,
            former_launchers: BTreeSet::new(),
            leaving: BTreeMap::new(),
        };
        tokio::join!(
            settle_all(&config, &broker, &answerer, &stop),
            scale(scaler, every, stop.clone())
        );
        background.cancel();
        // It gives the lease up; a panic in it has been logged by then.
        let _ = keeper.await;
    }
    broker.close().await;
    background.cancel();
    trace::stop(traces).await;
    server.stop().await;
    Ok(())
}

/// Waits for both servers; an error that waiting does not mend is returned at once.
async fn ready(broker: &Broker, store: &Store) -> anyhow::Result<()> {
    tokio::try_join!(async { anyhow::Ok(broker.ready().await?) }, async {
        Ok(store.ready().await?)
    })?;
    Ok(())
}

fn answerer(config: &Config, broker: &Broker, store: &Arc<Store>) -> Answerer {
    Answerer {
        worker_id: format!("autoscaler-{}", std::process::id()),
        store: store.clone(),
        publisher: Arc::new(broker.clone()),
        attempts_max: config.worker.attempts_max,
        clock: Clock::default(),
    }
}

async fn settle_all(
    config: &Config,
    broker: &Broker,
    answerer: &Answerer,
    stop: &CancellationToken,
) {
    let settle = |queue, error_for| {
        let subscription = broker.subscribe(queue, settle::window());
        Settler { answerer: answerer.clone(), limits: config.limits.clone(), error_for }
            .run(subscription, stop.clone())
    };
    tokio::join!(settle(UNROUTABLE, settle::unroutable), settle(DEAD_SETTLE, settle::dead));
}

async fn scale(mut scaler: Scaler, every: Duration, stop: CancellationToken) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = async {
            tokio::select! {
                _ = tick.tick() => {}
                () = scaler.reload.hung_up() => tracing::info!("SIGHUP: reads the configuration"),
            }
        };
        if stop.run_until_cancelled(next).await.is_none() {
            break;
        }
        scaler.tick().await;
    }
    if !scaler.config.autoscaler.process.leave_on_stop {
        stop_processes(&scaler).await;
    }
}

/// Drains the workers that are processes on this host, unless another autoscaler leads, and waits until they are gone.
async fn stop_processes(scaler: &Scaler) {
    let Ok(launcher) = scaler.launchers.get(LauncherKind::Process) else { return };
    let permit = scaler.lead.permit_to_stop(scaler.pools_token);
    let timeouts = timeouts(&scaler.config.autoscaler);
    let mut leaving = Leaving::default();
    let gone = async {
        while permit.holds().await {
            match launcher.list(&[]).await {
                Ok(instances) if !instances.iter().any(Instance::is_alive) => return,
                Ok(instances) => {
                    // They are to leave whatever they report: the registry is not asked.
                    let now_ms = scaler.clock.now_ms();
                    let records = Some(&Registered::default());
                    leaving
                        .step(now_ms, &instances, records, &**launcher, &timeouts, &permit)
                        .await;
                }
                Err(error) => tracing::warn!(%error, "can't see which workers are left"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let limit = Duration::from_millis(timeouts.drain_ms) + END_MAX;
    if tokio::time::timeout(limit, gone).await.is_err() {
        tracing::warn!(after_s = limit.as_secs(), "some workers have not ended; they are left");
    }
}
