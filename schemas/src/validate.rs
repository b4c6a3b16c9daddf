//! Checks of a job beyond its shape, made before it is sent and after it is read.

use crate::{
    job::{GenerateParams, Job, Prompt, SparseParams, Work},
    limits::{
        Limits, METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX,
        NOTIFY_CHARS_MAX, RESULT_TTL_S_MAX, SPARSE_VALUES_MAX, STOP_CHARS_MAX, STOPS_MAX,
        SUBMITTED_AT_MS_MAX, SUBMITTED_AT_MS_MIN, TENANT_CHARS_MAX, TOKEN_IDS_MAX,
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
    if let Some(temperature) = params.temperature {
        require((0.0..=2.0).contains(&temperature), || {
            format!("`temperature` is {temperature}: use 0 to 2")
        })?;
    }
    if let Some(top_p) = params.top_p {
        require(top_p > 0.0 && top_p <= 1.0, || {
            format!("`top_p` is {top_p}: use more than 0 and at most 1")
        })?;
    }
    require(params.stop.len() <= STOPS_MAX, || {
        format!("`stop` has {} elements: use at most {STOPS_MAX}", params.stop.len())
    })?;
    let short =
        params.stop.iter().all(|stop| !stop.is_empty() && chars_within(stop, STOP_CHARS_MAX));
    require(short, || format!("each `stop` must have 1 to {STOP_CHARS_MAX} characters"))
}
