//! What the leading autoscaler tells of the fleet: at `/status` and, for whoever has only Redis, in the key
//! [`crate::names::STATUS_KEY`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a status outlives its last refresh, in milliseconds: an older one is nobody's.
pub const STATUS_TTL_MS: u64 = 10_000;

/// The most decisions that are told of one pool.
pub const DECISIONS_REPORTED_MAX: usize = 16;

/// The fleet as its leader sees it. Rewritten every tick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FleetStatus {
    /// Version 1.
    pub v: u64,
    /// The autoscaler that leads; empty while none is known.
    pub leader: String,
    /// Whether the one that tells this is the leader.
    pub leads: bool,
    /// Its fencing token: a higher one leads.
    pub token: u64,
    /// When this was written, in Unix milliseconds.
    pub at_ms: u64,
    /// When its configuration was last read, in Unix milliseconds.
    pub config_read_at_ms: u64,
    /// What is wrong with the fleet as a whole: an observation that fails, a configuration that was refused.
    pub problems: Vec<String>,
    /// One a model, ordered by model.
    pub pools: Vec<PoolStatus>,
}

/// One model's workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolStatus {
    /// The model.
    pub model: String,
    /// What launches its workers: `process`, `docker` or `kubernetes`.
    pub launcher: String,
    /// The fewest workers.
    pub workers_min: u32,
    /// The most workers.
    pub workers_max: u32,
    /// How many are wanted now.
    pub wanted: u32,
    /// Those that load.
    pub starting: u32,
    /// Those that take work.
    pub ready: u32,
    /// Those that finish what they hold.
    pub draining: u32,
    /// Jobs that wait in both lanes; absent when nobody could tell.
    pub jobs_ready: Option<u64>,
    /// Jobs that workers hold; absent when nobody could tell.
    pub jobs_unacknowledged: Option<u64>,
    /// Jobs that arrive, a second.
    pub arrivals_per_s: f64,
    /// Jobs that one worker does, a second.
    pub worker_jobs_per_s: f64,
    /// From launch to ready, in seconds.
    pub cold_start_s: f64,
    /// How long what waits now will take, in seconds; absent without a worker.
    #[serde(alias = "drain_s")]
    pub drain_time_s: Option<f64>,
    /// What is wrong with this pool: a launcher that fails, a queue that can't be seen, a lack of slots.
    pub problems: Vec<String>,
    /// The last decisions that changed something, newest first.
    pub decisions: Vec<DecisionReport>,
}

/// One decision, with its reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionReport {
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// The workers that were wanted until then.
    pub before: u32,
    /// The workers that are wanted from then on.
    pub wanted: u32,
    /// The reason as a word: `backlog`, `idle`, ...
    pub code: String,
    /// The reason as a sentence, with its numbers.
    pub why: String,
}
