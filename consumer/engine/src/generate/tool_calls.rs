//! Calls of tools in the text of an answer, in the formats that model families write them in.

use serde_json::{Deserializer, Value as Json};

use super::stop::overlap;

const HERMES: (&str, &str) = ("<tool_call>", "</tool_call>");
const MISTRAL: &str = "[TOOL_CALLS]";
const LLAMA: &str = "<|python_tag|>";

/// The way in which a family writes calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ToolFormat {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes, Qwen, `SmolLM3`.
    Hermes,
    /// `{"name": …, "parameters": …}` as the whole answer, several with semicolons between them: Llama 3.x.
    Llama,
    /// `[TOOL_CALLS][{"name": …, "arguments": …}]`, or since 2025 `[TOOL_CALLS]name{…}`: Mistral.
    Mistral,
}

impl ToolFormat {
    /// The format that a chat template writes earlier calls in. `None` if it has no known one.
    pub fn of_template(template: &str) -> Option<Self> {
        let has = |text| template.contains(text);
        if has("<function=") {
            return None; // parameters in XML: no JSON within the tags
        }
        if has(HERMES.0) {
            return Some(Self::Hermes);
        }
        if has(MISTRAL) {
            return Some(Self::Mistral);
        }
        let is_llama = has(LLAMA) || (has("<|start_header_id|>") && has("\"parameters\": "));
        is_llama.then_some(Self::Llama)
    }

    /// Whether the marks of a call are special tokens, whose text the detokenizer has to keep.
    pub fn has_special_marks(self) -> bool {
        !matches!(self, Self::Hermes)
    }
}

/// A call of a tool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// Its arguments: a JSON object, as text.
    pub arguments: String,
}

/// A part of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AnswerPart {
    /// Text for the reader.
    Text(String),
    /// A call.
    Call(ToolCall),
}

/// Finds calls in a growing text. How the text comes in parts makes no difference to what is found. Text that looks
/// like a call and is none stays text.
#[derive(Clone, Debug)]
pub struct ToolCalls {
    format: ToolFormat,
    /// Text that may belong to a call.
    held: String,
    /// White space before a mark: no text for the reader if a call follows.
    space: String,
    at: At,
    has_calls: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    /// In text, or before it.
    Text,
    /// After the mark of a call.
    Call,
    /// Where calls can't come any more.
    Rest,
}

/// The meaning of the held text.
enum Found {
    /// The beginning of a call.
    Incomplete,
    /// Calls, and the bytes that they take.
    Calls(Vec<ToolCall>, usize),
    /// Text: so many bytes of it, after the mark.
    Text(usize),
}

impl ToolCalls {
    /// At the beginning of an answer.
    pub fn new(format: ToolFormat) -> Self {
        Self { format, held: String::new(), space: String::new(), at: At::Text, has_calls: false }
    }

    /// All parts of a whole answer.
    pub fn parse(format: ToolFormat, text: &str) -> Vec<AnswerPart> {
        let mut calls = Self::new(format);
        let mut parts = Vec::new();
        for part in calls.push(text).into_iter().chain(calls.finish()) {
            match part {
                AnswerPart::Text(text) => append(text, &mut parts),
                call @ AnswerPart::Call(_) => parts.push(call),
            }
        }
        parts
    }

    /// Takes more text and returns what became certain.
    pub fn push(&mut self, more: &str) -> Vec<AnswerPart> {
        self.held.push_str(more);
        let mut parts = Vec::new();
        while self.advance(false, &mut parts) {}
        parts
    }

    /// Returns what is left at the end.
    pub fn finish(&mut self) -> Vec<AnswerPart> {
        let mut parts = Vec::new();
        while self.advance(true, &mut parts) {}
        let rest = std::mem::take(&mut self.held);
        // White space around calls is no text for the reader.
        if !(self.has_calls && rest.trim().is_empty()) {
            append(rest, &mut parts);
        }
        parts
    }

    /// Takes the next part off the held text; false when there is none.
    fn advance(&mut self, is_end: bool, parts: &mut Vec<AnswerPart>) -> bool {
        match self.at {
            At::Rest => {
                append(std::mem::take(&mut self.held), parts);
                false
            }
            At::Text if self.format == ToolFormat::Llama => self.begin_json(),
            At::Text => self.begin_marked(parts),
            At::Call => self.call(is_end, parts),
        }
    }

    fn mark(&self) -> &'static str {
        match self.format {
            ToolFormat::Hermes => HERMES.0,
            ToolFormat::Mistral => MISTRAL,
            ToolFormat::Llama => "",
        }
    }

    /// Text up to a mark.
    fn begin_marked(&mut self, parts: &mut Vec<AnswerPart>) -> bool {
        let mark = self.mark();
        let found = self.held.find(mark);
        let certain = found.unwrap_or_else(|| self.held.len() - overlap(&self.held, mark));
        // White space goes with what comes after it.
        let text = self.held[..certain].trim_end().len();
        append(self.held.drain(..text).collect(), parts);
        let Some(found) = found else { return false };
        self.space = self.held.drain(..found - text).collect();
        self.held.drain(..mark.len());
        self.at = At::Call;
        true
    }

    /// Whether the answer begins as a call, or goes on with another one.
    fn begin_json(&mut self) -> bool {
        let separators = if self.has_calls {
            &[';', ' ', '\n', '\t', '\r'][..]
        } else {
            &[' ', '\n', '\t', '\r']
        };
        let text = self.held.trim_start_matches(separators);
        let text = text.strip_prefix(LLAMA).unwrap_or(text).trim_start();
        if text.starts_with('{') {
            let start = self.held.len() - text.len();
            self.held.drain(..start);
            self.at = At::Call;
        } else if LLAMA.starts_with(text) {
            return false;
        } else {
            self.at = At::Rest;
        }
        true
    }

    fn call(&mut self, is_end: bool, parts: &mut Vec<AnswerPart>) -> bool {
        let found = match self.format {
            ToolFormat::Hermes => hermes(&self.held, is_end),
            ToolFormat::Mistral => mistral(&self.held),
            ToolFormat::Llama => json_call(&self.held),
        };
        match found {
            Found::Incomplete if !is_end => return false,
            Found::Incomplete => {
                let length = self.held.len();
                self.no_call(length, parts);
                self.at = At::Text;
            }
            Found::Calls(calls, length) => {
                parts.extend(calls.into_iter().map(AnswerPart::Call));
                self.held.drain(..length);
                self.space.clear();
                self.has_calls = true;
                self.at = At::Text;
            }
            Found::Text(length) => {
                self.no_call(length, parts);
                self.at = if self.format == ToolFormat::Llama { At::Rest } else { At::Text };
            }
        }
        !self.held.is_empty()
    }

    /// A text that looked like a call stays text, with its mark and the space before that.
    fn no_call(&mut self, length: usize, parts: &mut Vec<AnswerPart>) {
        let text = std::mem::take(&mut self.space) + self.mark() + &self.held[..length];
        self.held.drain(..length);
        append(text, parts);
    }
}

fn append(text: String, parts: &mut Vec<AnswerPart>) {
    if !text.is_empty() {
        match parts.last_mut() {
            Some(AnswerPart::Text(before)) => before.push_str(&text),
            _ => parts.push(AnswerPart::Text(text)),
        }
    }
}

/// Reads on after `<tool_call>`. At the end of an answer the closing tag may be missing: some models end with the call.
fn hermes(text: &str, is_end: bool) -> Found {
    let (body, length) = match text.find(HERMES.1) {
        Some(end) => (&text[..end], end + HERMES.1.len()),
        None if is_end => (text, text.len()),
        None => return Found::Incomplete,
    };
    match serde_json::from_str(body).ok().and_then(call_of) {
        Some(call) => Found::Calls(vec![call], length),
        None => Found::Text(length),
    }
}

/// Reads on after `[TOOL_CALLS]`: a list of calls, or a name and its arguments.
fn mistral(text: &str) -> Found {
    let trimmed = text.trim_start();
    let start = text.len() - trimmed.len();
    if trimmed.starts_with('[') {
        return match json(trimmed) {
            Ok(Some((Json::Array(list), length))) => {
                match list.into_iter().map(call_of).collect::<Option<Vec<_>>>() {
                    Some(calls) => Found::Calls(calls, start + length),
                    None => Found::Text(start + length),
                }
            }
            Ok(None) => Found::Incomplete,
            _ => Found::Text(0),
        };
    }
    let Some(brace) = trimmed.find('{') else { return Found::Incomplete };
    let Some(name) = name_of(&trimmed[..brace]) else { return Found::Text(0) };
    match json(&trimmed[brace..]) {
        Ok(Some((arguments @ Json::Object(_), length))) => {
            let call = ToolCall { name: name.to_owned(), arguments: arguments.to_string() };
            Found::Calls(vec![call], start + brace + length)
        }
        Ok(None) => Found::Incomplete,
        _ => Found::Text(0),
    }
}

/// The name before the arguments, without marks such as `[CALL_ID]` and `[ARGS]`.
fn name_of(head: &str) -> Option<&str> {
    let name = head.find('[').map_or(head, |end| &head[..end]).trim();
    let is_name = |character: char| character.is_alphanumeric() || "_-.:/".contains(character);
    (!name.is_empty() && name.chars().all(is_name)).then_some(name)
}

/// A call as a JSON object.
fn json_call(text: &str) -> Found {
    match json(text) {
        Ok(Some((value, length))) => match call_of(value) {
            Some(call) => Found::Calls(vec![call], length),
            None => Found::Text(length),
        },
        Ok(None) => Found::Incomplete,
        Err(()) => Found::Text(0),
    }
}

/// The JSON value that a text begins with, and its length; `None` while it is incomplete.
fn json(text: &str) -> Result<Option<(Json, usize)>, ()> {
    let mut values = Deserializer::from_str(text).into_iter::<Json>();
    match values.next() {
        Some(Ok(value)) => Ok(Some((value, values.byte_offset()))),
        Some(Err(error)) if !error.is_eof() => Err(()),
        _ => Ok(None),
    }
}

/// A call of its JSON. Llama says `parameters` for arguments; some models write those as JSON within a text.
fn call_of(mut value: Json) -> Option<ToolCall> {
    let object = value.as_object_mut()?;
    let name = object.get("name")?.as_str()?.to_owned();
    let arguments = object.remove("arguments").or_else(|| object.remove("parameters"))?;
    let arguments = match arguments {
        Json::String(text) => serde_json::from_str(&text).ok()?,
        other => other,
    };
    arguments.is_object().then(|| ToolCall { name, arguments: arguments.to_string() })
}

#[cfg(test)]
mod tests;
