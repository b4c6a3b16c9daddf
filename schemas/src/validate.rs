//! Checks of a job beyond its shape, made before it is sent and after it is read.

use crate::{
    generate::{GenerateParams, Prompt, ResponseFormat},
    job::{Job, SparseParams, Work},
    json::Json,
    limits::{
        CHOICES_MAX, GUIDE_CHARS_MAX, LOGIT_BIAS_ABS_MAX, LOGIT_BIAS_MAX, LOGPROBS_MAX, Limits,
        METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX, NOTIFY_CHARS_MAX,
        RESULT_TTL_S_MAX, SPARSE_VALUES_MAX, STOP_CHARS_MAX, STOP_TOKENS_MAX, STOPS_MAX,
        SUBMITTED_AT_MS_MAX, SUBMITTED_AT_MS_MIN, TENANT_CHARS_MAX, TOKEN_IDS_MAX, TOOLS_MAX,
    },
    outcome::JobError,
};

type Check = Result<(), JobError>;

fn require(holds: bool, message: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(JobError::invalid(message())) }
}

fn chars_within(text: &str, max: usize) -> bool {
    text.len() <= max || text.chars().count() <= max
}

impl Job {
    /// Checks everything that [`decode_job`](crate::decode_job) would refuse on the other side.
    pub fn validate(&self, limits: &Limits) -> Result<(), JobError> {
        options(self)?;
        metadata(self)?;
        inputs(&self.work, limits)?;
        params(&self.work)
    }
}

fn options(job: &Job) -> Check {
    if let Some(tenant) = &job.tenant {
        require(chars_within(tenant, TENANT_CHARS_MAX), || {
            format!("`tenant` is longer than {TENANT_CHARS_MAX} characters: shorten it")
        })?;
    }
    if let Some(ms) = job.submitted_at_ms {
        require(ms >= SUBMITTED_AT_MS_MIN, || {
            format!("`submitted_at_ms` is {ms}, which looks like seconds: send Unix milliseconds")
        })?;
        require(ms <= SUBMITTED_AT_MS_MAX, || {
            format!(
                "`submitted_at_ms` is {ms}, which looks like micro- or nanoseconds: send Unix milliseconds"
            )
        })?;
    }
    if let Some(ttl) = job.result_ttl_s {
        require((1..=RESULT_TTL_S_MAX).contains(&ttl), || {
            format!("`result_ttl_s` is {ttl}: use 1 to {RESULT_TTL_S_MAX} seconds")
        })?;
    }
    if let Some(channel) = &job.notify {
        require(!channel.is_empty() && chars_within(channel, NOTIFY_CHARS_MAX), || {
            format!("`notify` must have 1 to {NOTIFY_CHARS_MAX} characters")
        })?;
    }
    Ok(())
}

fn metadata(job: &Job) -> Check {
    require(job.metadata.len() <= METADATA_PAIRS_MAX, || {
        format!("`metadata` has {} pairs: use at most {METADATA_PAIRS_MAX}", job.metadata.len())
    })?;
    let key = job.metadata.keys().all(|key| chars_within(key, METADATA_KEY_CHARS_MAX));
    require(key, || {
        format!("a `metadata` key is longer than {METADATA_KEY_CHARS_MAX} characters: shorten it")
    })?;
    let value = job.metadata.values().all(|value| chars_within(value, METADATA_VALUE_CHARS_MAX));
    require(value, || {
        format!(
            "a `metadata` value is longer than {METADATA_VALUE_CHARS_MAX} characters: shorten it"
        )
    })
}

fn inputs(work: &Work, limits: &Limits) -> Check {
    let (field, count, max) = match work {
        Work::Rerank { documents, .. } => ("documents", documents.len(), limits.inputs_max),
        Work::Generate { prompt: Prompt::Messages(messages), .. } => {
            ("messages", messages.len(), limits.inputs_max)
        }
        Work::EmbedIds { .. } => ("input_ids", work.inputs(), limits.inputs_max),
        _ => ("input", work.inputs(), limits.inputs_max),
    };
    require(count > 0, || format!("`{field}` is empty: send at least one"))?;
    require(count <= max, || {
        format!("`{field}` has {count} elements, the limit is {max}: split it into several jobs")
    })?;
    match work {
        Work::EmbedIds { input_ids, .. } => sequences(input_ids),
        _ => Ok(()),
    }
}

fn sequences(input_ids: &[Vec<u32>]) -> Check {
    let empty = input_ids.iter().position(Vec::is_empty);
    require(empty.is_none(), || {
        let index = empty.unwrap_or_default();
        format!("`input_ids[{index}]` is empty: a sequence has at least one token id")
    })?;
    let ids: usize = input_ids.iter().map(Vec::len).sum();
    require(ids <= TOKEN_IDS_MAX, || {
        format!(
            "`input_ids` has {ids} token ids, the limit is {TOKEN_IDS_MAX}: split it into several jobs"
        )
    })
}

fn params(work: &Work) -> Check {
    match work {
        Work::Embed { params, .. } | Work::EmbedIds { params, .. } => {
            positive("dimensions", params.dimensions)
        }
        Work::EmbedSparse { params, .. } => sparse(params),
        Work::Rerank { params, .. } => positive("top_n", params.top_n),
        Work::EmbedTokens { .. } | Work::Classify { .. } => Ok(()),
        Work::Generate { params, .. } => generate(params),
    }
}

fn positive(field: &str, value: Option<u32>) -> Check {
    require(value != Some(0), || format!("`{field}` is 0: use 1 or more"))
}

fn sparse(params: &SparseParams) -> Check {
    positive("top_k", params.top_k)?;
    let kept = params.top_k.unwrap_or(1);
    require(kept <= SPARSE_VALUES_MAX, || {
        format!("`top_k` is {kept}: a sparse vector has at most {SPARSE_VALUES_MAX} values")
    })
}

fn generate(params: &GenerateParams) -> Check {
    positive("max_tokens", params.max_tokens)?;
    positive("top_k", params.top_k)?;
    let most = params.max_tokens.unwrap_or(u32::MAX);
    let least = params.min_tokens.unwrap_or(0);
    require(least <= most, || {
        format!(
            "`min_tokens` is {least}, more than `max_tokens`, which is {most}: use at most that"
        )
    })?;
    within("temperature", params.temperature, 0.0, 2.0)?;
    if let Some(top_p) = params.top_p {
        require(top_p > 0.0 && top_p <= 1.0, || {
            format!("`top_p` is {top_p}: use more than 0 and at most 1")
        })?;
    }
    within("min_p", params.min_p, 0.0, 1.0)?;
    within("presence_penalty", params.presence_penalty, -2.0, 2.0)?;
    within("frequency_penalty", params.frequency_penalty, -2.0, 2.0)?;
    if let Some(penalty) = params.repetition_penalty {
        require(penalty > 0.0 && penalty <= 2.0, || {
            format!("`repetition_penalty` is {penalty}: use more than 0 and at most 2")
        })?;
    }
    let alternatives = params.logprobs.unwrap_or(0);
    require(alternatives <= LOGPROBS_MAX, || {
        format!("`logprobs` is {alternatives}: use at most {LOGPROBS_MAX}")
    })?;
    ends(params)?;
    biases(params)?;
    let tools = params.tools.iter().all(|tool| matches!(tool, Json::Map(_)));
    require(tools, || "each of `tools` must be a map".to_owned())?;
    require(params.tools.len() <= TOOLS_MAX, || {
        format!("`tools` has {} elements: use at most {TOOLS_MAX}", params.tools.len())
    })?;
    params.response_format.as_ref().map_or(Ok(()), response_format)
}

fn within(field: &str, value: Option<f32>, from: f32, to: f32) -> Check {
    let Some(value) = value else { return Ok(()) };
    require((from..=to).contains(&value), || format!("`{field}` is {value}: use {from} to {to}"))
}

fn ends(params: &GenerateParams) -> Check {
    require(params.stop.len() <= STOPS_MAX, || {
        format!("`stop` has {} elements: use at most {STOPS_MAX}", params.stop.len())
    })?;
    let short =
        params.stop.iter().all(|stop| !stop.is_empty() && chars_within(stop, STOP_CHARS_MAX));
    require(short, || format!("each `stop` must have 1 to {STOP_CHARS_MAX} characters"))?;
    let ids = params.stop_token_ids.len();
    require(ids <= STOP_TOKENS_MAX, || {
        format!("`stop_token_ids` has {ids} elements: use at most {STOP_TOKENS_MAX}")
    })
}

fn biases(params: &GenerateParams) -> Check {
    let count = params.logit_bias.len();
    require(count <= LOGIT_BIAS_MAX, || {
        format!("`logit_bias` has {count} pairs: use at most {LOGIT_BIAS_MAX}")
    })?;
    let most = LOGIT_BIAS_ABS_MAX;
    let wrong = params.logit_bias.iter().find(|(_, bias)| !(-most..=most).contains(*bias));
    require(wrong.is_none(), || {
        let (id, bias) = wrong.map_or((0, 0.0), |(id, bias)| (*id, *bias));
        format!("`logit_bias.{id}` is {bias}: use -{most} to {most}")
    })
}

fn response_format(format: &ResponseFormat) -> Check {
    let guide = |text: &String| !text.is_empty() && chars_within(text, GUIDE_CHARS_MAX);
    match format {
        ResponseFormat::JsonSchema(schema) => {
            require(matches!(schema, Json::Map(_) | Json::Flag(_)), || {
                "`json_schema` must be a map: send the schema itself".to_owned()
            })
        }
        ResponseFormat::Regex(regex) => {
            require(guide(regex), || format!("`regex` must have 1 to {GUIDE_CHARS_MAX} characters"))
        }
        ResponseFormat::Choice(choice) => {
            require(!choice.is_empty(), || "`choice` is empty: send at least one".to_owned())?;
            require(choice.len() <= CHOICES_MAX, || {
                format!("`choice` has {} elements: use at most {CHOICES_MAX}", choice.len())
            })?;
            require(choice.iter().all(guide), || {
                format!("each `choice` must have 1 to {GUIDE_CHARS_MAX} characters")
            })
        }
    }
}
