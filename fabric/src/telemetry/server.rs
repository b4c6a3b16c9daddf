//! `/metrics`, `/healthz` and `/readyz` on a port of their own.

use std::{io, net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::health::Health;

/// The server could not start.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {source}; set telemetry.listen to a free address")]
pub struct ServerError {
    /// The address that it was to listen on.
    address: SocketAddr,
    /// Why it can't listen there.
    source: io::Error,
}

/// A running telemetry server.
#[derive(Debug)]
pub struct Server {
    /// The address that it listens on.
    pub address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    metrics: PrometheusHandle,
    health: Health,
}

/// How often the recorder moves what it collected into its histograms; without it they grow.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

impl Server {
    /// Binds `listen` and serves until stopped.
    pub async fn start(
        listen: SocketAddr,
        metrics: PrometheusHandle,
        health: Health,
    ) -> Result<Self, ServerError> {
        Self::start_with(listen, metrics, health, Router::new()).await
    }

    /// [`Server::start`] with more routes.
    pub async fn start_with(
        listen: SocketAddr,
        metrics: PrometheusHandle,
        health: Health,
        more: Router,
    ) -> Result<Self, ServerError> {
        let failed = |source| ServerError { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = CancellationToken::new();
        tokio::spawn(upkeep(metrics.clone(), stop.clone()));
        let router = Router::new()
            .route("/metrics", get(render))
            .route("/healthz", get(async || "alive\n"))
            .route("/readyz", get(ready))
            .with_state(Shared { metrics, health })
            .merge(more);
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let serve = axum::serve(listener, router);
            tokio::select! {
                result = serve => if let Err(error) = result {
                    tracing::error!(%error, "the telemetry server ended");
                },
                () = stopped.cancelled() => {}
            }
        });
        tracing::info!(%address, "answers /metrics, /healthz and /readyz");
        Ok(Self { address, stop, task })
    }

    /// Stops serving.
    pub async fn stop(self) {
        self.stop.cancel();
        // It ends by itself at the token; a panic in it has been logged by then.
        let _ = self.task.await;
    }
}

async fn upkeep(metrics: PrometheusHandle, stop: CancellationToken) {
    let mut tick = tokio::time::interval(UPKEEP_EVERY);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        metrics.run_upkeep();
    }
}

async fn render(State(shared): State<Shared>) -> Response {
    let text_format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (text_format, shared.metrics.render()).into_response()
}

async fn ready(State(shared): State<Shared>) -> Response {
    let report = shared.health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let json = [(header::CONTENT_TYPE, "application/json")];
    let body = serde_json::to_string(&report).unwrap_or_default();
    (status, json, body + "\n").into_response()
}
