//! The bounds that a job must keep. The fields of [`Limits`] are configurable and have the contract's defaults; the
//! constants are the same in every fleet.

use serde::{Deserialize, Serialize};

/// Bounds that differ between fleets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The longest body of a message, in bytes.
    pub body_bytes_max: usize,
    /// The most texts (or documents, or messages) in one job.
    pub inputs_max: usize,
    /// How deep maps and lists may nest in a body.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes_max: 8 * 1024 * 1024, inputs_max: 2_048, depth_max: 32 }
    }
}

/// The most pairs in `metadata`.
pub const METADATA_PAIRS_MAX: usize = 16;
/// The longest key in `metadata`, in characters.
pub const METADATA_KEY_CHARS_MAX: usize = 64;
/// The longest value in `metadata`, in characters.
pub const METADATA_VALUE_CHARS_MAX: usize = 512;
/// The longest `tenant`, in characters.
pub const TENANT_CHARS_MAX: usize = 128;
/// The longest name of a `notify` channel, in characters.
pub const NOTIFY_CHARS_MAX: usize = 256;
/// The most `stop` strings of a generation.
pub const STOPS_MAX: usize = 16;
/// The longest `stop` string, in characters.
pub const STOP_CHARS_MAX: usize = 256;
/// The most `stop_token_ids` of a generation.
pub const STOP_TOKENS_MAX: usize = 256;
/// The most token ids that a `logit_bias` has.
pub const LOGIT_BIAS_MAX: usize = 1_024;
/// The most that a `logit_bias` adds to a logit, or takes off it: as much as forbids a token or leaves no other.
pub const LOGIT_BIAS_ABS_MAX: f32 = 100.0;
/// The most alternatives for which log-probabilities are returned beside a token's own.
pub const LOGPROBS_MAX: u32 = 20;
/// The most `tools` that a prompt is given.
pub const TOOLS_MAX: usize = 128;
/// The most texts of a `choice`.
pub const CHOICES_MAX: usize = 1_024;
/// The longest text of a `choice`, and the longest `regex`, in characters.
pub const GUIDE_CHARS_MAX: usize = 8_192;
/// The most tool calls of one message.
pub const TOOL_CALLS_MAX: usize = 128;
/// The longest name of a speaker or a tool, and the longest id of a tool's call, in characters.
pub const CALL_NAME_CHARS_MAX: usize = 256;
/// The most values of a field that is any JSON: each takes some dozen bytes of memory, even if it is one on the wire.
pub const JSON_VALUES_MAX: usize = 65_536;
/// The most values of a sparse vector; the largest of a text that has more are kept.
pub const SPARSE_VALUES_MAX: u32 = 1_024;
/// The most token ids in one job, all its sequences together: as many sequences of 512 tokens as a job may have texts.
/// As numbers in memory they take no more than the longest body.
pub const TOKEN_IDS_MAX: usize = 1 << 20;
/// The most bytes that the token vectors of one job take, as 32-bit floats.
pub const TOKEN_VECTORS_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How long a result is kept unless the job says otherwise, in seconds: one day.
pub const RESULT_TTL_S_DEFAULT: u64 = 86_400;
/// The longest that a job may ask for its result to be kept, in seconds: thirty days.
pub const RESULT_TTL_S_MAX: u64 = 2_592_000;
/// No `submitted_at_ms` of a job lies before this, in 1973: as seconds it is the year 5138.
pub const SUBMITTED_AT_MS_MIN: u64 = 100_000_000_000;
/// No `submitted_at_ms` of a job lies after this, in the year 5138: as microseconds it is 1973.
pub const SUBMITTED_AT_MS_MAX: u64 = 99_999_999_999_999;
/// How far ahead of the worker's clock a job may say that it was submitted, in milliseconds: a day.
pub const SUBMITTED_AHEAD_MS_MAX: u64 = 86_400_000;
