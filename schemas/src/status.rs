//! The fleet's status as the leading autoscaler reports it: at `/status` and, for clients that have only Redis, in
//! the key [`crate::names::STATUS_KEY`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a status outlives its last refresh, in milliseconds: an older one is stale.
pub const STATUS_TTL_MS: u64 = 10_000;

/// The most decisions that are reported of one pool.
pub const DECISIONS_REPORTED_MAX: usize = 16;

/// The fleet as its leader sees it. Rewritten every tick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FleetStatus {
    /// The contract's version: 1.
    pub v: u64,
    /// The autoscaler that leads; empty while none is known.
    pub leader: String,
    /// Whether the autoscaler that reports this is the leader.
    pub leads: bool,
    /// The leader's fencing token: of two leaders, the one with the higher token leads.
    pub token: u64,
    /// When this was written, in Unix milliseconds.
    pub at_ms: u64,
    /// When its configuration was last read, in Unix milliseconds.
    pub config_read_at_ms: u64,
    /// Problems of the fleet as a whole: an observation that fails, a configuration that was refused.
    pub problems: Vec<String>,
    /// One pool a model, ordered by model.
    pub pools: Vec<PoolStatus>,
}

/// One model's workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolStatus {
    /// The model.
    pub model: String,
    /// The launcher of its workers: `process`, `docker` or `kubernetes`.
    pub launcher: String,
    /// The fewest workers.
    pub workers_min: u32,
    /// The most workers.
    pub workers_max: u32,
    /// The size that was granted: what the load asks for, as far as device slots allow it.
    pub wanted: u32,
    /// Workers that load their model.
    pub starting: u32,
    /// Workers that take work.
    pub ready: u32,
    /// Workers that finish what they hold.
    pub draining: u32,
    /// Jobs that wait in both lanes; absent when it is unknown.
    pub jobs_ready: Option<u64>,
    /// Those of them in the interactive lane, which go first; absent when it is unknown.
    #[serde(default)]
    pub jobs_ready_interactive: Option<u64>,
    /// Jobs that workers hold; absent when it is unknown.
    pub jobs_unacknowledged: Option<u64>,
    /// Jobs that arrive, a second.
    pub arrivals_per_s: f64,
    /// Jobs that one worker does, a second.
    pub worker_jobs_per_s: f64,
    /// The backlog in tokens of prompts and outputs, running sequences included; absent where jobs are counted, or
    /// while it is unknown.
    #[serde(default)]
    pub backlog_tokens: Option<f64>,
    /// Tokens that a job needs; absent in the same cases.
    #[serde(default)]
    pub job_tokens: Option<f64>,
    /// Tokens that one worker computes a second while it runs all it can; absent in the same cases.
    #[serde(default)]
    pub worker_tokens_per_s: Option<f64>,
    /// From launch to ready, in seconds.
    pub cold_start_s: f64,
    /// The drain time: how long the waiting jobs will take, in seconds; absent without a worker.
    #[serde(alias = "drain_s")]
    pub drain_time_s: Option<f64>,
    /// Ready workers of a remote model whose circuit is open: its endpoint fails, and they don't call it.
    #[serde(default)]
    pub circuits_open: u32,
    /// Problems of this pool: a launcher that fails, a queue that can't be seen, a lack of slots.
    pub problems: Vec<String>,
    /// The last decisions that changed something, newest first.
    pub decisions: Vec<DecisionReport>,
}

/// One decision, with its reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionReport {
    /// When it was made, in Unix milliseconds.
    pub at_ms: u64,
    /// The size that was granted until then.
    pub before: u32,
    /// The size that is granted from then on.
    pub wanted: u32,
    /// The reason as a word: `backlog`, `idle`, ...
    pub code: String,
    /// The reason as a sentence, with its numbers.
    pub why: String,
}
