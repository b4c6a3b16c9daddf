//! From a job to the tokens that a generator begins with: the chat template, the tokenizer, the guide, and how tokens
//! are picked.

use std::sync::{Arc, OnceLock};

use forebay_engine::{
    ChatInput, ChatTemplate, Detokenizer, EngineError, GenerationInfo, Guide, GuideError, Guided,
    Guides, Model, Sampling, TemplateError, Tokenizer, ToolCalls, ToolFormat, Vocabulary,
};
use forebay_schemas::{
    ErrorCode, GenerateParams, JobError, JobId, Message, Prompt, ResponseFormat, TokenChunk, Work,
};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    generate::{
        answer::{Answer, Words},
        sequence::{Figures, Sequence},
    },
    job::Admitted,
};

/// A job whose output may be longer than this has a token stream, also if its publisher does not follow it: another
/// worker goes on from there.
pub const STREAMED_FROM: usize = 64;
/// The temperature where neither the job nor the model says one: that of the OpenAI API.
const TEMPERATURE: f32 = 1.0;

/// All of a model that prompts are made with. It is shared by threads.
pub struct Prompting {
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    tool_format: Option<ToolFormat>,
    vocabulary: Arc<Vocabulary>,
    /// Made for the first job that needs them: that takes a second for the largest vocabularies.
    guides: OnceLock<Result<Guides, GuideError>>,
    info: GenerationInfo,
    tokens_max: usize,
}

impl Prompting {
    /// Takes the parts of a model, of whose sequences each has at most so many tokens.
    pub fn new(model: &Model, tokens_max: usize) -> Result<Self, EngineError> {
        let info = model.info.generation.clone().unwrap_or_default();
        let template = info.chat_template.as_ref();
        let read = template.map(|source| ChatTemplate::new(source, info.special_tokens.clone()));
        let read = read
            .transpose()
            .map_err(|error| EngineError::Tokenizer { problem: error.to_string() })?;
        Ok(Self {
            tokenizer: model.tokenizer.clone(),
            tool_format: template.and_then(|source| ToolFormat::of_template(source)),
            template: read,
            vocabulary: Arc::new(model.tokenizer.vocabulary()?),
            guides: OnceLock::new(),
            info,
            tokens_max,
        })
    }

    /// The texts of tokens.
    pub fn words(&self) -> Words {
        Words(self.vocabulary.clone())
    }

    /// Prepares a job. `written` is the output of an earlier attempt.
    pub fn prepare(
        &self,
        admitted: Admitted,
        owner: String,
        written: Vec<TokenChunk>,
        now_ms: u64,
    ) -> Prepared {
        let began = Instant::now();
        match self.begun(&admitted, now_ms) {
            Err(error) => Prepared::Failed(Box::new((admitted, error))),
            Ok(begun) => sequence(admitted, owner, written, begun, began),
        }
    }

    fn begun(&self, admitted: &Admitted, now_ms: u64) -> Result<Begun, JobError> {
        let Work::Generate { prompt, params } = &admitted.job.work else {
            return Err(JobError::invalid("not a generation"));
        };
        let now_ms = admitted.job.submitted_at_ms.unwrap_or(now_ms);
        let tokens = match prompt {
            Prompt::Text(text) => self.encode(text, true)?,
            Prompt::Messages(messages) => {
                self.encode(&self.rendered(messages, params, now_ms)?, false)?
            }
        };
        if tokens.is_empty() {
            return Err(JobError::invalid("the prompt has no tokens: send some text"));
        }
        let left = self.tokens_max.saturating_sub(tokens.len());
        if left == 0 {
            let count = tokens.len();
            let most = self.tokens_max;
            let message = format!(
                "the prompt has {count} tokens, and prompt and output together have at most {most}: shorten it"
            );
            return Err(JobError::new(ErrorCode::InputTooLong, message));
        }
        let output_max = params.max_tokens.map_or(left, |most| most as usize);
        if output_max > left {
            // As OpenAI and vLLM do: an output that is cut there would look like one that had its limit.
            let message = format!(
                "`max_tokens` is {output_max} and the prompt has {} tokens, but prompt and output together have at \
                 most {}: ask for {left} or fewer, or leave `max_tokens` out",
                tokens.len(),
                self.tokens_max
            );
            return Err(JobError::new(ErrorCode::InputTooLong, message));
        }
        let sampling = self.sampling(params, &admitted.job.id);
        let guide = params.response_format.as_ref().map(|format| self.guide(format)).transpose()?;
        let is_streamed = params.stream || output_max > STREAMED_FROM;
        let answer = self.answer(params, matches!(prompt, Prompt::Messages(_)));
        Ok(Begun { tokens, sampling, guide, answer, output_max, is_streamed })
    }

    fn encode(&self, text: &str, adds_special: bool) -> Result<Vec<u32>, JobError> {
        let tokens = self.tokenizer.encode_prompt(text, adds_special);
        tokens.map_err(|error| JobError::invalid(error.to_string()))
    }

    fn rendered(
        &self,
        messages: &[Message],
        params: &GenerateParams,
        now_ms: u64,
    ) -> Result<String, JobError> {
        let Some(template) = &self.template else {
            let message = "the model has no chat template: send `prompt` instead of `messages`";
            return Err(JobError::invalid(message));
        };
        let messages = Value::Array(messages.iter().map(message).collect());
        let tools: Result<Vec<Value>, _> = params.tools.iter().map(serde_json::to_value).collect();
        let tools = tools.map_err(|error| JobError::invalid(error.to_string()))?;
        let input = ChatInput {
            messages: &messages,
            tools: &Value::Array(tools),
            add_generation_prompt: true,
            arguments: &Map::new(),
            now_ms: i64::try_from(now_ms).unwrap_or(i64::MAX),
        };
        template.render(&input).map_err(|error| {
            let code = match error {
                TemplateError::Refused(_) | TemplateError::TooMuch { .. } => {
                    ErrorCode::InvalidRequest
                }
                // Another attempt would fail too.
                TemplateError::Unreadable { .. } | TemplateError::Failed { .. } => {
                    ErrorCode::TaskNotSupported
                }
            };
            JobError::new(code, error.to_string())
        })
    }

    fn answer(&self, params: &GenerateParams, is_chat: bool) -> Answer {
        let vocabulary = self.vocabulary.clone();
        let detokenizer =
            if is_chat { Detokenizer::new(vocabulary) } else { Detokenizer::following(vocabulary) };
        let format = self.tool_format.filter(|_| !params.tools.is_empty());
        let keeps_special = format.is_some_and(ToolFormat::has_special_marks);
        let detokenizer = if keeps_special { detokenizer.keeping_special() } else { detokenizer };
        Answer::new(detokenizer, params.stop.clone(), format.map(ToolCalls::new))
    }

    fn guide(&self, format: &ResponseFormat) -> Result<Guide, JobError> {
        let guided = match format {
            ResponseFormat::JsonSchema(schema) => {
                let schema = serde_json::to_value(schema);
                Guided::JsonSchema(schema.map_err(|error| JobError::invalid(error.to_string()))?)
            }
            ResponseFormat::Regex(regex) => Guided::Regex(regex.clone()),
            ResponseFormat::Choice(choices) => Guided::Choice(choices.clone()),
        };
        let failed = |error: &GuideError| {
            let code = match error {
                GuideError::Model(_) => ErrorCode::TaskNotSupported,
                GuideError::Unreadable(_) | GuideError::Broken(_) => ErrorCode::InvalidRequest,
            };
            JobError::new(code, error.to_string())
        };
        let guides = self.guides.get_or_init(|| {
            let tokenizer = self.tokenizer.clone();
            let tokenize =
                move |text: &str| tokenizer.encode_prompt(text, false).unwrap_or_default();
            Guides::new(&self.vocabulary, &self.info.end_token_ids, Box::new(tokenize))
        });
        guides.as_ref().map_err(failed)?.guide(&guided).map_err(|error| failed(&error))
    }

    fn sampling(&self, params: &GenerateParams, id: &JobId) -> Sampling {
        let model = &self.info.recommended;
        let default = Sampling::default();
        Sampling {
            temperature: params.temperature.or(model.temperature).unwrap_or(TEMPERATURE),
            top_k: params.top_k.map(|k| k as usize).or(model.top_k).unwrap_or(default.top_k),
            top_p: params.top_p.or(model.top_p).unwrap_or(default.top_p),
            min_p: params.min_p.or(model.min_p).unwrap_or(default.min_p),
            presence_penalty: params.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: params.frequency_penalty.unwrap_or(default.frequency_penalty),
            repetition_penalty: params
                .repetition_penalty
                .or(model.repetition_penalty)
                .unwrap_or(default.repetition_penalty),
            logit_bias: params.logit_bias.iter().map(|(id, bias)| (*id, *bias)).collect(),
            seed: params.seed.unwrap_or_else(|| hash(id.as_str())),
            logprobs: params.logprobs.map(|count| count as usize),
            min_tokens: params.min_tokens.unwrap_or_default() as usize,
            ignore_eos: params.ignore_eos,
            stop_token_ids: params.stop_token_ids.clone(),
            end_token_ids: self.info.end_token_ids.clone(),
        }
    }
}

/// The sequence of a job, with the output of an earlier attempt.
fn sequence(
    admitted: Admitted,
    owner: String,
    written: Vec<TokenChunk>,
    begun: Begun,
    began: Instant,
) -> Prepared {
    let Begun { tokens, sampling, guide, answer, output_max, is_streamed } = begun;
    let Admitted { mut job, ticket, lane, queued_ms, at } = admitted;
    if let Work::Generate { prompt, .. } = &mut job.work {
        // From here on only the tokens are needed.
        *prompt = Prompt::Text(String::new());
    }
    let now = Instant::now();
    let salt = hash(job.tenant.as_deref().unwrap_or_default());
    let mut sequence = Sequence {
        salt,
        job,
        ticket,
        lane,
        queued_ms,
        admitted_at: at,
        owner,
        prompt_tokens: tokens.len(),
        tokens,
        output_max,
        logprobs: sampling.logprobs.map(|_| Vec::new()),
        sampling,
        guide,
        mask: None,
        answer,
        entry: None,
        open: None,
        streamed: is_streamed.then_some(0),
        streamed_at: now,
        alone_until: None,
        figures: Figures { tokenized: Some((began, now)), ..Figures::default() },
    };
    match sequence.resume(written) {
        Ok(ended) => {
            sequence.suspect();
            Prepared::Sequence(Box::new((sequence, ended)))
        }
        Err(error) => Prepared::Broken(Box::new((sequence, error))),
    }
}

/// The parts of a sequence that come of the job alone.
struct Begun {
    tokens: Vec<u32>,
    sampling: Sampling,
    guide: Option<Guide>,
    answer: Answer,
    output_max: usize,
    is_streamed: bool,
}

/// A job that was prepared.
pub enum Prepared {
    /// It can run, unless the output of an earlier attempt had ended.
    Sequence(Box<(Sequence, Option<forebay_schemas::FinishReason>)>),
    /// It can't.
    Failed(Box<(Admitted, JobError)>),
    /// It can't go on from the output of an earlier attempt.
    Broken(Box<(Sequence, JobError)>),
}

/// A turn in the form that templates take.
fn message(message: &Message) -> Value {
    let mut turn = Map::new();
    turn.insert("role".to_owned(), json!(message.role));
    turn.insert("content".to_owned(), json!(message.content));
    if let Some(name) = &message.name {
        turn.insert("name".to_owned(), json!(name));
    }
    if let Some(id) = &message.tool_call_id {
        turn.insert("tool_call_id".to_owned(), json!(id));
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        });
        turn.insert("tool_calls".to_owned(), calls.collect());
    }
    Value::Object(turn)
}

/// A number of a text that is the same in every process: 64-bit FNV-1a. Seeds of jobs without one, so that another
/// attempt picks the same tokens, and the salts of tenants.
pub fn hash(text: &str) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    text.bytes().fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}
