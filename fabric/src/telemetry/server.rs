//! `/metrics`, `/healthz` and `/readyz` on a port of their own.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinHandle, JoinSet},
};
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

/// The most open connections: a handful of scrapers and probes, and a small share of a process's descriptors.
const CONNECTIONS_MAX: usize = 64;
/// The longest that a connection may take, from its first byte to the last of its answer.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// The pause after a connection could not be taken: the descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
            let _ = stopped.run_until_cancelled(serve(listener, router)).await;
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

/// Takes connections until it is dropped, which closes them. When there are too many the oldest is closed: an answer
/// takes a millisecond, so the oldest is one that asks nothing.
async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "can't take a connection to the telemetry port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        oldest_first.retain(|connection| !connection.is_finished());
        if oldest_first.len() >= CONNECTIONS_MAX
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
        }
        oldest_first.push_back(connections.spawn(answer(stream, router.clone())));
    }
}

/// Answers the one request of a connection.
async fn answer(stream: TcpStream, router: Router) {
    // Without it an answer may wait for an acknowledgement of its first half; it fails on a closed socket alone.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A client that goes, or takes too long, is none of ours.
    let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
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

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    async fn started() -> Server {
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Server::start(listen, metrics, Health::default()).await.unwrap()
    }

    async fn asked(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn half_open_requests_keep_no_probe_from_its_answer() {
        let server = started().await;
        let mut half_open = Vec::new();
        for _ in 0..300 {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\n").await.unwrap();
            half_open.push(stream);
        }
        let answer = asked(&server, "GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n");
        let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // Those that were there first are closed, whether or not they had sent anything more.
        let mut rest = Vec::new();
        let closed = half_open[0].read_to_end(&mut rest);
        let closed = tokio::time::timeout(Duration::from_secs(5), closed).await;
        assert!(closed.is_ok(), "the oldest connection is still open");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_connection_ends_with_its_answer_or_with_its_time() {
        let server = started().await;
        // `read_to_string` returns at the end of the connection alone.
        let request = "GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: keep-alive\r\n\r\n";
        assert!(asked(&server, request).await.ends_with("alive\n"));
        tokio::time::pause();
        let unfinished = asked(&server, "GET /healthz HTTP/1.1\r\n").await;
        assert_eq!(unfinished, "");
    }
}
