//! `[gateway]`: the HTTP gateway's listener and the bounds of its requests.

use std::net::SocketAddr;

use forebay_schemas::ModelId;
use serde::{Deserialize, Serialize};

/// The gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// The address that it serves HTTP on. On a loopback address a fleet without keys asks for none; on any other a key
    /// is always needed. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// The most open connections; for one more, that which has been idle for longest is closed.
    pub connections_max: usize,
    /// The longest that the head of a request may take, and a new connection to its first request, in milliseconds.
    pub header_wait_ms_max: u64,
    /// The longest that the body of a request may take, in milliseconds.
    pub body_wait_ms_max: u64,
    /// The longest that a client may take nothing of its answer, in milliseconds.
    pub answer_wait_ms_max: u64,
    /// The longest that a connection may be idle between two requests, in milliseconds.
    pub idle_wait_ms_max: u64,
    /// The longest that a synchronous request waits for its result, in milliseconds; its jobs expire then.
    pub request_wait_ms_max: u64,
    /// The longest that a look at a job waits for its result, in milliseconds.
    pub poll_wait_ms_max: u64,
    /// The most streams of a job's events at once.
    pub streams_max: usize,
    /// The longest that a stream of a job's events goes on without the job's end, in milliseconds.
    pub stream_wait_ms_max: u64,
    /// The most bytes of vectors that are kept for texts that come again; 0 keeps none.
    pub embedding_cache_bytes_max: usize,
    /// The longest body of a request, in bytes.
    pub body_bytes_max: usize,
    /// The most bytes that the bodies of all requests take together.
    pub held_bytes_max: usize,
    /// The most texts or documents in one request, which may become several jobs.
    pub inputs_max: usize,
    /// The grace period: how long requests may take to finish after the gateway was asked to stop, in seconds.
    pub grace_s: u64,
    /// The model of requests for vectors that name none; the fleet's only model unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed_model: Option<ModelId>,
    /// The model of requests for sparse vectors that name none; the fleet's only model unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparse_model: Option<ModelId>,
    /// The model of requests for a ranking that name none; the fleet's only model unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerank_model: Option<ModelId>,
    /// The model of requests for labels that name none; the fleet's only model unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classify_model: Option<ModelId>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8_080)),
            connections_max: 4_096,
            header_wait_ms_max: 10_000,
            body_wait_ms_max: 60_000,
            answer_wait_ms_max: 60_000,
            // Longer than the 60 s of common load balancers, so that these close first and no request meets the end.
            idle_wait_ms_max: 75_000,
            // The shortest of the usual client time-outs that leave room for a cold start.
            request_wait_ms_max: 300_000,
            poll_wait_ms_max: 60_000,
            streams_max: 1_024,
            stream_wait_ms_max: 3_600_000,
            embedding_cache_bytes_max: 0,
            body_bytes_max: 32 << 20,
            held_bytes_max: 256 << 20,
            inputs_max: 16_384,
            grace_s: 30,
            embed_model: None,
            sparse_model: None,
            rerank_model: None,
            classify_model: None,
        }
    }
}

impl GatewayConfig {
    /// The fewest of each number that works, for the check of the whole configuration.
    pub(super) fn minima(&self) -> [(&'static str, u64, u64); 13] {
        [
            ("gateway.connections_max", self.connections_max as u64, 1),
            // Connections are looked at once a second.
            ("gateway.header_wait_ms_max", self.header_wait_ms_max, 1_000),
            ("gateway.body_wait_ms_max", self.body_wait_ms_max, 1),
            ("gateway.answer_wait_ms_max", self.answer_wait_ms_max, 1_000),
            ("gateway.idle_wait_ms_max", self.idle_wait_ms_max, 1_000),
            ("gateway.request_wait_ms_max", self.request_wait_ms_max, 1),
            ("gateway.poll_wait_ms_max", self.poll_wait_ms_max, 1),
            ("gateway.streams_max", self.streams_max as u64, 1),
            ("gateway.stream_wait_ms_max", self.stream_wait_ms_max, 1),
            ("gateway.body_bytes_max", self.body_bytes_max as u64, 1),
            // Otherwise a body within its own limit could never be held.
            ("gateway.held_bytes_max", self.held_bytes_max as u64, self.body_bytes_max as u64),
            ("gateway.inputs_max", self.inputs_max as u64, 1),
            ("gateway.grace_s", self.grace_s, 1),
        ]
    }
}
