//! Names: ids with their alphabets, and what queues, keys and headers are called.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The exchange that every job is published to.
pub const JOBS: &str = "forebay.jobs";
/// Exchange and queue of jobs whose routing key matches no model.
pub const UNROUTABLE: &str = "forebay.unroutable";
/// Exchange of dead letters, and the queue that keeps them for people.
pub const DEAD: &str = "forebay.dead";
/// The queue with a copy of each dead letter that is still to be answered.
pub const DEAD_SETTLE: &str = "forebay.dead.settle";
/// Header: the number of earlier attempts at this job.
pub const HEADER_ATTEMPTS: &str = "x-forebay-attempts";
/// Header on a dead letter that Forebay itself published: why it is there.
pub const HEADER_REASON: &str = "x-forebay-reason";
/// The Redis key of the sorted set of workers that have an in-flight journal.
pub const COMPUTING_INDEX: &str = "forebay:computing";
/// How every worker's registry key begins.
pub const WORKER_KEY_PREFIX: &str = "forebay:worker:";
/// The Redis key of the sorted set of workers that may be alive, by their last heartbeat on Redis' clock.
pub const WORKER_INDEX: &str = "forebay:workers";
/// The Redis key of the fleet's status, written by the leading autoscaler.
pub const STATUS_KEY: &str = "forebay:autoscaler:status";
/// The Redis key of the autoscalers' leader election: a lease that names the leader and expires.
pub const LEASE_KEY: &str = "forebay:autoscaler:lease";
/// The Redis key of the last fencing token that was given out.
pub const TOKEN_KEY: &str = "forebay:autoscaler:token";

/// The Redis key of the hash of tenants, by their ids.
pub const TENANTS_KEY: &str = "forebay:tenants";
/// The Redis key of the hash of API keys, by their public ids.
pub const KEYS_KEY: &str = "forebay:keys";
/// The Redis channel on which every change to a tenant or to an API key is published.
pub const ACCESS_CHANNEL: &str = "forebay:access";
/// The Redis channel on which the waiting request is named whose turn it is to have an in-flight slot.
pub const TURNS_CHANNEL: &str = "forebay:turns";

/// The Redis key of the stream of usage: an entry for each terminal record, written with it.
pub const USAGE_STREAM: &str = "forebay:usage";
/// The Redis key of the set of tenants that have usage.
pub const USAGE_TENANTS_KEY: &str = "forebay:usage:tenants";
/// Header: the public id of the API key that a job came with, set by the gateway.
pub const HEADER_API_KEY: &str = "x-forebay-api-key";

/// A text that is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The model id has a wrong character or length.
    #[error(
        "`{0}` is not a model id: use 1 to 63 of a-z, 0-9, `.`, `_`, `-`, starting with a-z or 0-9"
    )]
    Model(String),
    /// The job id has a wrong character or length.
    #[error("`{0}` is not a job id: use 1 to 64 of A-Z, a-z, 0-9, `_`, `-`")]
    Job(String),
    /// The tenant's id has a wrong character or length.
    #[error(
        "`{0}` is not a tenant's id: use 1 to 63 of a-z, 0-9, `.`, `_`, `-`, starting with a-z or 0-9"
    )]
    Tenant(String),
    /// The public id of an API key has a wrong character or length.
    #[error(
        "`{0}` is not the id of a key: it is {KEY_ID_CHARS} of a-z and 0-9, as in fbk_<id>_<secret>"
    )]
    Key(String),
    /// The lane is unknown.
    #[error("`{0}` is not a lane: use `interactive` or `batch`")]
    Lane(String),
}

/// At most this much of a wrong name is repeated in its error.
const NAME_SHOWN_CHARS_MAX: usize = 80;

pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(NAME_SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// A model's name in queues, jobs and configuration: `[a-z0-9][a-z0-9._-]{0,62}`.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct ModelId(#[schemars(regex(pattern = r"^[a-z0-9][a-z0-9._-]{0,62}$"))] String);

/// A job's name, chosen by its publisher and unguessable: `[A-Za-z0-9_-]{1,64}`.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(#[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,64}$"))] String);

/// The id of a tenant, which jobs are accounted to and whose limits hold: `[a-z0-9][a-z0-9._-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(String);

/// The length of an API key's public id.
pub const KEY_ID_CHARS: usize = 12;

/// The public id of an API key, by which it is found and named: twelve of `a-z` and `0-9`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

/// Whether a text is `[a-z0-9][a-z0-9._-]{0,62}`.
fn is_plain_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && plain(bytes[0])
        && bytes.iter().all(|&b| plain(b) || b"._-".contains(&b))
}

impl FromStr for ModelId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_plain_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Model(shown(text)))
        }
    }
}

impl FromStr for TenantId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_plain_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Tenant(shown(text)))
        }
    }
}

impl FromStr for KeyId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = text.len() == KEY_ID_CHARS
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if good { Ok(Self(text.to_owned())) } else { Err(NameError::Key(shown(text))) }
    }
}

impl TenantId {
    /// The Redis key of one part of this tenant's limits. All parts share a hash tag, so that one script reaches them
    /// on Redis Cluster too.
    pub fn limits_key(&self, part: &str) -> String {
        limits_key(self.as_str(), part)
    }
}

impl FromStr for JobId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let good = (1..=64).contains(&bytes.len())
            && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        if good { Ok(Self(text.to_owned())) } else { Err(NameError::Job(shown(text))) }
    }
}

impl JobId {
    /// A new UUIDv7: ordered by time, with 74 random bits.
    pub fn random() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }

    /// The Redis key of this job's result.
    pub fn result_key(&self) -> String {
        format!("forebay:result:{self}")
    }

    /// The Redis key of the stream of the tokens that this job has generated so far.
    pub fn tokens_key(&self) -> String {
        format!("forebay:tokens:{self}")
    }

    /// The Redis key of the set of workers that this job is suspected to have crashed (crash attribution).
    pub fn suspect_key(&self) -> String {
        format!("forebay:suspect:{self}")
    }

    /// The Redis key whose presence asks for this job's cancellation.
    pub fn cancel_key(&self) -> String {
        format!("forebay:cancel:{self}")
    }
}

/// Exchange and queue of messages that are tried again after the back-off `step`, such as `30s`, and whose routing key
/// matches no model's own retry queue. Earlier versions published all of them there.
pub fn retry(step: &str) -> String {
    format!("forebay.retry.{step}")
}

/// The exchange that brings messages to their model's own queue of the back-off `step`, by their routing key.
pub fn retry_of_models(step: &str) -> String {
    format!("forebay.retry.{step}.models")
}

/// The queue of one model's messages that are tried again after the back-off `step`.
pub fn retry_of(step: &str, model: &ModelId) -> String {
    format!("forebay.retry.{step}.{model}")
}

/// The Redis key of a worker's in-flight journal: the jobs that it is computing.
pub fn computing_key(worker: &str) -> String {
    format!("{COMPUTING_INDEX}:{worker}")
}

/// The Redis key of a worker's registry record.
pub fn worker_key(worker: &str) -> String {
    format!("{WORKER_KEY_PREFIX}{worker}")
}

/// The Redis key of one part of a tenant's limits, whatever the tenant is called.
pub fn limits_key(tenant: &str, part: &str) -> String {
    format!("forebay:limits:{{{}}}:{part}", tag(tenant))
}

/// A tenant's name as a hash tag. A brace would end the tag, and an empty one is none.
fn tag(tenant: &str) -> String {
    let tag = tenant.replace('%', "%25").replace('{', "%7b").replace('}', "%7d");
    if tag.is_empty() { "-".to_owned() } else { tag }
}

/// The Redis key of a tenant's usage: how far the stream is summed up, and what each month cost. It shares a hash tag
/// with the tenant's limits. A tenant's name is any text here: publishers choose it.
pub fn usage_key(tenant: &str) -> String {
    format!("{USAGE_STREAM}:{{{}}}", tag(tenant))
}

/// The Redis key of a tenant's usage in one day, such as `2026-11-29`.
pub fn usage_day_key(tenant: &str, day: &str) -> String {
    format!("{}:{day}", usage_key(tenant))
}

macro_rules! string_like {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}
string_like!(ModelId);
string_like!(JobId);
string_like!(TenantId);
string_like!(KeyId);

/// The lane of a job: which of a model's two queues it waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// A caller waits for the answer: latency counts.
    Interactive,
    /// No caller waits: throughput counts.
    Batch,
}

impl Lane {
    /// Both lanes, the more urgent first.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Batch];

    /// The lane's name in queue names and routing keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }

    /// The queue of this lane for `model`.
    pub fn queue(self, model: &ModelId) -> String {
        format!("{JOBS}.{model}.{}", self.as_str())
    }

    /// The routing key that leads to this lane of `model`.
    pub fn routing_key(self, model: &ModelId) -> String {
        format!("{model}.{}", self.as_str())
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Lane {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|lane| lane.as_str() == text)
            .ok_or_else(|| NameError::Lane(shown(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_ids_keep_to_their_alphabet_and_length() {
        for good in ["a", "0", "all-minilm-l6-v2", "e5_large.v2", &"m".repeat(63)] {
            assert!(good.parse::<ModelId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "A", "a b", "a/b", "ä", &"m".repeat(64)] {
            assert!(bad.parse::<ModelId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn job_ids_keep_to_their_alphabet_and_length() {
        for good in ["a", "_", "A-z_0", &"j".repeat(64)] {
            assert!(good.parse::<JobId>().is_ok(), "{good}");
        }
        for bad in ["", "a.b", "a:b", "ä", "a\n", &"j".repeat(65)] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_of_tenants_and_keys_keep_to_their_alphabet_and_length() {
        for good in ["a", "0", "acme-labs.eu_1", &"t".repeat(63)] {
            assert!(good.parse::<TenantId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a b", "a}b", "ä", &"t".repeat(64)] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad}");
        }
        assert!("k3mz8q2v7x4a".parse::<KeyId>().is_ok());
        for bad in ["", "k3mz8q2v7x4", "k3mz8q2v7x4ab", "K3mz8q2v7x4a", "k3mz_q2v7x4a"] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_keys_of_one_tenant_s_limits_share_a_hash_tag() {
        let tenant: TenantId = "acme".parse().unwrap();
        assert_eq!(tenant.limits_key("window"), "forebay:limits:{acme}:window");
    }

    #[test]
    fn the_keys_of_a_tenant_s_usage_share_its_hash_tag_whatever_it_is_called() {
        assert_eq!(usage_key("acme"), "forebay:usage:{acme}");
        assert_eq!(usage_day_key("a}b", "2026-11-29"), "forebay:usage:{a%7db}:2026-11-29");
        assert_eq!(usage_key(""), "forebay:usage:{-}");
        assert_ne!(usage_key("a}"), usage_key("a%7d"));
    }

    #[test]
    fn random_ids_are_valid_and_differ() {
        let one = JobId::random();
        let two = JobId::random();
        assert_ne!(one, two);
        assert!(one.as_str().parse::<JobId>().is_ok());
    }

    #[test]
    fn a_long_wrong_name_is_cut_in_its_error() {
        let error = "x".repeat(10_000).parse::<JobId>().unwrap_err();
        assert!(error.to_string().len() < 300);
    }

    #[test]
    fn names_follow_the_contract() {
        let model: ModelId = "m".parse().unwrap();
        assert_eq!(Lane::Batch.queue(&model), "forebay.jobs.m.batch");
        assert_eq!(Lane::Interactive.routing_key(&model), "m.interactive");
        let id: JobId = "j1".parse().unwrap();
        assert_eq!(id.result_key(), "forebay:result:j1");
        assert_eq!(id.cancel_key(), "forebay:cancel:j1");
        assert_eq!(id.tokens_key(), "forebay:tokens:j1");
        assert_eq!(worker_key("w"), "forebay:worker:w");
    }
}
