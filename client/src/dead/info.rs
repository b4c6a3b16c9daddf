//! The description of a dead letter, read from its message.

use std::fmt::Write;

use forebay_fabric::{
    broker::{BrowsedMessage, HeaderValue, Headers, Properties},
    death::{Death, Reason},
    intake::message_id,
};
use forebay_schemas::{ContentType, Job, JobId, Lane, Limits, ModelId, decode_job};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The description of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetterInfo {
    /// Its own name, a hash of its routing key, message id and body: stable while others come and go. Dead letters
    /// with equal contents share one. In JSON it is called `letter`.
    #[serde(rename = "letter")]
    pub name: JobId,
    /// The id of its job, if it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The model that its routing key names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelId>,
    /// The lane that its routing key names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// The routing key it was published with.
    pub routing_key: String,
    /// Why it is dead.
    #[serde(serialize_with = "as_name")]
    pub reason: Reason,
    /// The explanation that Forebay attached when it refused the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The queue in which it died.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// When it died, in Unix milliseconds, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub died_at_ms: Option<u64>,
    /// The size of its body in bytes.
    pub bytes: usize,
    /// The encoding of its body.
    #[serde(serialize_with = "as_mime")]
    pub content_type: ContentType,
}

fn as_name<S: Serializer>(reason: &Reason, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(reason.as_str())
}

// Serde hands over a reference, however small the value.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn as_mime<S: Serializer>(content_type: &ContentType, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(content_type.as_str())
}

impl DeadLetterInfo {
    /// The names by which it can be selected: its own, and its job's id.
    pub fn names(&self) -> impl Iterator<Item = &JobId> {
        [Some(&self.name), self.job.as_ref()].into_iter().flatten()
    }

    pub(super) fn of(message: &BrowsedMessage, limits: &Limits) -> Self {
        let death = Death::read(message.properties.headers().as_ref());
        let (model, lane) = addressee(&message.routing_key).unzip();
        Self {
            name: name(message),
            job: job_id(message, limits),
            model,
            lane,
            routing_key: message.routing_key.clone(),
            reason: death.reason,
            detail: death.detail,
            queue: death.queue,
            died_at_ms: death.at_ms,
            bytes: message.body.len(),
            content_type: content_type(message),
        }
    }
}

/// Twelve hexadecimal digits: among a million dead letters, two share a name once in five hundred times.
const NAME_BYTES: usize = 6;

fn name(message: &BrowsedMessage) -> JobId {
    let message_id = message.properties.message_id().as_ref();
    let message_id = message_id.map(ToString::to_string).unwrap_or_default();
    // The headers are left out: the broker counts in them.
    let mut hash = Sha256::new();
    for part in [message.routing_key.as_bytes(), message_id.as_bytes()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(&message.body);
    let mut name = String::new();
    for byte in hash.finalize().iter().take(NAME_BYTES) {
        // Writing to a string does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.parse().unwrap_or_else(|_| JobId::random())
}

/// The id under which a worker answers it: the one in the body, or else the message id.
fn job_id(message: &BrowsedMessage, limits: &Limits) -> Option<JobId> {
    let in_body = match decode_job(&message.body, content_type(message), limits) {
        Ok(job) => Some(job.id),
        Err(refusal) => refusal.head.id,
    };
    in_body.or_else(|| message_id(&message.properties))
}

/// The job, if the body is one.
pub(super) fn job(message: &BrowsedMessage, limits: &Limits) -> Option<Job> {
    decode_job(&message.body, content_type(message), limits).ok()
}

fn content_type(message: &BrowsedMessage) -> ContentType {
    let mime = message.properties.content_type().as_ref();
    mime.and_then(|mime| ContentType::parse(mime.as_str()))
        .unwrap_or_else(|| ContentType::guess(&message.body))
}

/// Parses a routing key: `<model>.<lane>`, or `<model>` for its batch lane.
fn addressee(routing_key: &str) -> Option<(ModelId, Lane)> {
    let (model, lane) = match routing_key.rsplit_once('.').map(|(m, lane)| (m, lane.parse())) {
        Some((model, Ok(lane))) => (model, lane),
        _ => (routing_key, Lane::Batch),
    };
    Some((model.parse().ok()?, lane))
}

/// The headers as JSON.
pub(super) fn headers_json(properties: &Properties) -> Map<String, Value> {
    properties.headers().as_ref().map(table).unwrap_or_default()
}

fn table(table: &Headers) -> Map<String, Value> {
    table.inner().iter().map(|(name, value)| (name.to_string(), json(value))).collect()
}

fn json(value: &HeaderValue) -> Value {
    match value {
        HeaderValue::Boolean(yes) => (*yes).into(),
        HeaderValue::ShortShortInt(n) => (*n).into(),
        HeaderValue::ShortShortUInt(n) => (*n).into(),
        HeaderValue::ShortInt(n) => (*n).into(),
        HeaderValue::ShortUInt(n) => (*n).into(),
        HeaderValue::LongInt(n) => (*n).into(),
        HeaderValue::LongUInt(n) => (*n).into(),
        HeaderValue::LongLongInt(n) => (*n).into(),
        HeaderValue::Timestamp(n) => (*n).into(),
        HeaderValue::Float(x) => (*x).into(),
        HeaderValue::Double(x) => (*x).into(),
        HeaderValue::DecimalValue(x) => format!("{x:?}").into(),
        HeaderValue::ShortString(text) => text.as_str().into(),
        HeaderValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into(),
        HeaderValue::FieldArray(items) => items.as_slice().iter().map(json).collect(),
        HeaderValue::FieldTable(inner) => table(inner).into(),
        HeaderValue::ByteArray(bytes) => json!(bytes.as_slice()),
        HeaderValue::Void => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routing_key_names_model_and_lane() {
        let of = |key: &str| addressee(key).map(|(model, lane)| (model.to_string(), lane));
        assert_eq!(of("m.interactive"), Some(("m".into(), Lane::Interactive)));
        assert_eq!(of("e5.v2.batch"), Some(("e5.v2".into(), Lane::Batch)));
        assert_eq!(of("e5.v2"), Some(("e5.v2".into(), Lane::Batch)));
        assert_eq!(of("No Model"), None);
    }

    #[test]
    fn headers_of_every_depth_become_json() {
        let mut death = Headers::default();
        death.insert("time".into(), HeaderValue::Timestamp(7));
        death.insert("queue".into(), HeaderValue::LongString("q".into()));
        let mut all = Headers::default();
        let deaths = vec![HeaderValue::FieldTable(death)];
        all.insert("x-death".into(), HeaderValue::FieldArray(deaths.into()));
        all.insert("yes".into(), HeaderValue::Boolean(true));
        let shown = headers_json(&Properties::default().with_headers(all));
        assert_eq!(
            Value::Object(shown),
            json!({"x-death": [{"time": 7, "queue": "q"}], "yes": true})
        );
    }
}
