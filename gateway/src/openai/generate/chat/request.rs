//! The request.

use forebay_schemas::{Prompt, limits::LOGPROBS_MAX};
use schemars::JsonSchema;

use crate::{
    error::ApiError,
    fields::{Fields, unexpected},
    openai::generate::{
        format::{self, FormatBody, StructuredBody},
        messages::{self, MessageBody},
        output::{StreamOptions, Streaming, TextRequest, one_answer, refuse},
        sampling::{self, SamplingBody},
        tools::{ChoiceBody, Forced, Shape, ToolBody, Tools},
    },
};

/// The body of a request, as the document has it.
#[derive(JsonSchema)]
pub struct ChatBody {
    /// The model; may be left out where the fleet has only one.
    pub model: Option<String>,
    /// The conversation.
    #[schemars(length(min = 1))]
    pub messages: Vec<MessageBody>,
    /// The most tokens of the answer.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub max_completion_tokens: Option<u32>,
    /// The older name of `max_completion_tokens`.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub max_tokens: Option<u32>,
    /// The answers to return: one.
    #[schemars(range(min = 1, max = 1))]
    pub n: Option<u32>,
    /// The answer comes as server-sent events.
    pub stream: Option<bool>,
    /// The options of a stream.
    pub stream_options: Option<StreamOptions>,
    /// Return the log-probability of each token.
    pub logprobs: Option<bool>,
    /// And those of this many of the likeliest tokens.
    #[schemars(range(min = 0, max = LOGPROBS_MAX))]
    pub top_logprobs: Option<u32>,
    /// The text that the answer has to be.
    pub response_format: Option<FormatBody>,
    /// vLLM's name for it.
    pub structured_outputs: Option<StructuredBody>,
    /// The tools that the model may call.
    pub tools: Option<Vec<ToolBody>>,
    /// Whether it has to call one.
    pub tool_choice: Option<ChoiceBody>,
    /// The forms of the answer: text.
    #[schemars(extend("const" = ["text"]))]
    pub modalities: Option<Vec<String>>,
    /// Not supported: send `tools`.
    pub functions: Option<()>,
    /// Not supported: send `tool_choice`.
    pub function_call: Option<()>,
    /// Not supported.
    pub audio: Option<()>,
    /// Not supported.
    pub web_search_options: Option<()>,
    /// How tokens are sampled.
    #[schemars(flatten)]
    pub sampling: SamplingBody,
}

/// The fields that [`ChatRequest::parse`] reads, without those of sampling.
const OWN: [&str; 18] = [
    "model",
    "messages",
    "max_completion_tokens",
    "max_tokens",
    "n",
    "stream",
    "stream_options",
    "logprobs",
    "top_logprobs",
    "response_format",
    "structured_outputs",
    "tools",
    "tool_choice",
    "modalities",
    "functions",
    "function_call",
    "audio",
    "web_search_options",
];
/// All fields that it reads.
pub const NAMES: [&[&str]; 2] = [&OWN, &sampling::NAMES];

/// A request for an answer to a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// The text that is asked for.
    pub text: TextRequest,
    /// The form of the answer.
    pub form: ChatForm,
}

/// The form of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatForm {
    /// How it comes.
    pub streaming: Streaming,
    /// It has log-probabilities.
    pub has_logprobs: bool,
    /// The model may call tools.
    pub has_tools: bool,
    /// The call that the answer has to be.
    pub forced: Option<Forced>,
}

impl ChatRequest {
    /// Reads a body with at most `messages_max` turns.
    pub fn parse(body: &[u8], messages_max: usize) -> Result<Self, ApiError> {
        let fields = Fields::scan(body, &NAMES.concat())?;
        refuse(&fields, &["functions", "function_call", "audio", "web_search_options"])?;
        one_answer(&fields, "n")?;
        only_text(&fields)?;
        let raw = fields.raw("messages").ok_or_else(|| {
            ApiError::invalid("messages", "`messages` is missing: send a list of messages")
        })?;
        let messages = messages::read("messages", raw, messages_max)?;
        let mut params = sampling::read(&fields)?;
        let most = fields.count("max_completion_tokens")?;
        params.max_tokens = most.or(fields.count("max_tokens")?);
        let top = sampling::whole(&fields, "top_logprobs", 0, i64::from(LOGPROBS_MAX))?;
        let has_logprobs = fields.flag("logprobs")?.unwrap_or(false);
        params.logprobs =
            has_logprobs.then(|| top.and_then(|top| u32::try_from(top).ok()).unwrap_or(0));
        let tools = Tools::read(&fields, Shape::Nested)?;
        let format = format::read(&fields)?;
        let has_tools = tools.are_there();
        params.tools = tools.list;
        params.response_format = tools.format.or(format);
        let streaming = Streaming::read(&fields)?;
        params.stream = streaming.is_on;
        let prompts = vec![Prompt::Messages(messages)];
        let form = ChatForm { streaming, has_logprobs, has_tools, forced: tools.forced };
        Ok(Self { text: TextRequest { model: fields.text("model")?, prompts, params }, form })
    }
}

fn only_text(fields: &Fields<'_>) -> Result<(), ApiError> {
    let Some(raw) = fields.raw("modalities") else { return Ok(()) };
    let expected = "[\"text\"]";
    let list: Result<Vec<String>, _> = serde_json::from_str(raw.get());
    match list {
        Ok(list) if list == ["text"] => Ok(()),
        Ok(_) => {
            Err(ApiError::invalid("modalities", format!("`modalities` has more: send {expected}")))
        }
        Err(_) => Err(unexpected("modalities", raw, expected)),
    }
}

#[cfg(test)]
mod tests {
    use forebay_schemas::{GenerateParams, Message, ResponseFormat};
    use serde_json::{Value, json};

    use super::*;

    fn parsed(body: &Value) -> Result<ChatRequest, ApiError> {
        ChatRequest::parse(body.to_string().as_bytes(), 10)
    }

    fn asked(more: &Value) -> Value {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    }

    #[test]
    fn a_request_of_the_official_client_is_read() {
        let body = asked(
            &json!({"max_completion_tokens": 5, "max_tokens": 9, "n": 1, "stream": true,
            "stream_options": {"include_usage": true, "continuous_usage_stats": true}, "logprobs": true,
            "top_logprobs": 2, "user": "u", "metadata": {"a": "b"}, "parallel_tool_calls": true, "store": false,
            "reasoning_effort": "low", "response_format": {"type": "json_object"}, "modalities": ["text"],
            "functions": null}),
        );
        let found = parsed(&body).unwrap();
        let format = serde_json::from_str("{\"type\":\"object\"}").unwrap();
        let params = GenerateParams {
            max_tokens: Some(5),
            logprobs: Some(2),
            stream: true,
            response_format: Some(ResponseFormat::JsonSchema(format)),
            ..GenerateParams::default()
        };
        let prompts = vec![Prompt::Messages(vec![Message::new("user", "Hi")])];
        assert_eq!(found.text, TextRequest { model: Some("m".into()), prompts, params });
        let streaming = Streaming { is_on: true, include_usage: true };
        let expected = ChatForm { streaming, has_logprobs: true, ..ChatForm::default() };
        assert_eq!(found.form, expected);
    }

    #[test]
    fn a_request_with_nothing_but_messages_is_left_to_the_model() {
        let found =
            parsed(&json!({"messages": [{"role": "user", "content": "Hi"}], "stream": false}))
                .unwrap();
        assert_eq!(found.text.params, GenerateParams::default());
        assert_eq!((found.text.model, found.form), (None, ChatForm::default()));
    }

    #[test]
    fn a_call_that_has_to_be_goes_before_a_format() {
        let tool = json!({"type": "function", "function": {"name": "f"}});
        let body = asked(
            &json!({"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "f"}},
                                 "response_format": {"type": "regex", "regex": "x"}}),
        );
        let found = parsed(&body).unwrap();
        assert!(matches!(found.text.params.response_format, Some(ResponseFormat::JsonSchema(_))));
        assert_eq!(found.form.forced, Some(Forced::Named("f".into())));
        assert!(found.form.has_tools && found.text.params.tools.len() == 1);
    }

    #[test]
    fn a_mistake_has_the_name_of_its_field() {
        for (name, wrong) in [
            ("messages", json!(null)),
            ("messages", json!([])),
            ("n", json!(2)),
            ("max_tokens", json!(0)),
            ("max_completion_tokens", json!("5")),
            ("stream", json!("yes")),
            ("stream_options", json!({"include_usage": 1})),
            ("logprobs", json!(5)),
            ("top_logprobs", json!(21)),
            ("modalities", json!(["text", "audio"])),
            ("functions", json!([])),
            ("model", json!(7)),
            ("temperature", json!(9)),
        ] {
            let error = parsed(&asked(&json!({name: wrong}))).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name), "{error}");
        }
    }
}
