//! Bodies to jobs, trusting nothing: every bound is checked before anything is allocated for it.
//!
//! A body that is no job becomes a [`Refusal`], which keeps everything that could still be read, so that
//! its sender finds an answer at the result key.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor},
};

use crate::{
    bounded::{BoundedMap, BoundedText, Number},
    codec::{self, CodecError, ContentType},
    input::{InputSeed, ParamsSeed, WireInputs, WireParamsRead},
    job::{EmbedParams, GenerateParams, Job, Prompt, RerankParams, Task, Work},
    limits::{self, Limits},
    names::{JobId, ModelId},
    outcome::{ErrorCode, JobError},
    version::VERSION,
};

/// The fields that could be read of a body that is no job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The version, if it is a whole number.
    pub v: Option<u64>,
    /// The id, if it is one.
    pub id: Option<JobId>,
    /// The model as it was named.
    pub model: Option<String>,
    /// The task as it was named.
    pub task: Option<String>,
    /// How long the result is to be kept, if that is allowed.
    pub result_ttl_s: Option<u64>,
    /// The channel on which the waiting publisher listens.
    pub notify: Option<String>,
    /// The metadata to return, if it is within its bounds.
    pub metadata: BTreeMap<String, String>,
}

/// A body that is no job: why not, and what could be read of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// Why it is no job.
    pub error: JobError,
    /// The fields that could be read.
    pub head: Box<Head>,
}

/// Reads a job and checks it whole.
pub fn decode_job(body: &[u8], content_type: ContentType, limits: &Limits) -> Result<Job, Refusal> {
    if body.len() > limits.body_bytes_max {
        let message = format!(
            "the body has {} bytes, the limit is {}: send fewer inputs a job",
            body.len(),
            limits.body_bytes_max
        );
        let error = JobError::new(ErrorCode::PayloadTooLarge, message);
        return Err(Refusal { error, head: Box::default() });
    }
    let fields = codec::decode_seed(FieldsSeed { limits }, body, content_type, limits.depth_max);
    let job = fields.map_err(|e| unreadable(&e)).and_then(Fields::into_job);
    match job.and_then(|job| job.validate(limits).map(|()| job)) {
        Ok(job) => Ok(job),
        Err(error) => {
            let head = Box::new(read_head(body, content_type, limits));
            Err(Refusal { error: root_cause(error, &head), head })
        }
    }
}

fn unreadable(error: &CodecError) -> JobError {
    JobError::invalid(error.to_string())
}

/// A job of another version may have another shape: then the version is the fault, not the shape.
fn root_cause(error: JobError, head: &Head) -> JobError {
    if let Some(v) = head.v.filter(|&v| v != VERSION) {
        let message = format!("version {v} is not supported: send `v`: {VERSION}");
        return JobError::new(ErrorCode::UnsupportedVersion, message);
    }
    match head.task.as_deref().map(str::parse::<Task>) {
        Some(Err(unknown)) => JobError::new(ErrorCode::TaskNotSupported, unknown.to_string()),
        _ => error,
    }
}

/// The fields of a body, in any order, before they are checked against each other.
#[derive(Default)]
struct Fields {
    v: Option<u64>,
    id: Option<String>,
    model: Option<String>,
    task: Option<String>,
    input: Option<WireInputs>,
    params: WireParamsRead,
    tenant: Option<String>,
    submitted_at_ms: Option<u64>,
    expires_in_ms: Option<u64>,
    result_ttl_s: Option<u64>,
    notify: Option<String>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    V,
    Id,
    Model,
    Task,
    Input,
    Params,
    Tenant,
    SubmittedAtMs,
    ExpiresInMs,
    ResultTtlS,
    Notify,
    Metadata,
    #[serde(other)]
    Other,
}

impl Field {
    /// This field's bit in the set of fields seen.
    fn bit(&self) -> u16 {
        match self {
            Self::V => 1,
            Self::Id => 1 << 1,
            Self::Model => 1 << 2,
            Self::Task => 1 << 3,
            Self::Input => 1 << 4,
            Self::Params => 1 << 5,
            Self::Tenant => 1 << 6,
            Self::SubmittedAtMs => 1 << 7,
            Self::ExpiresInMs => 1 << 8,
            Self::ResultTtlS => 1 << 9,
            Self::Notify => 1 << 10,
            Self::Metadata => 1 << 11,
            Self::Other => 0,
        }
    }
}

struct FieldsSeed<'a> {
    limits: &'a Limits,
}

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_> {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Fields, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a job: a map with string keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        let mut seen = 0_u16;
        while let Some(field) = map.next_key::<Field>()? {
            if seen & field.bit() != 0 {
                return Err(A::Error::custom("the body has a field twice: send each field once"));
            }
            seen |= field.bit();
            match field {
                Field::V => fields.v = map.next_value_seed(Number("v"))?,
                Field::Id => fields.id = Some(map.next_value_seed(BoundedText::new("id", 64))?),
                Field::Model => {
                    fields.model = Some(map.next_value_seed(BoundedText::new("model", 63))?);
                }
                Field::Task => {
                    fields.task = Some(map.next_value_seed(BoundedText::new("task", 32))?);
                }
                Field::Input => {
                    fields.input = Some(map.next_value_seed(InputSeed { limits: self.limits })?);
                }
                Field::Params => fields.params = map.next_value_seed(ParamsSeed)?,
                Field::Tenant => fields.tenant = map.next_value_seed(TENANT.optional())?,
                Field::SubmittedAtMs => {
                    fields.submitted_at_ms = map.next_value_seed(Number("submitted_at_ms"))?;
                }
                Field::ExpiresInMs => {
                    fields.expires_in_ms = map.next_value_seed(Number("expires_in_ms"))?;
                }
                Field::ResultTtlS => {
                    fields.result_ttl_s = map.next_value_seed(Number("result_ttl_s"))?;
                }
                Field::Notify => fields.notify = map.next_value_seed(NOTIFY.optional())?,
                Field::Metadata => fields.metadata = map.next_value_seed(BoundedMap)?,
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

const TENANT: BoundedText = BoundedText::new("tenant", limits::TENANT_CHARS_MAX);
const NOTIFY: BoundedText = BoundedText::new("notify", limits::NOTIFY_CHARS_MAX);

fn missing(field: &str) -> JobError {
    JobError::invalid(format!("`{field}` is missing: every job has one"))
}

impl Fields {
    fn into_job(self) -> Result<Job, JobError> {
        let v = self.v.ok_or_else(|| missing("v"))?;
        if v != VERSION {
            // `root_cause` finds the version in the head and gives the error its own code.
            return Err(JobError::invalid("unsupported version"));
        }
        let id = self.id.ok_or_else(|| missing("id"))?;
        let id: JobId = id.parse().map_err(|e| JobError::invalid(format!("{e}")))?;
        let model = self.model.ok_or_else(|| missing("model"))?;
        let model: ModelId = model.parse().map_err(|e| JobError::invalid(format!("{e}")))?;
        let task = self.task.ok_or_else(|| missing("task"))?;
        let task: Task =
            task.parse().map_err(|e| JobError::new(ErrorCode::TaskNotSupported, format!("{e}")))?;
        let input = self.input.ok_or_else(|| missing("input"))?;
        Ok(Job {
            id,
            model,
            work: work(task, input, self.params)?,
            tenant: self.tenant,
            submitted_at_ms: self.submitted_at_ms,
            expires_in_ms: self.expires_in_ms,
            result_ttl_s: self.result_ttl_s,
            notify: self.notify,
            metadata: self.metadata,
        })
    }
}

/// Joins a task with the input and the parameters that belong to it; other parameters are ignored
/// like any unknown field.
fn work(task: Task, input: WireInputs, params: WireParamsRead) -> Result<Work, JobError> {
    match (task, input) {
        (Task::Embed, WireInputs::Texts(input)) => Ok(Work::Embed {
            input,
            params: EmbedParams {
                normalize: params.normalize.unwrap_or(true),
                truncate: params.truncate.unwrap_or(true),
                dimensions: params.dimensions,
            },
        }),
        (Task::Classify, WireInputs::Texts(input)) => Ok(Work::Classify { input }),
        (Task::Rerank, WireInputs::Map { query: Some(query), documents: Some(documents), .. }) => {
            Ok(Work::Rerank { query, documents, params: RerankParams { top_n: params.top_n } })
        }
        (Task::Generate, WireInputs::Map { prompt, messages, .. }) => {
            let prompt = match (prompt, messages) {
                (Some(prompt), None) => Prompt::Text(prompt),
                (None, Some(messages)) => Prompt::Messages(messages),
                _ => return Err(wrong_input(task)),
            };
            let params = GenerateParams {
                max_tokens: params.max_tokens,
                temperature: params.temperature,
                top_p: params.top_p,
                top_k: params.top_k,
                stop: params.stop,
                seed: params.seed,
            };
            Ok(Work::Generate { prompt, params })
        }
        _ => Err(wrong_input(task)),
    }
}

fn wrong_input(task: Task) -> JobError {
    let expected = match task {
        Task::Embed | Task::Classify => "a string or a list of strings",
        Task::Rerank => "a map with `query` (a string) and `documents` (a list of strings)",
        Task::Generate => "a map with either `prompt` (a string) or `messages` (a list)",
    };
    JobError::invalid(format!("`input` of task `{task}` must be {expected}"))
}

/// Reads as much as can be read. The body is known to be faulty, so the first unreadable byte ends it.
fn read_head(body: &[u8], content_type: ContentType, limits: &Limits) -> Head {
    let mut head = Head::default();
    let _ = codec::decode_seed(HeadSeed(&mut head), body, content_type, limits.depth_max);
    head
}

struct HeadSeed<'a>(&'a mut Head);

impl<'de> DeserializeSeed<'de> for HeadSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeadSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with string keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        use crate::bounded::Scalar;

        let ttl_allowed = 1..=limits::RESULT_TTL_S_MAX;
        while let Some(field) = map.next_key::<Field>()? {
            if let Field::Metadata = field {
                self.0.metadata = map.next_value_seed(BoundedMap)?;
                continue;
            }
            match (field, map.next_value::<Scalar>()?) {
                (Field::V, Scalar::Number(v)) => self.0.v = Some(v),
                (Field::Id, Scalar::Text(id)) => self.0.id = id.parse().ok(),
                (Field::Model, Scalar::Text(model)) => self.0.model = Some(model),
                (Field::Task, Scalar::Text(task)) => self.0.task = Some(task),
                (Field::ResultTtlS, Scalar::Number(ttl)) if ttl_allowed.contains(&ttl) => {
                    self.0.result_ttl_s = Some(ttl);
                }
                (Field::Notify, Scalar::Text(channel)) => self.0.notify = Some(channel),
                _ => {}
            }
        }
        Ok(())
    }
}
