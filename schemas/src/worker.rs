//! A worker's entry in the registry: who it is, what it does, how it fares.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a worker stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Loads its weights.
    Starting,
    /// Takes work.
    Ready,
    /// Finishes what it holds and takes no more.
    Draining,
}

/// Written to `forebay:worker:<id>` every [`HEARTBEAT_INTERVAL_MS`], gone [`HEARTBEAT_TTL_MS`] after the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerRecord {
    /// The worker's own name.
    pub id: String,
    /// The model it runs.
    pub model: String,
    /// Where it stands.
    pub state: WorkerState,
    /// `cpu` or `cuda:<n>`.
    pub device: String,
    /// `f32`, `bf16` or `f16`.
    pub dtype: String,
    /// The host's name.
    pub host: String,
    /// The process id on that host.
    pub pid: u32,
    /// The worker's version.
    pub version: String,
    /// When it started, in Unix milliseconds.
    pub started_at_ms: u64,
    /// When it last wrote this record, in Unix milliseconds.
    pub beat_at_ms: u64,
    /// When it last finished a batch or found nothing to do, in Unix milliseconds.
    pub progress_at_ms: u64,
    /// Jobs taken and not yet settled.
    pub in_flight: u64,
    /// Jobs settled since it started.
    pub jobs_done: u64,
    /// Tokens computed since it started.
    pub tokens_done: u64,
    /// Milliseconds spent computing since it started.
    pub busy_ms: u64,
    /// Milliseconds that loading the model took.
    pub load_ms: u64,
    /// Tokens that still fit into the batch being filled.
    pub slots_free_tokens: u64,
    /// The GPU that it computes on, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuRecord>,
}

/// A worker's GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuRecord {
    /// What it calls itself.
    pub name: String,
    /// Bytes of its memory that all processes use.
    pub memory_used_bytes: u64,
    /// Bytes of its memory.
    pub memory_bytes: u64,
}

/// How often a worker refreshes its record, in milliseconds.
pub const HEARTBEAT_INTERVAL_MS: u64 = 2_000;
/// How long a record outlives its last refresh, in milliseconds.
pub const HEARTBEAT_TTL_MS: u64 = 10_000;
