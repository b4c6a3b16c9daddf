//! The wire form of a job: one flat map, where the program's type is a tree.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use crate::{
    codec::{self, CodecError, ContentType},
    generate::{GenerateParams, Message, Prompt, ResponseFormat},
    job::{EmbedParams, InputType, Job, RerankParams, SparseParams, Task, TokensParams, Work},
    json::Json,
    names::{JobId, ModelId},
    version::VERSION,
};

impl Job {
    /// The body of this job's message.
    pub fn encode(&self, content_type: ContentType) -> Result<Vec<u8>, CodecError> {
        codec::encode(&WireJob::from(self), content_type)
    }
}

/// The body of a job's message: one map.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "Forebay job, version 1")]
pub(crate) struct WireJob<'a> {
    /// The contract's version: 1.
    #[schemars(range(min = 1, max = 1))]
    v: u64,
    /// Equals the AMQP property `message_id`.
    id: &'a JobId,
    /// The model that computes it.
    model: &'a ModelId,
    /// The kind of work that is asked for.
    task: Task,
    /// `embed`, `embed_sparse`, `embed_tokens`, `classify`: a string or a list of strings. `rerank`:
    /// `{query, documents}`. `generate`: `{prompt}` or `{messages}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<WireInput<'a>>,
    /// `embed`, instead of `input`: sequences of the model's own token ids, each whole, with its special tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    input_ids: Option<&'a [Vec<u32>]>,
    /// How the task is done; each task reads its own parameters.
    #[serde(skip_serializing_if = "WireParams::is_empty")]
    params: WireParams<'a>,
    /// The tenant that the job is accounted to, as the publisher names it: jobs that a worker holds go in fair order
    /// among tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    tenant: Option<&'a str>,
    /// When it was submitted, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    submitted_at_ms: Option<u64>,
    /// The job expires this many milliseconds after it was submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
    /// How long the result is kept, in seconds; 86,400 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000))]
    result_ttl_s: Option<u64>,
    /// A Redis channel on which the id is published once the result is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    notify: Option<&'a str>,
    /// Returned unchanged in the result: at most 16 pairs of at most 64 and 512 characters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum WireInput<'a> {
    // Never written (a list of one is equivalent), yet part of the schema: it is read.
    #[allow(dead_code)]
    One(&'a str),
    Many(&'a [String]),
    Rerank {
        query: &'a str,
        documents: &'a [String],
    },
    Prompt {
        prompt: &'a str,
    },
    Messages {
        messages: &'a [Message],
    },
}

#[derive(Default, PartialEq, Serialize, JsonSchema)]
#[serde(default)]
struct WireParams<'a> {
    /// `embed`: scale each vector to length 1; true when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    normalize: Option<bool>,
    /// `embed`, `embed_sparse`, `embed_tokens`: cut texts that are too long; true when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<bool>,
    /// `embed`: keep only this many of the first dimensions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    dimensions: Option<u32>,
    /// `rerank`: return only this many documents, the best first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    top_n: Option<u32>,
    /// `generate`: stop after this many tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    max_tokens: Option<u32>,
    /// `generate`: 0 takes the likeliest token.
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    /// `generate`: sample from the likeliest tokens that together have this probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    /// `generate`: sample from this many of the likeliest tokens. `embed_sparse`: keep only this many of the largest
    /// values of a vector, at most 1,024, which is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    top_k: Option<u32>,
    /// `embed_tokens`: what the texts are; `document` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    input_type: Option<InputType>,
    /// `generate`: don't end before this many tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    min_tokens: Option<u32>,
    /// `generate`: sample from tokens that have at least this share of the likeliest token's probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    min_p: Option<f32>,
    /// `generate`: taken off the logit of each token that the output has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -2, max = 2))]
    presence_penalty: Option<f32>,
    /// `generate`: taken off the logit of each token for each time that the output has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -2, max = 2))]
    frequency_penalty: Option<f32>,
    /// `generate`: divides the positive logits, and multiplies the negative ones, of tokens that prompt or output have;
    /// more than 0 and at most 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    repetition_penalty: Option<f32>,
    /// `generate`: added to the logits of these token ids, -100 to 100 each; at most 1,024.
    #[serde(skip_serializing_if = "Option::is_none")]
    logit_bias: Option<Biases<'a>>,
    /// `generate`: end where one of these begins.
    #[serde(skip_serializing_if = "is_empty")]
    #[schemars(length(max = 16))]
    stop: &'a [String],
    /// `generate`: end at one of these token ids, beside the model's own ends.
    #[serde(skip_serializing_if = "is_empty")]
    #[schemars(length(max = 256))]
    stop_token_ids: &'a [u32],
    /// `generate`: go on past the model's own ends.
    #[serde(skip_serializing_if = "is_false")]
    ignore_eos: bool,
    /// `generate`: makes sampling repeatable.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// `generate`: return each token's log-probability, beside those of this many of the likeliest tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 20))]
    logprobs: Option<u32>,
    /// `generate`: return the output's token ids.
    #[serde(skip_serializing_if = "is_false")]
    return_token_ids: bool,
    /// `generate`: the format that the whole text has to fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'a ResponseFormat>,
    /// `generate`: the tools that the model may call, as its template takes them.
    #[serde(skip_serializing_if = "is_empty")]
    #[schemars(length(max = 128))]
    tools: &'a [Json],
    /// `generate`: write tokens to the job's token stream as they come.
    #[serde(skip_serializing_if = "is_false")]
    stream: bool,
}

impl WireParams<'_> {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's way to call it
fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_empty<T>(list: &&[T]) -> bool {
    list.is_empty()
}

/// A `logit_bias` with its ids as texts, which JSON has no other keys than.
#[derive(Clone, Copy, PartialEq)]
struct Biases<'a>(&'a BTreeMap<u32, f32>);

impl Serialize for Biases<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(id, bias)| (id.to_string(), bias)))
    }
}

impl JsonSchema for Biases<'_> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LogitBias".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "additionalProperties": {"type": "number"}})
    }
}

impl<'a> From<&'a Job> for WireJob<'a> {
    fn from(job: &'a Job) -> Self {
        Self {
            v: VERSION,
            id: &job.id,
            model: &job.model,
            task: job.work.task(),
            input: WireInput::of(&job.work),
            input_ids: ids_of(&job.work),
            params: WireParams::from(&job.work),
            tenant: job.tenant.as_deref(),
            submitted_at_ms: job.submitted_at_ms,
            expires_in_ms: job.expires_in_ms,
            result_ttl_s: job.result_ttl_s,
            notify: job.notify.as_deref(),
            metadata: &job.metadata,
        }
    }
}

fn ids_of(work: &Work) -> Option<&[Vec<u32>]> {
    match work {
        Work::EmbedIds { input_ids, .. } => Some(input_ids),
        _ => None,
    }
}

impl<'a> WireInput<'a> {
    fn of(work: &'a Work) -> Option<Self> {
        Some(match work {
            Work::EmbedIds { .. } => return None,
            Work::Embed { input, .. }
            | Work::EmbedSparse { input, .. }
            | Work::EmbedTokens { input, .. }
            | Work::Classify { input } => Self::Many(input),
            Work::Rerank { query, documents, .. } => Self::Rerank { query, documents },
            Work::Generate { prompt: Prompt::Text(prompt), .. } => Self::Prompt { prompt },
            Work::Generate { prompt: Prompt::Messages(messages), .. } => {
                Self::Messages { messages }
            }
        })
    }
}

impl<'a> From<&'a Work> for WireParams<'a> {
    /// Only what differs from the default is written.
    fn from(work: &'a Work) -> Self {
        match work {
            Work::Embed { params: EmbedParams { normalize, truncate, dimensions }, .. }
            | Work::EmbedIds { params: EmbedParams { normalize, truncate, dimensions }, .. } => {
                Self {
                    normalize: (!normalize).then_some(false),
                    truncate: (!truncate).then_some(false),
                    dimensions: *dimensions,
                    ..Self::default()
                }
            }
            Work::EmbedSparse { params: SparseParams { truncate, top_k }, .. } => {
                Self { truncate: (!truncate).then_some(false), top_k: *top_k, ..Self::default() }
            }
            Work::EmbedTokens { params: TokensParams { truncate, input_type }, .. } => Self {
                truncate: (!truncate).then_some(false),
                input_type: Some(*input_type).filter(|kind| *kind != InputType::default()),
                ..Self::default()
            },
            Work::Rerank { params: RerankParams { top_n }, .. } => {
                Self { top_n: *top_n, ..Self::default() }
            }
            Work::Classify { .. } => Self::default(),
            Work::Generate { params, .. } => Self::from(params),
        }
    }
}

impl<'a> From<&'a GenerateParams> for WireParams<'a> {
    fn from(params: &'a GenerateParams) -> Self {
        Self {
            max_tokens: params.max_tokens,
            temperature: params.temperature,
            top_p: params.top_p,
            top_k: params.top_k,
            min_tokens: params.min_tokens,
            min_p: params.min_p,
            presence_penalty: params.presence_penalty,
            frequency_penalty: params.frequency_penalty,
            repetition_penalty: params.repetition_penalty,
            logit_bias: Some(&params.logit_bias).filter(|bias| !bias.is_empty()).map(Biases),
            stop: &params.stop,
            stop_token_ids: &params.stop_token_ids,
            ignore_eos: params.ignore_eos,
            seed: params.seed,
            logprobs: params.logprobs,
            return_token_ids: params.return_token_ids,
            response_format: params.response_format.as_ref(),
            tools: &params.tools,
            stream: params.stream,
            ..Self::default()
        }
    }
}
