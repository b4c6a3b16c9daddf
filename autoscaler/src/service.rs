//! The autoscaler's life: connect, settle and scale, and leave the fleet in order.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use forebay_fabric::{
    Broker, Config, Store,
    answer::Answerer,
    clock::{self, Clock},
    config::LauncherKind,
    shutdown,
    telemetry::{self, Health, Server},
};
use forebay_schemas::{
    names::{DEAD_SETTLE, UNROUTABLE},
    topology::Topology,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{
    act::{InstanceState, launchers::Launchers},
    lead::Lead,
    observe::Queues,
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
        let id = format!("{}-{}", host(), std::process::id());
        let lease = Duration::from_millis(config.autoscaler.lease_ms);
        let every = Duration::from_millis(config.autoscaler.tick_ms);
        let (lead, keeper) =
            Lead::start(store.clone(), id.clone(), every, lease, background.clone());
        let queues = Queues::new(broker.clone(), &config, background.clone())?;
        let scaler = Scaler {
            config: config.clone(),
            config_file,
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
    let (Ok(launcher), Some(_)) = (scaler.launchers.get(LauncherKind::Process), scaler.lead.held())
    else {
        return;
    };
    let drain_max = Duration::from_secs(scaler.config.autoscaler.drain_s_max);
    let drained = tokio::time::timeout(drain_max, async {
        loop {
            let instances = launcher.list(&[]).await.unwrap_or_default();
            let alive = |state: &InstanceState| !matches!(state, InstanceState::Ended { .. });
            if !instances.iter().any(|instance| alive(&instance.state)) {
                return;
            }
            for instance in instances.iter().filter(|one| one.state == InstanceState::Running) {
                tracing::info!(worker = instance.name, "is told to finish");
                let Ok(model) = instance.model.parse() else { continue };
                if let Err(error) =
                    launcher.drain(&model, std::slice::from_ref(&instance.name)).await
                {
                    tracing::warn!(%error, "it stays for now");
                }
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

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}
