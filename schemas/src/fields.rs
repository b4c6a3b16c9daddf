//! The fields of a body, each read within its bounds, and the job that they make together.

use std::{collections::BTreeMap, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::{
    bounded::{BoundedMap, BoundedText, Number, OptionalText, Version},
    came::{Came, Refuse, refuse_others},
    generate::Prompt,
    ids::IdsSeed,
    input::{InputSeed, WireInputs},
    job::{EmbedParams, Job, RerankParams, SparseParams, Task, TokensParams, Work},
    key::{Key, Seen, fields},
    limits::{self, Limits},
    names::ModelId,
    outcome::{ErrorCode, JobError},
    params::{ParamsSeed, WireParamsRead},
    version::VERSION,
};

/// The fields of a body, in any order, before they are checked against each other.
#[derive(Default)]
pub(crate) struct Fields {
    v: Option<u64>,
    id: Option<String>,
    model: Option<String>,
    task: Option<String>,
    input: Option<WireInputs>,
    input_ids: Option<Vec<Vec<u32>>>,
    params: WireParamsRead,
    tenant: Option<String>,
    submitted_at_ms: Option<u64>,
    expires_in_ms: Option<u64>,
    result_ttl_s: Option<u64>,
    notify: Option<String>,
    metadata: BTreeMap<String, String>,
}

fields!(Field {
    V = "v",
    Id = "id",
    Model = "model",
    Task = "task",
    Input = "input",
    InputIds = "input_ids",
    Params = "params",
    Tenant = "tenant",
    SubmittedAtMs = "submitted_at_ms",
    ExpiresInMs = "expires_in_ms",
    ResultTtlS = "result_ttl_s",
    Notify = "notify",
    Metadata = "metadata",
});

pub(crate) struct FieldsSeed<'a> {
    pub(crate) limits: &'a Limits,
}

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_> {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Fields, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a job: a map with string keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        let mut seen = Seen::default();
        while let Some(field) = map.next_key_seed(Key::<Field>::new())? {
            seen.add(field)?;
            match field {
                Field::V => fields.v = map.next_value_seed(Version)?,
                Field::Id => fields.id = map.next_value_seed(BoundedText::field("id", 64))?,
                Field::Model => {
                    fields.model = map.next_value_seed(BoundedText::field("model", 63))?;
                }
                Field::Task => fields.task = map.next_value_seed(BoundedText::field("task", 32))?,
                Field::Input => {
                    fields.input = map.next_value_seed(InputSeed { limits: self.limits })?;
                }
                Field::InputIds => {
                    fields.input_ids = map.next_value_seed(IdsSeed { limits: self.limits })?;
                }
                Field::Params => fields.params = map.next_value_seed(ParamsSeed)?,
                Field::Tenant => fields.tenant = map.next_value_seed(TENANT)?,
                Field::SubmittedAtMs => {
                    fields.submitted_at_ms = map.next_value_seed(Number("submitted_at_ms"))?;
                }
                Field::ExpiresInMs => {
                    fields.expires_in_ms = map.next_value_seed(Number("expires_in_ms"))?;
                }
                Field::ResultTtlS => {
                    fields.result_ttl_s = map.next_value_seed(Number("result_ttl_s"))?;
                }
                Field::Notify => fields.notify = map.next_value_seed(NOTIFY)?,
                Field::Metadata => fields.metadata = map.next_value_seed(BoundedMap)?,
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }

    refuse_others!(flag, number, text, null, list, extension);
}

impl Refuse for FieldsSeed<'_> {
    fn refuse<E: serde::de::Error>(&self, came: &Came) -> E {
        E::custom(format_args!("a job is a map with the names of its fields, not {came}"))
    }
}

const TENANT: OptionalText<'static> = BoundedText::field("tenant", limits::TENANT_CHARS_MAX);
const NOTIFY: OptionalText<'static> = BoundedText::field("notify", limits::NOTIFY_CHARS_MAX);

fn missing(field: &str) -> JobError {
    JobError::invalid(format!("`{field}` is missing: every job has one"))
}

impl Fields {
    /// Checks the fields against each other; not yet against the limits of a whole job.
    pub(crate) fn into_job(self) -> Result<Job, JobError> {
        let v = self.v.ok_or_else(|| missing("v"))?;
        if v != VERSION {
            // The diagnosis finds the version in the head and gives the error its own code.
            return Err(JobError::invalid("unsupported version"));
        }
        let id = self.id.ok_or_else(|| missing("id"))?;
        let id = id.parse().map_err(|e| JobError::invalid(format!("{e}")))?;
        let model = self.model.ok_or_else(|| missing("model"))?;
        let model: ModelId = model.parse().map_err(|e| JobError::invalid(format!("{e}")))?;
        let task = self.task.ok_or_else(|| missing("task"))?;
        let task: Task =
            task.parse().map_err(|e| JobError::new(ErrorCode::TaskNotSupported, format!("{e}")))?;
        let work = match (self.input, self.input_ids) {
            (None, None) => return Err(missing("input")),
            (None, Some(ids)) => work_of_ids(task, ids, &self.params)?,
            (Some(_), Some(_)) if task == Task::Embed => {
                return Err(JobError::invalid("`input` and `input_ids` are both there: send one"));
            }
            // To other tasks it is one of the unknown fields.
            (Some(input), _) => work(task, input, self.params)?,
        };
        Ok(Job {
            id,
            model,
            work,
            tenant: self.tenant,
            // Languages without a null for numbers send 0.
            submitted_at_ms: self.submitted_at_ms.filter(|&ms| ms != 0),
            expires_in_ms: self.expires_in_ms.filter(|&ms| ms != 0),
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
        (Task::Embed, WireInputs::Texts(input)) => {
            Ok(Work::Embed { input, params: embed_params(&params) })
        }
        (Task::EmbedSparse, WireInputs::Texts(input)) => Ok(Work::EmbedSparse {
            input,
            params: SparseParams {
                truncate: params.truncate.unwrap_or(true),
                top_k: params.generate.top_k,
            },
        }),
        (Task::EmbedTokens, WireInputs::Texts(input)) => Ok(Work::EmbedTokens {
            input,
            params: TokensParams {
                truncate: params.truncate.unwrap_or(true),
                input_type: params.input_type.unwrap_or_default(),
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
            if let Some(n) = params.n.filter(|&n| n != 1) {
                let message = format!("`n` is {n}: a job has one output, send a job for each");
                return Err(JobError::invalid(message));
            }
            Ok(Work::Generate { prompt, params: params.generate })
        }
        _ => Err(wrong_input(task)),
    }
}

fn work_of_ids(
    task: Task,
    input_ids: Vec<Vec<u32>>,
    params: &WireParamsRead,
) -> Result<Work, JobError> {
    if task == Task::Embed {
        return Ok(Work::EmbedIds { input_ids, params: embed_params(params) });
    }
    let message = format!("task `{task}` takes no `input_ids`: send `input`");
    Err(JobError::invalid(message))
}

fn embed_params(params: &WireParamsRead) -> EmbedParams {
    EmbedParams {
        normalize: params.normalize.unwrap_or(true),
        truncate: params.truncate.unwrap_or(true),
        dimensions: params.dimensions,
    }
}

fn wrong_input(task: Task) -> JobError {
    let expected = match task {
        Task::Embed | Task::EmbedSparse | Task::EmbedTokens | Task::Classify => {
            "a string or a list of strings"
        }
        Task::Rerank => "a map with `query` (a string) and `documents` (a list of strings)",
        Task::Generate => "a map with either `prompt` (a string) or `messages` (a list)",
    };
    JobError::invalid(format!("`input` of task `{task}` must be {expected}"))
}
