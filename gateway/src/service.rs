//! The gateway's life: listen, connect, serve, and leave in order.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use forebay_client::Client;
use forebay_fabric::{
    Config,
    clock::now_ms,
    shutdown,
    telemetry::{self, Health, Server},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    fleet::{Canceller, Fleet},
    http::{App, BYTES_PER_PERMIT, Listener, router},
};

/// How long the last cancellations may take when the gateway stops.
const CANCELS_MAX: Duration = Duration::from_secs(5);

/// The gateway is to listen where others than this machine's users could reach it.
#[derive(Debug, thiserror::Error)]
#[error(
    "gateway.listen is {address}, and there are no keys: without any key the gateway listens on loopback only; set it \
     to 127.0.0.1:8080, and put a proxy that authenticates in front of it"
)]
pub struct Exposed {
    address: std::net::SocketAddr,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let address = config.gateway.listen;
    if !address.ip().is_loopback() {
        return Err(Exposed { address }.into());
    }
    let stop = shutdown::on_signal().context("listening for signals")?;
    let health = Health::new(&["broker", "store"]);
    let metrics = telemetry::init_metrics()?;
    let server = Server::start(config.telemetry.listen, metrics, health.clone()).await?;
    let listener = Listener::bind(&config.gateway).await?;
    let client = Client::connect(&config)?;
    let background = CancellationToken::new();
    let (canceller, cancels) = Canceller::start(client.clone(), background.clone());
    let app = Arc::new(app(&config, &client, canceller, health.clone(), stop.clone()));
    tracing::info!(
        address = %listener.address,
        "serves HTTP to this machine only: there are no keys, and all requests are those of tenant `default`"
    );
    let connected = async {
        match stop.run_until_cancelled(client.report_health(&health, &background)).await {
            Some(Err(error)) => {
                stop.cancel();
                Err(error)
            }
            Some(Ok(())) | None => Ok(()),
        }
    };
    let (connected, ()) = tokio::join!(connected, listener.serve(router(app), stop.clone()));
    background.cancel();
    if tokio::time::timeout(CANCELS_MAX, cancels).await.is_err() {
        tracing::warn!("some jobs of callers that left were not cancelled; they expire");
    }
    client.close().await;
    server.stop().await;
    Ok(connected?)
}

fn app(
    config: &Config,
    client: &Client,
    canceller: Canceller,
    health: Health,
    stop: CancellationToken,
) -> App {
    let bytes_max = config.limits.body_bytes_max.min(config.broker.message_bytes_max);
    App {
        fleet: Fleet::new(client.clone(), canceller, config.limits.inputs_max, bytes_max),
        config: config.gateway.clone(),
        limits: config.limits.clone(),
        health,
        held: Arc::new(Semaphore::new(config.gateway.held_bytes_max.div_ceil(BYTES_PER_PERMIT))),
        started_at_s: u32::try_from(now_ms() / 1_000).unwrap_or(u32::MAX),
        stop,
    }
}
