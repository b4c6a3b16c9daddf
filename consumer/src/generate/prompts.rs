//! Lines of prompts or chats, for the generator alone, as token ids with their parameters.

use std::{
    io::BufRead,
    sync::{Arc, mpsc},
    time::{SystemTime, UNIX_EPOCH},
};

use forebay_engine::{
    ChatInput, ChatTemplate, Detokenizer, EngineError, GenerationInfo, ModelInfo, Sampling,
    Tokenizer, Vocabulary,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::WorkerError;

/// Settings of every prompt of a run that does not say otherwise itself.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The most sequences at once.
    pub concurrency: usize,
    /// The most tokens of an answer.
    pub tokens_max: usize,
    /// 0 for the likeliest token each time.
    pub temperature: f32,
}

/// One line of input.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    id: Value,
    prompt: Option<String>,
    messages: Option<Value>,
    #[serde(default)]
    tools: Value,
    #[serde(default)]
    params: Params,
}

/// The parameters that a line may have. Those that are not there are as the run's settings say.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: Option<u64>,
    stop: Stops,
    stop_token_ids: Vec<u32>,
    min_tokens: usize,
    ignore_eos: bool,
}

/// One stop string, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stops {
    One(String),
    Several(Vec<String>),
    None(()),
}

impl Default for Stops {
    fn default() -> Self {
        Self::None(())
    }
}

/// A prompt that is ready to be computed.
pub(super) struct Prompt {
    pub(super) id: Value,
    pub(super) ids: Vec<u32>,
    pub(super) sampling: Sampling,
    /// The most tokens of its answer.
    pub(super) tokens_max: usize,
    pub(super) stops: Vec<String>,
    is_chat: bool,
}

impl Prompt {
    /// Makes text of its answer's tokens.
    pub(super) fn detokenizer(&self, vocabulary: Arc<Vocabulary>) -> Detokenizer {
        if self.is_chat { Detokenizer::new(vocabulary) } else { Detokenizer::following(vocabulary) }
    }
}

/// Makes prompts of lines.
pub(super) struct Reader {
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    generation: GenerationInfo,
    tokens_max: usize,
    settings: Settings,
    now_ms: i64,
}

/// The number of a line that is not empty, and its prompt; or its id and why it is none.
pub(super) type Read = (u64, Result<Prompt, (Value, String)>);

impl Reader {
    pub(super) fn new(
        tokenizer: Arc<Tokenizer>,
        info: &ModelInfo,
        settings: Settings,
    ) -> Result<Self, WorkerError> {
        let generation = info.generation.clone().unwrap_or_default();
        let template = generation
            .chat_template
            .as_ref()
            .map(|source| ChatTemplate::new(source, generation.special_tokens.clone()));
        let template = template
            .transpose()
            .map_err(|error| EngineError::Tokenizer { problem: error.to_string() })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            tokenizer,
            template,
            generation,
            tokens_max: info.tokens_max,
            settings,
            now_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        })
    }

    /// Sends the prompts of all lines, until no step takes them any more.
    pub(super) fn read(
        self,
        input: impl BufRead,
        prompts: &mpsc::SyncSender<Read>,
    ) -> Result<(), WorkerError> {
        let mut number = 0;
        for (at, line) in input.lines().enumerate() {
            let line =
                line.map_err(|source| WorkerError::Io { action: "reading the prompts", source })?;
            if line.trim().is_empty() {
                continue;
            }
            let line: Line = serde_json::from_str(&line).map_err(|error| WorkerError::Line {
                line: at + 1,
                reason: error.to_string(),
                expected: "prompt",
            })?;
            let id = line.id.clone();
            let prompt = self.prompt(line).map_err(|problem| (id, problem));
            if prompts.send((number, prompt)).is_err() {
                break; // the receiving side has failed and returns its error
            }
            number += 1;
        }
        Ok(())
    }

    fn prompt(&self, line: Line) -> Result<Prompt, String> {
        let Line { id, prompt, messages, tools, params } = line;
        let is_chat = messages.is_some();
        let text = match (prompt, messages) {
            (Some(prompt), None) => prompt,
            (None, Some(messages)) => self.rendered(&messages, &tools)?,
            _ => return Err("a line has either `prompt` or `messages`".to_owned()),
        };
        // A template writes the first token itself.
        let ids =
            self.tokenizer.encode_prompt(&text, !is_chat).map_err(|error| error.to_string())?;
        if ids.is_empty() {
            return Err("the prompt has no tokens".to_owned());
        }
        let left = self.tokens_max.saturating_sub(ids.len());
        if left == 0 {
            let tokens = ids.len();
            return Err(format!(
                "the prompt has {tokens} tokens, and the model reads {}",
                self.tokens_max
            ));
        }
        let tokens_max = params.max_tokens.unwrap_or(self.settings.tokens_max.min(left)).max(1);
        if tokens_max > left {
            return Err(format!(
                "`max_tokens` is {tokens_max} and the prompt has {} tokens, but prompt and output together have at \
                 most {}: ask for {left} or fewer",
                ids.len(),
                self.tokens_max
            ));
        }
        let stops = match &params.stop {
            Stops::One(stop) => vec![stop.clone()],
            Stops::Several(stops) => stops.clone(),
            Stops::None(()) => Vec::new(),
        };
        Ok(Prompt { id, ids, sampling: self.sampling(params), tokens_max, stops, is_chat })
    }

    fn rendered(&self, messages: &Value, tools: &Value) -> Result<String, String> {
        let Some(template) = &self.template else {
            return Err("the model has no chat template; send `prompt`".to_owned());
        };
        let arguments = Map::new();
        let input = ChatInput {
            messages,
            tools,
            add_generation_prompt: true,
            arguments: &arguments,
            now_ms: self.now_ms,
        };
        template.render(&input).map_err(|error| error.to_string())
    }

    fn sampling(&self, params: Params) -> Sampling {
        let default = Sampling::default();
        Sampling {
            temperature: params.temperature.unwrap_or(self.settings.temperature),
            top_k: params.top_k.unwrap_or(default.top_k),
            top_p: params.top_p.unwrap_or(default.top_p),
            min_p: params.min_p.unwrap_or(default.min_p),
            presence_penalty: params.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: params.frequency_penalty.unwrap_or(default.frequency_penalty),
            repetition_penalty: params.repetition_penalty.unwrap_or(default.repetition_penalty),
            seed: params.seed.unwrap_or(default.seed),
            min_tokens: params.min_tokens,
            ignore_eos: params.ignore_eos,
            stop_token_ids: params.stop_token_ids,
            end_token_ids: self.generation.end_token_ids.clone(),
            ..default
        }
    }
}
