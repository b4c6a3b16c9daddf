//! A worker's entry in the registry: its identity, its state, and its counters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The stage of a worker's life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// It loads its weights.
    Starting,
    /// It takes work.
    Ready,
    /// It finishes the jobs that it holds and takes no more.
    Draining,
}

/// A heartbeat, written to `forebay:worker:<id>` every [`HEARTBEAT_INTERVAL_MS`]; the key expires
/// [`HEARTBEAT_TTL_MS`] after the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerRecord {
    /// The worker's own name.
    pub id: String,
    /// The model it runs.
    pub model: String,
    /// The stage of its life cycle.
    pub state: WorkerState,
    /// `cpu` or `cuda:<n>`.
    pub device: String,
    /// `f32`, `bf16`, `f16`, `int8` or `q4`.
    pub dtype: String,
    /// The host's name.
    pub host: String,
    /// The process id on that host.
    pub pid: u32,
    /// The worker's version.
    pub version: String,
    /// When it started, in Unix milliseconds.
    pub started_at_ms: u64,
    /// When it last wrote this record (its last heartbeat), in Unix milliseconds.
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
    /// The GPU that it computes on; absent on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuRecord>,
    /// The endpoint that it calls; absent for a worker that computes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteRecord>,
    /// The memory and the sequences of a model that generates text; absent for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<GenerateRecord>,
    /// A hash of the model's files; absent until it is known, soon after the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// The memory and the sequences of a worker whose model generates text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GenerateRecord {
    /// Pages for keys and values that it has.
    pub pages: u64,
    /// Those of them that a new sequence can have.
    pub pages_free: u64,
    /// Sequences that run.
    pub running: u64,
    /// Jobs that wait for their turn here.
    pub waiting: u64,
    /// Tokens of output since it started.
    pub tokens: u64,
    /// Sequences that can run at once. This and all that follows is absent while it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_max: Option<u64>,
    /// Tokens that the sequences which run are expected to need yet, of prompt and output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_tokens: Option<u64>,
    /// Tokens that the jobs which wait here are expected to need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_tokens: Option<u64>,
    /// Tokens that a job needs, prompt and output together: the mean of those that ended lately and of those that run
    /// or wait, without what was remembered of prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_job: Option<u64>,
    /// Tokens of prompts computed a second, over some ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_per_s: Option<u64>,
    /// Tokens of output a second, over some ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens_per_s: Option<u64>,
    /// Pages of the sequences that run: what other workers compute again if this one drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages_held: Option<u64>,
    /// Bytes that the keys and values of a token take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_token: Option<u64>,
    /// The share of the last prompts' tokens that were remembered and not computed, in hundredths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_hit_percent: Option<u64>,
}

/// The endpoint of a remote model, as one of its workers finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemoteRecord {
    /// Whether it is called.
    pub circuit: CircuitState,
}

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// The endpoint is called.
    Closed,
    /// It failed too often, and is not called for a while.
    Open,
    /// One call tries whether it is back.
    HalfOpen,
}

/// A worker's GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuRecord {
    /// The name that its driver reports.
    pub name: String,
    /// Bytes of its memory that are used, by all processes together.
    pub memory_used_bytes: u64,
    /// Bytes of memory that it has.
    pub memory_bytes: u64,
}

/// How often a worker refreshes its record, in milliseconds.
pub const HEARTBEAT_INTERVAL_MS: u64 = 2_000;
/// How long a record outlives its last refresh, in milliseconds.
pub const HEARTBEAT_TTL_MS: u64 = 10_000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FIRST: &str = r#"{"pages":10,"pages_free":4,"running":2,"waiting":1,"tokens":500}"#;

    #[test]
    fn a_record_of_an_earlier_version_is_read_and_what_it_lacks_is_unknown() {
        let record: GenerateRecord = serde_json::from_str(FIRST).unwrap();
        let counted = GenerateRecord {
            pages: 10,
            pages_free: 4,
            running: 2,
            waiting: 1,
            tokens: 500,
            ..record
        };
        assert_eq!(record, counted);
        let unknown = [record.running_max, record.running_tokens, record.waiting_tokens];
        assert_eq!(unknown, [None; 3]);
        assert_eq!(serde_json::to_string(&record).unwrap(), FIRST, "nor is zero written for it");
    }

    #[test]
    fn fields_of_a_later_version_are_left_out() {
        let later = FIRST.replace('}', r#","running_tokens":7,"of_tomorrow":{"a":1}}"#);
        let record: GenerateRecord = serde_json::from_str(&later).unwrap();
        assert_eq!(record.running_tokens, Some(7));
    }
}
