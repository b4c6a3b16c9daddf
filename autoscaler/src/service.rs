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
    telemetry::{self, Health, Server},
};
use forebay_schemas::{
    names::{DEAD_SETTLE, UNROUTABLE},
    topology::Topology,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{
    act::{Instance, InstanceState, Launcher, launchers::Launchers},
    lead::Lead,
    observe::Queues,
    orders::random_digits,
    reload::Reload,
    scaler::Scaler,
    settle::{self, Settler},
    status::Board,
};

/// Messages of one queue that are answered at once.
const PREFETCH: u16 = 64;
/// How often workers that were told to finish are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config, config_file: Option<PathBuf>) -> anyhow::Result<()> {
    let stop = shutdown::on_signal().context("listening for signals")?;
    let reload = Reload::new(config_file.as_deref()).context("listening for SIGHUP")?;
    let health = Health::new(&["broker", "store"]);
    let board = Board::default();
    let metrics = telemetry::init_metrics()?;
    let server =
        Server::start_with(config.telemetry.listen, metrics, health.clone(), board.page()).await?;
    let store = Arc::new(Store::new(&config)?);
    let background = CancellationToken::new();
    store.report_health(health.clone(), background.clone());
    let topology = Topology::new(config.models.keys(), &config.queues);
    let broker = Broker::start(&config, "forebay-autoscaler", topology)?;
    broker.report_health(health);
    if let Some(ready) = stop.run_until_cancelled(broker.ready()).await {
        ready?;
        // Two containers on one host's network may have the same process id.
        let id = format!("{}-{}-{}", host::name(), std::process::id(), random_digits());
        let lease = Duration::from_millis(config.autoscaler.lease_ms);
        let every = Duration::from_millis(config.autoscaler.tick_ms);
        let (lead, keeper) =
            Lead::start(store.clone(), id.clone(), every, lease, background.clone());
        let queues = Queues::new(broker.clone(), &config, background.clone())?;
        let scaler = Scaler {
            config: config.clone(),
            reload,
            broker: broker.clone(),
            store: store.clone(),
            queues,
            lead,
            clock: Clock::of_runtime(clock::now_ms()),
            board,
            id,
            launchers: Launchers::default(),
            pools: BTreeMap::new(),
            pools_token: 0,
            strays: BTreeSet::new(),
        };
        tokio::join!(
            settle_all(&config, &broker, &store, &stop),
            scale(scaler, every, stop.clone())
        );
        background.cancel();
        // It gives the lease up; a panic in it has been logged by then.
        let _ = keeper.await;
    }
    broker.close().await;
    background.cancel();
    server.stop().await;
    Ok(())
}

async fn settle_all(
    config: &Config,
    broker: &Broker,
    store: &Arc<Store>,
    stop: &CancellationToken,
) {
    let answerer = Answerer {
        signature: format!("autoscaler-{}", std::process::id()),
        store: store.clone(),
        publisher: Arc::new(broker.clone()),
        attempts_max: config.worker.attempts_max,
        clock: Clock::default(),
    };
    let settle = |queue, how| {
        let subscription = broker.subscribe(queue, PREFETCH);
        Settler { answerer: answerer.clone(), limits: config.limits.clone(), how }
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
        take_processes_along(&scaler).await;
    }
}

/// Workers that are processes beside us go with us, unless another autoscaler leads.
async fn take_processes_along(scaler: &Scaler) {
    let Ok(launcher) = scaler.launchers.get(LauncherKind::Process) else { return };
    let token = scaler.pools_token;
    // Without Redis nobody leads, and what we launched is still ours to end.
    let ours = async || scaler.lead.may_act(token).await || scaler.lead.leader().error.is_some();
    let drain_max = Duration::from_secs(scaler.config.autoscaler.grace_s);
    let drained = tokio::time::timeout(drain_max, async {
        while ours().await {
            match launcher.list(&[]).await {
                Ok(instances) if drain_all(&**launcher, &instances).await == 0 => return,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "can't see which workers are left"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    if drained.await.is_err() {
        tracing::warn!(
            after_s = drain_max.as_secs(),
            "some workers have not finished; they are left"
        );
    }
}

/// Tells all that run to finish. How many are left.
async fn drain_all(launcher: &dyn Launcher, instances: &[Instance]) -> usize {
    for instance in instances.iter().filter(|one| one.state == InstanceState::Running) {
        tracing::info!(worker = instance.name, "is told to finish");
        let Ok(model) = instance.model.parse() else { continue };
        let names = std::slice::from_ref(&instance.name);
        if let Err(error) = launcher.drain(&model, names).await {
            tracing::warn!(%error, "it stays for now");
        }
    }
    let alive = |one: &&Instance| !matches!(one.state, InstanceState::Ended { .. });
    instances.iter().filter(alive).count()
}
