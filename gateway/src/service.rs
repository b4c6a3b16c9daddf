//! The gateway's life: listen, connect, serve, and leave in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use forebay_client::Client;
use forebay_fabric::{
    Config,
    clock::now_ms,
    host, shutdown,
    telemetry::{self, Health, Server, trace},
    usage::keep_rolling,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    fleet::{Cache, Canceller, Fleet},
    http::{App, BYTES_PER_PERMIT, Gate, Listener, LongWork, make_room, router},
    routing::{Outlooks, Table},
};

/// How long the last cancellations and settlements may take when the gateway stops.
const LAST_CALLS_MAX: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let stop = shutdown::on_signal().context("listening for signals")?;
    let health = Health::new(&["broker", "store"]);
    let metrics = telemetry::init_metrics()?;
    let server = Server::start(config.telemetry.listen, metrics, health.clone()).await?;
    let instance = format!("{}-{}", host::name(), std::process::id());
    let traces = trace::start(&config.telemetry, &config.tls, "forebay-gateway", &instance)?;
    make_room(config.gateway.connections_max);
    let listener = Listener::bind(&config.gateway).await?;
    let client = Client::connect(&config)?;
    let background = CancellationToken::new();
    let (canceller, cancels) = Canceller::start(client.clone(), background.clone());
    let is_local = listener.address.ip().is_loopback();
    keep_rolling(client.store(), &config.usage, background.clone());
    let gate = Gate::start(client.store(), is_local, &background);
    let bytes_max = config.gateway.embedding_cache_bytes_max;
    let cache = Cache::start(&client, bytes_max, &background);
    let mut app = app(&config, &client, (gate, canceller), health.clone(), stop.clone());
    app.fleet = app.fleet.cached(cache);
    let app = Arc::new(app);
    let router = router(app.clone());
    announce(listener.address, is_local);
    let connected = async {
        match stop.run_until_cancelled(client.report_health(&health, &background)).await {
            Some(Err(error)) => {
                stop.cancel();
                Err(error)
            }
            Some(Ok(())) | None => Ok(()),
        }
    };
    let (connected, ()) = tokio::join!(connected, listener.serve(router, stop.clone()));
    background.cancel();
    let settled = async { tokio::join!(cancels, app.gate.drain()) };
    if tokio::time::timeout(LAST_CALLS_MAX, settled).await.is_err() {
        tracing::warn!(
            "some jobs of callers that left were not cancelled, or not settled; they expire"
        );
    }
    client.close().await;
    trace::stop(traces).await;
    server.stop().await;
    Ok(connected?)
}

/// Says who is served: an operator who sees that all are refused reads here why.
fn announce(address: SocketAddr, is_local: bool) {
    if is_local {
        tracing::info!(
            %address,
            "serves HTTP to this machine only; until there are keys it asks for none, and all requests are those of \
             tenant `default`"
        );
    } else {
        tracing::info!(
            %address,
            "serves HTTP to callers that have a key; `forebay tenants create` and `forebay keys create` make one"
        );
    }
}

fn app(
    config: &Config,
    client: &Client,
    (gate, canceller): (Gate, Canceller),
    health: Health,
    stop: CancellationToken,
) -> App {
    let bytes_max = config.limits.body_bytes_max.min(config.broker.message_bytes_max);
    App {
        fleet: Fleet::new(client.clone(), canceller, config.limits.inputs_max, bytes_max),
        gate,
        routes: Table::new(config),
        outlooks: Outlooks::new(client.clone()),
        prices: config
            .models
            .iter()
            .filter_map(|(model, settings)| Some((model.clone(), settings.price?)))
            .collect(),
        config: config.gateway.clone(),
        limits: config.limits.clone(),
        health,
        held: Arc::new(Semaphore::new(config.gateway.held_bytes_max.div_ceil(BYTES_PER_PERMIT))),
        long_work: LongWork::new(),
        streams: Arc::new(Semaphore::new(config.gateway.streams_max)),
        started_at_s: u32::try_from(now_ms() / 1_000).unwrap_or(u32::MAX),
        stop,
    }
}
