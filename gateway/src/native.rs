//! Jobs as the wire has them, over HTTP: the body of `POST /v1/jobs`, and the ids of a tenant's jobs.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use forebay_schemas::{
    ContentType, Job, JobId, Lane, Limits, ModelId, Refusal, State, Task, decode_job, export,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    error::ApiError,
    failures,
    fields::{Fields, Kind, kind},
};

/// The fields of a job that are the client's to set.
const JOB: [&str; 8] =
    ["model", "task", "input", "input_ids", "params", "expires_in_ms", "result_ttl_s", "metadata"];
/// Fields of the wire that are the gateway's to set: a client's own would be another's id, bill or channel.
const OURS: [&str; 4] = ["id", "tenant", "notify", "submitted_at_ms"];
/// The longest `Idempotency-Key`, in characters.
pub const KEY_CHARS_MAX: usize = 255;

/// A job to submit, and the lane that it goes to.
#[derive(Debug, Clone, PartialEq)]
pub struct NativeJob {
    /// The job, with the id that it was given.
    pub job: Job,
    /// The lane: `batch` unless the body says otherwise.
    pub lane: Lane,
}

/// The body of a job, as the document has it: the wire's own, without what is the gateway's to set.
#[derive(Debug)]
pub struct JobBody;

impl JsonSchema for JobBody {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "JobBody".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let definitions = format!("#{}/", generator.settings().definitions_path);
        let wire = export::job().replace("#/$defs/", &definitions);
        // It was written a line before: it can be read.
        let mut wire: Value = serde_json::from_str(&wire).unwrap_or_default();
        if let Some(Value::Object(found)) = wire.get_mut("$defs").map(Value::take) {
            generator.definitions_mut().extend(found);
        }
        let lane = json!({"enum": ["batch", "interactive", null], "default": "batch",
                          "description": "Interactive jobs go before those of batches."});
        wire["properties"]["lane"] = lane;
        // One sequence may come without a list around it; the wire's schema is that of what is written.
        let ids = &mut wire["properties"]["input_ids"];
        let sequence = ids["items"].clone();
        if let Some(about) = ids.as_object_mut().map(|ids| ids.remove("description")) {
            *ids = json!({"anyOf": [ids.take(), sequence], "description": about});
        }
        if let Some(properties) = wire["properties"].as_object_mut() {
            properties.retain(|name, _| !OURS.contains(&name.as_str()));
        }
        let is_needed =
            |name: &Value| name.as_str().is_some_and(|n| n != "v" && !OURS.contains(&n));
        let required = wire["required"].as_array().into_iter().flatten().filter(|n| is_needed(n));
        let required: Value = required.cloned().collect();
        json!({
            "type": "object",
            "description": "A job as the wire has it, without what is the gateway's to set.",
            "properties": wire["properties"],
            "required": required,
        })
        .try_into()
        .unwrap_or_default()
    }
}

/// The answer to a job that was taken.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SubmittedJob")]
pub struct Submitted {
    /// The job's id.
    pub id: JobId,
    /// Always the same.
    #[schemars(extend("const" = "job"))]
    pub object: &'static str,
    /// `queued`, or the state in which a job of this `Idempotency-Key` has ended.
    pub state: &'static str,
    /// The model that computes it.
    pub model: ModelId,
    /// The kind of work that is asked for.
    pub task: Task,
    /// The lane that it waits in.
    #[schemars(with = "String", extend("enum" = ["batch", "interactive"]))]
    pub lane: Lane,
}

/// The answer about a job that has no record yet.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PendingJob")]
pub struct Pending {
    /// The job's id.
    pub id: JobId,
    /// Its state, as far as the gateway knows it.
    pub state: PendingState,
}

/// The state of a job that has no record yet.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PendingState {
    /// It has no record: it waits, is computed, or was never submitted.
    Pending,
    /// It was asked to be cancelled.
    Cancelling,
}

/// The answer to a request to cancel a job that has ended.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "EndedJob")]
pub struct Ended {
    /// The job's id.
    pub id: JobId,
    /// How it ended.
    pub state: State,
}

impl NativeJob {
    /// Reads a body as the job `id`. It is decoded by the wire's own decoder, so that a mistake has the same words here
    /// as anywhere. `model` is the one that a route leads to, instead of the route's name in the body.
    pub fn parse(
        body: &[u8],
        id: &JobId,
        model: Option<&ModelId>,
        limits: &Limits,
    ) -> Result<Self, ApiError> {
        let names = [&["v", "lane"], &JOB[..], &OURS[..]].concat();
        let fields = Fields::scan(body, &names)?;
        for name in OURS {
            if fields.raw(name).is_some() {
                let message =
                    format!("`{name}` is the gateway's to set: leave it out{}", hint(name));
                return Err(ApiError::invalid(name, message));
            }
        }
        if fields.raw("v").is_some_and(|v| v.get() != "1") {
            return Err(ApiError::invalid("v", "`v` is not 1: send 1, or leave it out"));
        }
        let lane = fields.text("lane")?.map_or(Ok(Lane::Batch), |lane| {
            lane.parse().map_err(|error| ApiError::invalid("lane", format!("{error}")))
        })?;
        let mut wire = format!(r#"{{"v":1,"id":"{id}""#);
        if let Some(model) = model {
            // A model's id needs no escapes.
            wire.extend([",\"model\":\"", model.as_str(), "\""]);
        }
        for name in JOB {
            if model.is_some() && name == "model" {
                continue;
            }
            if let Some(value) = fields.raw(name) {
                // Lists and maps of the wire are never null, and `raw` has none.
                debug_assert_ne!(kind(value), Kind::Null);
                wire.extend([",\"", name, "\":", value.get()]);
            }
        }
        wire.push('}');
        let job = decode_job(wire.as_bytes(), ContentType::Json, limits).map_err(refused)?;
        Ok(Self { job, lane })
    }
}

/// The lane and the model's name of a body, as far as they can be read: [`NativeJob::parse`] refuses the rest.
pub fn named(body: &[u8]) -> Option<(Lane, String)> {
    let fields = Fields::scan(body, &["model", "lane"]).ok()?;
    let lane = fields.text("lane").ok()?.and_then(|lane| lane.parse().ok()).unwrap_or(Lane::Batch);
    Some((lane, fields.text("model").ok()??))
}

/// The wire's refusal without the line and column of the body that was decoded, which is not the client's.
fn refused(Refusal { mut error, .. }: Refusal) -> ApiError {
    if let Some((_, words)) = error.message.split_once(" body: ")
        && error.message.starts_with("can't read the ")
    {
        let words = words.rsplit_once(" at line ").map_or(words, |(words, _)| words);
        error.message = words.to_owned();
    }
    failures::of_job(&error)
}

fn hint(name: &str) -> &'static str {
    if name == "id" { " and send an Idempotency-Key if the request may be repeated" } else { "" }
}

/// Characters at the head of an id that say whose it is: 72 bits of a hash.
const OWNER_CHARS: usize = 12;

/// The head of the ids of a tenant's jobs. A caller asks for ids with the head of its own tenant and for no others, so
/// what it could write there instead is of no use, and no secret is needed.
fn owner(tenant: &str) -> String {
    let mut owner = URL_SAFE_NO_PAD.encode(Sha256::digest(tenant));
    owner.truncate(OWNER_CHARS);
    owner
}

/// Whether a job is one of a tenant's.
pub fn is_of(id: &JobId, tenant: &str) -> bool {
    id.as_str().strip_prefix(&owner(tenant)).is_some_and(|rest| rest.starts_with('-'))
}

/// The id of a new job of a tenant.
pub fn random_id(tenant: &str) -> Result<JobId, ApiError> {
    id_of(tenant, JobId::random().as_str())
}

fn id_of(tenant: &str, rest: &str) -> Result<JobId, ApiError> {
    let id = format!("{}-{rest}", owner(tenant));
    id.parse().map_err(|error| ApiError::internal(format!("{error}")))
}

/// The id of a job that was sent with an `Idempotency-Key`: a hash of the tenant, the key and the body.
///
/// A request that is repeated so becomes the job that it was before, on any replica and without a record of keys: a
/// result is written once per id, and a message that is there twice is harmless by the wire's own promise. The body is
/// part of the hash, so a key that is used again for another request is another job, and never answers with the
/// output of the first.
pub fn idempotent_id(tenant: &str, key: &str, body: &[u8]) -> Result<JobId, ApiError> {
    let is_key =
        (1..=KEY_CHARS_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_key {
        let message =
            format!("`Idempotency-Key` must be 1 to {KEY_CHARS_MAX} visible ASCII characters");
        return Err(ApiError::invalid("Idempotency-Key", message));
    }
    let mut hash = Sha256::new();
    for part in [tenant.as_bytes(), key.as_bytes(), body] {
        // With their lengths: no two requests are one text.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    id_of(tenant, &URL_SAFE_NO_PAD.encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &Value) -> Result<NativeJob, ApiError> {
        let id = "j1".parse().unwrap();
        NativeJob::parse(body.to_string().as_bytes(), &id, None, &Limits::default())
    }

    fn job(extra: &Value) -> Value {
        let mut body = json!({"model": "m", "task": "embed", "input": ["a"]});
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    }

    #[test]
    fn a_job_is_read_as_the_wire_reads_it_and_goes_to_the_batch_lane() {
        let read = parsed(&job(&json!({"metadata": {"k": "v"}, "params": null, "v": 1}))).unwrap();
        assert_eq!((read.job.id.as_str(), read.job.model.as_str()), ("j1", "m"));
        assert_eq!(read.job.metadata["k"], "v");
        assert_eq!((read.job.tenant, read.lane), (None, Lane::Batch));
        let interactive = parsed(&job(&json!({"lane": "interactive"}))).unwrap();
        assert_eq!(interactive.lane, Lane::Interactive);
    }

    #[test]
    fn what_is_the_gateways_to_set_is_refused() {
        for (field, value) in [
            ("id", json!("x")),
            ("tenant", json!("other")),
            ("notify", json!("channel")),
            ("submitted_at_ms", json!(1_764_000_000_000_u64)),
            ("v", json!(2)),
            ("lane", json!("fast")),
        ] {
            let error = parsed(&job(&json!({field: value}))).unwrap_err();
            assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(field)));
        }
    }

    #[test]
    fn a_mistake_has_the_words_of_the_wire() {
        let error = parsed(&job(&json!({"input": 5}))).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("input"), "{error}");
        assert!(error.message.starts_with("`input` must be a string"), "{error}");
        assert!(!error.message.contains("column"), "{error}");
        let error = parsed(&job(&json!({"task": "sing"}))).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (400, "task_not_supported"));
        let error = parsed(&json!({"model": "m"})).unwrap_err();
        assert!(error.message.contains("missing"), "{error}");
    }

    #[test]
    fn one_key_with_one_body_is_one_job_of_one_tenant() {
        let id = |tenant, key, body: &str| idempotent_id(tenant, key, body.as_bytes()).unwrap();
        assert_eq!(id("t", "k", "b"), id("t", "k", "b"));
        for other in [id("u", "k", "b"), id("t", "l", "b"), id("t", "k", "c"), id("tk", "x", "b")] {
            assert_ne!(other, id("t", "k", "b"));
        }
    }

    #[test]
    fn a_job_is_its_tenant_s_and_no_other_s() {
        for id in [random_id("acme").unwrap(), idempotent_id("acme", "k", b"").unwrap()] {
            assert!(is_of(&id, "acme"), "{id}");
            assert!(!is_of(&id, "acme2") && !is_of(&id, ""), "{id}");
        }
        assert!(!is_of(&JobId::random(), "acme"));
        assert_ne!(random_id("acme").unwrap(), random_id("acme").unwrap());
    }

    #[test]
    fn keys_are_visible_and_bounded() {
        for wrong in ["", "a b", "ä", "a\n", &"k".repeat(KEY_CHARS_MAX + 1)] {
            assert!(idempotent_id("t", wrong, b"").is_err(), "{wrong}");
        }
        assert!(idempotent_id("t", &"k".repeat(KEY_CHARS_MAX), b"").is_ok());
    }
}
