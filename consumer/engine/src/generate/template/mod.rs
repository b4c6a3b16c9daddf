//! Chat templates: messages to the text of a prompt, as the transformers library renders them.
//!
//! A template is a Jinja program that comes with a model. `json` and `python` are what Python has and minijinja lacks
//! or does otherwise, `messages` what clients write otherwise than templates expect, `generation` a tag of
//! transformers, `time` the dates that some models want to know.

mod float;
mod generation;
mod json;
mod messages;
mod python;
mod time;

use std::error::Error as _;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::thread;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use serde_json::{Map, Value as Json};

/// The longest template that is read: the longest of known models have 40 KB.
const SOURCE_BYTES_MAX: usize = 1 << 20;
/// The longest prompt that is written: four times the largest body of a job.
const OUTPUT_BYTES_MAX: usize = 32 << 20;
/// Instructions of one rendering, of which a message takes some hundred, with one added for each 64 bytes that it
/// makes: no more than 128 MiB.
const FUEL: u64 = 2 << 20;
/// A template can put lists within lists until its fuel is used up, and the library drops them by recursion: some
/// hundred bytes of stack each. Of this only as much is memory as is written to.
const STACK_BYTES: usize = 1 << 30;
/// Calls of macros within macros. The library's 500 need more stack than a thread of the worker has to spare.
const RECURSION_MAX: usize = 100;
const NAME: &str = "chat_template";

/// Why a template could not be read or rendered.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TemplateError {
    /// The template is no program, or a longer one than is read.
    #[error("the model's chat template can't be read: {problem}")]
    Unreadable {
        /// Where and why.
        problem: String,
    },
    /// The template itself refused the messages, by `raise_exception`: the request is at fault.
    #[error("the model's chat template refuses these messages: {0}")]
    Refused(String),
    /// The template went wrong with these messages.
    #[error("the model's chat template fails on these messages: {problem}")]
    Failed {
        /// Where and why.
        problem: String,
    },
    /// The prompt would be too long, or take too long to render.
    #[error("rendering the chat template goes beyond its bounds: {problem}")]
    TooMuch {
        /// The bound.
        problem: String,
    },
}

/// The variables that a template is given.
#[derive(Clone, Copy, Debug)]
pub struct ChatInput<'a> {
    /// The list of messages, as the OpenAI API has them.
    pub messages: &'a Json,
    /// The list of tools, in the same form; null or an empty list if there are none.
    pub tools: &'a Json,
    /// Ends with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Further variables, such as `enable_thinking`. They don't replace the ones above.
    pub arguments: &'a Map<String, Json>,
    /// The time that `strftime_now` takes for now, in Unix milliseconds. A job has to be rendered with one time on
    /// every attempt: when it was submitted.
    pub now_ms: i64,
}

/// A model's chat template, ready to render. It is thread-safe.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Variables such as `bos_token`.
    special_tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    /// Reads a template. `special_tokens` are the variables that a tokenizer's configuration defines, such as
    /// `bos_token`, with their text.
    pub fn new(source: &str, special_tokens: Vec<(String, String)>) -> Result<Self, TemplateError> {
        if source.len() > SOURCE_BYTES_MAX {
            let problem =
                format!("it has {} bytes, and the most are {SOURCE_BYTES_MAX}", source.len());
            return Err(TemplateError::Unreadable { problem });
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(
            syntax.map_err(|error| TemplateError::Unreadable { problem: described(&error) })?,
        );
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(python::method);
        environment.set_formatter(python::write);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        environment.add_filter("tojson", json::tojson);
        environment.add_test("sequence", python::is_sequence);
        environment.add_test("iterable", python::is_sequence);
        environment.add_test("number", python::is_number);
        environment.add_test("float", python::is_float);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        let source = generation::without_tags(source);
        contained(|| environment.add_template_owned(NAME, source))
            .map_err(|problem| TemplateError::Unreadable { problem })?
            .map_err(|error| TemplateError::Unreadable { problem: described(&error) })?;
        Ok(Self { environment, special_tokens })
    }

    /// Renders a prompt.
    pub fn render(&self, input: &ChatInput<'_>) -> Result<String, TemplateError> {
        let rendered = thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            let thread = thread.spawn_scoped(scope, || self.rendered(input));
            Ok::<_, io::Error>(thread?.join())
        });
        let problem = match rendered {
            Ok(Ok(rendered)) => return rendered,
            Ok(Err(_)) => "the template library can't cope with it".to_owned(),
            Err(error) => format!("there is no thread to render it on: {error}"),
        };
        Err(TemplateError::Failed { problem })
    }

    fn rendered(&self, input: &ChatInput<'_>) -> Result<String, TemplateError> {
        let has_tools = input.tools.as_array().is_none_or(|tools| !tools.is_empty());
        let tools = if has_tools { python::value_of(input.tools) } else { Value::from(()) };
        let special = self
            .special_tokens
            .iter()
            .map(|(name, text)| (name.clone(), Value::from(text.as_str())));
        let arguments =
            input.arguments.iter().map(|(name, value)| (name.clone(), python::value_of(value)));
        // Of two with one name the later counts.
        let fixed = [
            ("messages", python::value_of(&messages::prepared(input.messages))),
            ("tools", tools),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(input.add_generation_prompt)),
            (time::NOW, Value::from(input.now_ms)),
        ];
        let fixed = fixed.map(|(name, value)| (name.to_owned(), value));
        let context = Value::from_pairs(special.chain(arguments).chain(fixed));
        let template = self.environment.get_template(NAME).map_err(|error| failure(&error))?;
        let mut output = Output { bytes: Vec::new() };
        template.render_captured_to(context, &mut output).map_err(|error| failure(&error))?;
        String::from_utf8(output.bytes)
            .map_err(|error| TemplateError::Failed { problem: error.to_string() })
    }
}

/// A buffer with a bound.
struct Output {
    bytes: Vec<u8>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The message of a template that called `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: &str) -> Result<Value, Error> {
    let raised = Raised(message.to_owned());
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception was called").with_source(raised))
}

fn strftime_now(state: &State<'_, '_>, format: &str) -> Result<Value, Error> {
    let now_ms = state.lookup(time::NOW).and_then(|now| now.as_i64()).unwrap_or_default();
    time::strftime(now_ms, format)
        .map(Value::from)
        .map_err(|problem| Error::new(ErrorKind::InvalidOperation, problem))
}

/// The cause of a failed rendering, which may be wrapped in errors of macros.
fn failure(error: &Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return TemplateError::Refused(message.clone());
        }
        match current.downcast_ref().map(Error::kind) {
            Some(ErrorKind::OutOfFuel) => {
                let problem = format!(
                    "it takes more than {FUEL} steps and pieces of 64 bytes; send fewer or shorter messages"
                );
                return TemplateError::TooMuch { problem };
            }
            Some(ErrorKind::WriteFailure) => {
                let problem = format!("the prompt has more than {OUTPUT_BYTES_MAX} bytes");
                return TemplateError::TooMuch { problem };
            }
            _ => cause = current.source(),
        }
    }
    TemplateError::Failed { problem: described(error) }
}

fn described(error: &Error) -> String {
    let line = error.line().map_or_else(String::new, |line| format!(" (line {line})"));
    let detail = error.detail().map_or_else(String::new, |detail| format!(": {detail}"));
    let source = error.source().map_or_else(String::new, |source| format!(": {source}"));
    format!("{}{detail}{line}{source}", error.kind())
}

/// Runs a part of the template library, which is not proof against every program. Nothing that it was building is used
/// afterwards.
fn contained<T>(part: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(part))
        .map_err(|_| "the template library can't cope with it".to_owned())
}

#[cfg(test)]
mod tests;
