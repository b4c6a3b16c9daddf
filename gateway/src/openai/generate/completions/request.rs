//! The request.

use forebay_schemas::Prompt;
use schemars::JsonSchema;

use crate::{
    error::ApiError,
    fields::{Fields, Kind, kind},
    inputs::{self, Texts},
    openai::generate::{
        format::{self, FormatBody, StructuredBody},
        output::{StreamOptions, Streaming, TextRequest, one_answer, refuse},
        sampling::{self, SamplingBody},
    },
};

/// The body of a request, as the document has it.
#[derive(JsonSchema)]
pub struct CompletionBody {
    /// The model; may be left out where the fleet has only one.
    pub model: Option<String>,
    /// The text to go on with, or a list of them, each of which has an answer.
    pub prompt: Texts,
    /// The most tokens of the answer; 16 unless set.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub max_tokens: Option<u32>,
    /// The answers to each prompt: one.
    #[schemars(range(min = 1, max = 1))]
    pub n: Option<u32>,
    /// The answers to choose from: one.
    #[schemars(range(min = 1, max = 1))]
    pub best_of: Option<u32>,
    /// Return the prompt in front of the answer: not supported.
    #[schemars(extend("enum" = [false, null]))]
    pub echo: Option<bool>,
    /// The text after the answer: not supported.
    pub suffix: Option<()>,
    /// The answer comes as server-sent events, of one prompt.
    pub stream: Option<bool>,
    /// The options of a stream.
    pub stream_options: Option<StreamOptions>,
    /// Return the log-probability of each token, and those of this many of the likeliest.
    #[schemars(range(min = 0, max = MOST_LOGPROBS))]
    pub logprobs: Option<u32>,
    /// The text that the answer has to be.
    pub response_format: Option<FormatBody>,
    /// vLLM's name for it.
    pub structured_outputs: Option<StructuredBody>,
    /// How tokens are sampled.
    #[schemars(flatten)]
    pub sampling: SamplingBody,
}

const MOST_LOGPROBS: u32 = forebay_schemas::limits::LOGPROBS_MAX;

/// The most tokens of an answer whose request does not say: OpenAI's own default.
const TOKENS: u32 = 16;

const OWN: [&str; 12] = [
    "model",
    "prompt",
    "max_tokens",
    "n",
    "best_of",
    "echo",
    "suffix",
    "stream",
    "stream_options",
    "logprobs",
    "response_format",
    "structured_outputs",
];
/// All fields that [`CompletionRequest::parse`] reads.
pub const NAMES: [&[&str]; 2] = [&OWN, &sampling::NAMES];

/// A request for text that goes on from another.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// The text that is asked for.
    pub text: TextRequest,
    /// The form of the answer.
    pub form: CompletionForm,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompletionForm {
    /// How it comes.
    pub streaming: Streaming,
    /// It has log-probabilities.
    pub has_logprobs: bool,
}

impl CompletionRequest {
    /// Reads a body with at most `prompts_max` prompts.
    pub fn parse(body: &[u8], prompts_max: usize) -> Result<Self, ApiError> {
        let fields = Fields::scan(body, &NAMES.concat())?;
        refuse(&fields, &["suffix"])?;
        one_answer(&fields, "n")?;
        one_answer(&fields, "best_of")?;
        if fields.flag("echo")? == Some(true) {
            let message =
                "`echo` is not supported: leave it out, and put the prompt in front yourself";
            return Err(ApiError::invalid("echo", message));
        }
        let prompts = inputs::required(&fields, "prompt", prompts_max)?;
        let streaming = Streaming::read(&fields)?;
        if streaming.is_on && prompts.len() > 1 {
            let message = format!(
                "`prompt` has {} texts, and a stream is of one: send several requests",
                prompts.len()
            );
            return Err(ApiError::invalid("prompt", message));
        }
        let mut params = sampling::read(&fields)?;
        params.max_tokens = Some(fields.count("max_tokens")?.unwrap_or(TOKENS));
        let top = logprobs(&fields)?;
        params.logprobs = top;
        params.response_format = format::read(&fields)?;
        params.stream = streaming.is_on;
        let prompts = prompts.into_iter().map(Prompt::Text).collect();
        let form = CompletionForm { streaming, has_logprobs: top.is_some() };
        Ok(Self { text: TextRequest { model: fields.text("model")?, prompts, params }, form })
    }
}

/// How many alternatives are asked for. Chat's way to ask for none, which clients of both send, is none.
fn logprobs(fields: &Fields<'_>) -> Result<Option<u32>, ApiError> {
    if fields.raw("logprobs").is_some_and(|raw| kind(raw) == Kind::Flag && raw.get() == "false") {
        return Ok(None);
    }
    let top = sampling::whole(fields, "logprobs", 0, i64::from(MOST_LOGPROBS))?;
    Ok(top.and_then(|top| u32::try_from(top).ok()))
}

#[cfg(test)]
mod tests {
    use forebay_schemas::GenerateParams;
    use serde_json::{Value, json};

    use super::*;

    fn parsed(body: &Value) -> Result<CompletionRequest, ApiError> {
        CompletionRequest::parse(body.to_string().as_bytes(), 3)
    }

    #[test]
    fn a_request_of_the_official_client_is_read() {
        let found = parsed(
            &json!({"model": "m", "prompt": "Once", "logprobs": 2, "best_of": 1, "echo": false, "n": 1}),
        );
        let found = found.unwrap();
        let params =
            GenerateParams { max_tokens: Some(16), logprobs: Some(2), ..GenerateParams::default() };
        let prompts = vec![Prompt::Text("Once".into())];
        assert_eq!(found.text, TextRequest { model: Some("m".into()), prompts, params });
        assert!(found.form.has_logprobs);
        let several =
            parsed(&json!({"prompt": ["a", "b"], "max_tokens": 3, "logprobs": false})).unwrap();
        assert_eq!((several.text.prompts.len(), several.text.params.max_tokens), (2, Some(3)));
        assert_eq!(several.form, CompletionForm::default());
    }

    #[test]
    fn a_mistake_has_the_name_of_its_field() {
        for (name, wrong) in [
            ("prompt", json!(null)),
            ("prompt", json!([1, 2])),
            ("prompt", json!(["a", "b", "c", "d"])),
            ("n", json!(2)),
            ("best_of", json!(3)),
            ("echo", json!(true)),
            ("suffix", json!("x")),
            ("logprobs", json!(true)),
            ("max_tokens", json!(0)),
        ] {
            let mut body = json!({"prompt": "x"});
            body[name] = wrong;
            let error = parsed(&body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name), "{error}");
        }
        let error = parsed(&json!({"prompt": ["a", "b"], "stream": true})).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("prompt"));
    }
}
