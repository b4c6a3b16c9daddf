//! The request.

use forebay_schemas::{Message, Prompt, limits::LOGPROBS_MAX};
use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::input::{self, InputBody};
use crate::{
    error::ApiError,
    fields::{Fields, Kind, kind, unexpected},
    openai::generate::{
        format::{TextFormatBody, of_response},
        messages::object,
        output::{TextRequest, refuse},
        sampling,
        tools::{ChoiceBody, FlatToolBody, Forced, Shape, Tools},
    },
};

/// The body of a request, as the document has it.
#[derive(JsonSchema)]
pub struct ResponseBody {
    /// The model; may be left out where the fleet has only one.
    pub model: Option<String>,
    /// A text, or the items of a conversation.
    pub input: InputBody,
    /// A system's turn in front of the input.
    pub instructions: Option<String>,
    /// The most tokens of the answer.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub max_output_tokens: Option<u32>,
    /// 0 always takes the likeliest token.
    #[schemars(range(min = 0, max = 2))]
    pub temperature: Option<f64>,
    /// Sample from the likeliest tokens that together have this probability.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub top_p: Option<f64>,
    /// The answer comes as server-sent events.
    pub stream: Option<bool>,
    /// The text of the answer.
    pub text: Option<TextBody>,
    /// The functions that the model may call.
    pub tools: Option<Vec<FlatToolBody>>,
    /// Whether it has to call one.
    pub tool_choice: Option<ChoiceBody>,
    /// Repeated in the answer.
    pub parallel_tool_calls: Option<bool>,
    /// More of the answer: `message.output_text.logprobs`. Others are not.
    pub include: Option<Vec<String>>,
    /// With log-probabilities: those of this many of the likeliest tokens.
    #[schemars(range(min = 0, max = LOGPROBS_MAX))]
    pub top_logprobs: Option<u32>,
    /// Repeated in the answer.
    pub metadata: Option<Map<String, Value>>,
    /// Whether input that is too long is cut: it is refused.
    #[schemars(extend("enum" = ["disabled", null]))]
    pub truncation: Option<String>,
    /// Not supported yet: submit a job, and ask for it later.
    #[schemars(extend("enum" = [false, null]))]
    pub background: Option<bool>,
    /// Not supported: send the whole conversation.
    pub previous_response_id: Option<()>,
    /// Not supported: send the whole conversation.
    pub conversation: Option<()>,
    /// Not supported.
    pub prompt: Option<()>,
}

/// The text of an answer.
#[derive(JsonSchema)]
#[schemars(rename = "ResponseTextBody")]
pub struct TextBody {
    /// Its format.
    pub format: Option<TextFormatBody>,
}

/// The fields that [`ResponseRequest::parse`] reads.
pub const NAMES: [&str; 19] = [
    "model",
    "input",
    "instructions",
    "max_output_tokens",
    "temperature",
    "top_p",
    "stream",
    "text",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "include",
    "top_logprobs",
    "metadata",
    "truncation",
    "background",
    "previous_response_id",
    "conversation",
    "prompt",
];

/// The name of log-probabilities in `include`.
const LOGPROBS: &str = "message.output_text.logprobs";

/// A request for a response.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseRequest {
    /// The text that is asked for.
    pub text: TextRequest,
    /// The form of the answer.
    pub form: ResponseForm,
}

/// The form of an answer, which repeats most of its request.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseForm {
    /// It comes event by event.
    pub is_streamed: bool,
    /// It has log-probabilities.
    pub has_logprobs: bool,
    /// The model may call tools.
    pub has_tools: bool,
    /// The call that the answer has to be.
    pub forced: Option<Forced>,
    /// The fields of the request that the answer repeats.
    pub repeated: Map<String, Value>,
}

impl ResponseRequest {
    /// Reads a body with at most `items_max` items.
    pub fn parse(body: &[u8], items_max: usize) -> Result<Self, ApiError> {
        let fields = Fields::scan(body, &NAMES)?;
        refuse(&fields, &["previous_response_id", "conversation", "prompt"])?;
        if fields.flag("background")? == Some(true) {
            let message =
                "`background` is not supported: submit a job to /v1/jobs, and ask for it later";
            return Err(ApiError::invalid("background", message));
        }
        if fields.text("truncation")?.is_some_and(|way| way != "disabled") {
            let message =
                "`truncation` is not supported: input that is too long is refused; leave it out";
            return Err(ApiError::invalid("truncation", message));
        }
        let raw = fields.raw("input").ok_or_else(|| {
            ApiError::invalid("input", "`input` is missing: send a string or a list of items")
        })?;
        let mut messages = input::read(raw, items_max)?;
        if let Some(instructions) = fields.text("instructions")? {
            messages.insert(0, Message::new("system", instructions));
        }
        let sampled = Fields::scan(body, &["temperature", "top_p"])?;
        let mut params = sampling::read(&sampled)?;
        params.max_tokens = fields.count("max_output_tokens")?;
        let has_logprobs = includes_logprobs(&fields)?;
        let top = sampling::whole(&fields, "top_logprobs", 0, i64::from(LOGPROBS_MAX))?;
        params.logprobs =
            has_logprobs.then(|| top.and_then(|top| u32::try_from(top).ok()).unwrap_or(0));
        let tools = Tools::read(&fields, Shape::Flat)?;
        let has_tools = tools.are_there();
        params.tools = tools.list;
        let format = match fields.raw("text") {
            None => None,
            Some(raw) => {
                let format = object("text", raw, &["format"])?.raw("format");
                format.map(|raw| of_response("text.format", raw)).transpose()?.flatten()
            }
        };
        params.response_format = tools.format.or(format);
        let is_streamed = fields.flag("stream")?.unwrap_or(false);
        params.stream = is_streamed;
        let repeated = repeated(&fields)?;
        let prompts = vec![Prompt::Messages(messages)];
        let forced = tools.forced;
        let form = ResponseForm { is_streamed, has_logprobs, has_tools, forced, repeated };
        Ok(Self { text: TextRequest { model: fields.text("model")?, prompts, params }, form })
    }
}

fn includes_logprobs(fields: &Fields<'_>) -> Result<bool, ApiError> {
    let Some(raw) = fields.raw("include") else { return Ok(false) };
    let list: Result<Vec<String>, _> = serde_json::from_str(raw.get());
    let list = list.map_err(|_| unexpected("include", raw, "a list of strings"))?;
    Ok(list.iter().any(|name| name == LOGPROBS))
}

/// The fields that the answer repeats, with the defaults of those that did not come.
fn repeated(fields: &Fields<'_>) -> Result<Map<String, Value>, ApiError> {
    fields.flag("parallel_tool_calls")?;
    if let Some(raw) = fields.raw("metadata").filter(|raw| kind(raw) != Kind::Object) {
        return Err(unexpected("metadata", raw, "an object"));
    }
    let defaults = [
        ("background", json!(false)),
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("metadata", json!({})),
        ("parallel_tool_calls", json!(true)),
        ("previous_response_id", Value::Null),
        ("temperature", Value::Null),
        ("text", json!({"format": {"type": "text"}})),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("top_p", Value::Null),
        ("truncation", json!("disabled")),
    ];
    let pairs = defaults.into_iter().map(|(name, default)| {
        let value = match fields.raw(name) {
            Some(raw) => serde_json::from_str(raw.get()).map_err(|error| {
                ApiError::invalid(name, format!("`{name}` can't be read: {error}"))
            })?,
            None => default,
        };
        Ok((name.to_owned(), value))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use forebay_schemas::{GenerateParams, ResponseFormat};

    use super::*;

    fn parsed(body: &Value) -> Result<ResponseRequest, ApiError> {
        ResponseRequest::parse(body.to_string().as_bytes(), 10)
    }

    #[test]
    fn a_request_of_the_official_client_is_read() {
        let format = json!({"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": true});
        let found = parsed(
            &json!({"model": "m", "input": "Hi", "instructions": "Be kind.", "max_output_tokens": 9,
            "temperature": 0.5, "text": {"format": format, "verbosity": "low"}, "stream": true, "store": false,
            "include": ["message.output_text.logprobs", "reasoning.encrypted_content"], "top_logprobs": 1,
            "reasoning": {"effort": "low"}, "metadata": {"a": "b"}}),
        );
        let found = found.unwrap();
        let schema = serde_json::from_str("{\"type\":\"object\"}").unwrap();
        let params = GenerateParams {
            max_tokens: Some(9),
            temperature: Some(0.5),
            logprobs: Some(1),
            stream: true,
            response_format: Some(ResponseFormat::JsonSchema(schema)),
            ..GenerateParams::default()
        };
        let messages = vec![Message::new("system", "Be kind."), Message::new("user", "Hi")];
        let prompts = vec![Prompt::Messages(messages)];
        assert_eq!(found.text, TextRequest { model: Some("m".into()), prompts, params });
        assert!(found.form.is_streamed && found.form.has_logprobs && !found.form.has_tools);
        assert_eq!(found.form.repeated["metadata"], json!({"a": "b"}));
        assert_eq!(found.form.repeated["tools"], json!([]));
        assert_eq!(found.form.repeated["text"]["verbosity"], "low");
    }

    #[test]
    fn a_mistake_has_the_name_of_its_field() {
        for (name, wrong) in [
            ("input", json!(null)),
            ("instructions", json!(1)),
            ("background", json!(true)),
            ("previous_response_id", json!("resp_1")),
            ("conversation", json!({})),
            ("truncation", json!("auto")),
            ("text", json!({"format": {"type": "x"}})),
            ("tools", json!([{"type": "web_search"}])),
            ("include", json!("x")),
            ("metadata", json!([])),
            ("max_output_tokens", json!(0)),
            ("temperature", json!(3)),
        ] {
            let mut body = json!({"input": "x"});
            body[name] = wrong;
            let error = parsed(&body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name), "{error}");
        }
    }
}
