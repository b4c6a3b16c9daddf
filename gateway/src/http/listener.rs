//! [`Listener`]: takes connections, serves them, and drains them when it is asked to stop.

use std::{io, net::SocketAddr, time::Duration};

use axum::Router;
use forebay_fabric::config::GatewayConfig;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    activity::{Waits, Watched},
    connections::{Connections, Entry},
    streamed,
};

/// How often connections that take too long are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The pause after a connection could not be taken: the descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The most bytes of a request's head, and of a body that is read ahead of its handler.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// The gateway could not listen.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {source}; set gateway.listen to a free address")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// A bound socket that serves nothing yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// The address that it listens on.
    pub address: SocketAddr,
    connections: Connections,
    grace: Duration,
}

impl Listener {
    /// Binds the address of `config`.
    pub async fn bind(config: &GatewayConfig) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address: config.listen, source };
        let socket = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let waits = Waits {
            header: Duration::from_millis(config.header_wait_ms_max),
            answer: Duration::from_millis(config.answer_wait_ms_max),
            idle: Duration::from_millis(config.idle_wait_ms_max),
        };
        let connections = Connections::new(config.connections_max, waits);
        Ok(Self { socket, address, connections, grace: Duration::from_secs(config.grace_s) })
    }

    /// Serves until `stop`; then takes no more connections, lets requests finish within the grace period, and returns.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let Self { socket, connections, grace, .. } = self;
        let mut served = JoinSet::new();
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while let Some((stream, entry)) =
            stop.run_until_cancelled(take(&socket, &connections, &mut sweep)).await
        {
            while served.try_join_next().is_some() {}
            served.spawn(serve_one(stream, router.clone(), entry, stop.clone()));
        }
        // Further clients are refused at once and go to another replica.
        drop(socket);
        drain(served, &connections, grace).await;
    }
}

/// The next connection that there is room for.
async fn take(
    socket: &TcpListener,
    connections: &Connections,
    sweep: &mut Interval,
) -> (TcpStream, Entry) {
    let next = async {
        let stream = accept(socket).await;
        (stream, connections.enter().await)
    };
    let mut next = std::pin::pin!(next);
    // One that waits for room must not keep those that hold it up from being ended.
    loop {
        tokio::select! {
            next = &mut next => return next,
            _ = sweep.tick() => connections.sweep(),
        }
    }
}

async fn accept(socket: &TcpListener) -> TcpStream {
    loop {
        match socket.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "can't take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits for the requests that run, within the grace period. What is left then is dropped, and its jobs cancelled.
async fn drain(mut served: JoinSet<()>, connections: &Connections, grace: Duration) {
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    let finished = async {
        loop {
            tokio::select! {
                next = served.join_next() => if next.is_none() { return },
                _ = sweep.tick() => connections.sweep(),
            }
        }
    };
    if tokio::time::timeout(grace, finished).await.is_err() {
        let left = served.len();
        tracing::warn!(
            left,
            after_s = grace.as_secs(),
            "requests did not finish; they are dropped"
        );
    }
    served.shutdown().await;
}

async fn serve_one(stream: TcpStream, router: Router, entry: Entry, stop: CancellationToken) {
    // Without it an answer may wait for an acknowledgement of its first half; it fails on a closed socket alone.
    let _ = stream.set_nodelay(true);
    let stream = TokioIo::new(Watched::new(stream, entry.activity.clone()));
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        entry.activity.began();
        let answer = router.call(request);
        let activity = entry.activity.clone();
        async move { answer.await.map(|answer| streamed::follow(answer, &activity)) }
    });
    // A client that leaves ends the connection's future, and with it the handler's.
    let mut builder = http1::Builder::new();
    let connection =
        builder.max_buf_size(BUFFER_BYTES_MAX).half_close(false).serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    // How a connection ends is its client's choice; a request that can't be read was answered by hyper.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = entry.ended.cancelled() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection.as_mut() => {}
        () = entry.ended.cancelled() => {}
    }
}
