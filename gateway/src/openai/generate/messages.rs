//! Conversations, as chat and responses send them.

use forebay_schemas::{Message, ToolCall, limits::TOOL_CALLS_MAX};
use schemars::JsonSchema;
use serde_json::value::RawValue;

use super::sampling::is_empty;
use crate::{
    error::ApiError,
    fields::{Fields, Kind, each, kind, text, top, unexpected},
};

/// One turn of a conversation.
#[derive(JsonSchema)]
#[schemars(rename = "ChatMessage")]
pub struct MessageBody {
    /// The speaker; `developer` is read as `system`, and `function` as `tool`.
    pub role: Role,
    /// Its text. Only an assistant's turn may be without.
    pub content: Option<Content>,
    /// The speaker's name.
    pub name: Option<String>,
    /// The tools that the assistant called.
    #[schemars(length(max = TOOL_CALLS_MAX))]
    pub tool_calls: Option<Vec<CallBody>>,
    /// The call that a tool's turn answers.
    pub tool_call_id: Option<String>,
}

/// The speaker of a turn.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[allow(missing_docs)] // the names of the wire
pub enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    Function,
}

/// A text, or parts of one.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Content {
    /// The text.
    Text(String),
    /// Parts that are joined by line breaks.
    Parts(Vec<ContentPart>),
}

/// A part of a text.
#[derive(JsonSchema)]
pub struct ContentPart {
    /// Its kind.
    #[serde(rename = "type")]
    #[schemars(extend("enum" = PART_TYPES))]
    pub kind: String,
    /// The text.
    pub text: Option<String>,
    /// The text of a refusal.
    pub refusal: Option<String>,
}

/// A call of a tool in an assistant's turn.
#[derive(JsonSchema)]
#[schemars(rename = "SentToolCall")]
pub struct CallBody {
    /// The call's id.
    pub id: Option<String>,
    /// The function and its arguments.
    pub function: CalledBody,
}

/// A function that was called.
#[derive(JsonSchema)]
#[schemars(rename = "SentFunctionCall")]
pub struct CalledBody {
    /// Its name.
    pub name: String,
    /// Its arguments, as the text of a JSON object.
    pub arguments: Option<String>,
}

/// Kinds of parts that are text.
const PART_TYPES: [&str; 4] = ["text", "input_text", "output_text", "refusal"];

/// Reads the turns of the field `name`, at most `count_max` of them.
pub fn read(name: &str, raw: &RawValue, count_max: usize) -> Result<Vec<Message>, ApiError> {
    let mut messages = Vec::new();
    each(name, raw, count_max, |index, raw| {
        messages.push(one(&format!("{name}[{index}]"), raw)?);
        Ok(())
    })?;
    Ok(messages)
}

/// Reads one turn.
pub fn one(name: &str, raw: &RawValue) -> Result<Message, ApiError> {
    let fields = object(name, raw, &["role", "content", "name", "tool_calls", "tool_call_id"])?;
    let role = required(name, &fields, "role")?;
    let role = match role.as_str() {
        "system" | "developer" => "system",
        "user" => "user",
        "assistant" => "assistant",
        "tool" | "function" => "tool",
        other => {
            let came: String = other.chars().take(40).collect();
            let message =
                format!("`{name}.role` is `{came}`: send `system`, `user`, `assistant` or `tool`");
            return Err(ApiError::invalid(top(name), message));
        }
    };
    let content = match fields.raw("content") {
        Some(raw) => content(&format!("{name}.content"), raw)?,
        // A turn that calls tools says nothing else.
        None if role == "assistant" => String::new(),
        None => return Err(missing(name, "content")),
    };
    let tool_calls = match fields.raw("tool_calls") {
        Some(raw) => calls(&format!("{name}.tool_calls"), raw)?,
        None => Vec::new(),
    };
    Ok(Message {
        role: role.to_owned(),
        content,
        tool_calls,
        tool_call_id: optional(name, &fields, "tool_call_id")?,
        name: optional(name, &fields, "name")?,
    })
}

/// A text, or a list of its parts.
pub fn content(name: &str, raw: &RawValue) -> Result<String, ApiError> {
    match kind(raw) {
        Kind::Text => text(name, raw),
        Kind::List if is_empty(raw) => Ok(String::new()),
        Kind::List => {
            let mut parts = Vec::new();
            each(name, raw, PARTS_MAX, |index, raw| {
                parts.push(part(&format!("{name}[{index}]"), raw)?);
                Ok(())
            })
            // The list's own mistakes name it as a whole.
            .map_err(|error| error.at(top(name)))?;
            Ok(parts.join("\n"))
        }
        _ => Err(unexpected(name, raw, "a string or a list of parts")),
    }
}

/// The most parts of one text.
const PARTS_MAX: usize = 4_096;

fn part(name: &str, raw: &RawValue) -> Result<String, ApiError> {
    let fields = object(name, raw, &["type", "text", "refusal"])?;
    let kind = required(name, &fields, "type")?;
    if !PART_TYPES.contains(&kind.as_str()) {
        let came: String = kind.chars().take(40).collect();
        let message = format!("`{name}` is of the type `{came}`: models of this fleet read text");
        return Err(ApiError::invalid(top(name), message));
    }
    let field = if kind == "refusal" { "refusal" } else { "text" };
    required(name, &fields, field)
}

fn calls(name: &str, raw: &RawValue) -> Result<Vec<ToolCall>, ApiError> {
    let mut calls = Vec::new();
    if kind(raw) == Kind::List && is_empty(raw) {
        return Ok(calls);
    }
    let read = each(name, raw, TOOL_CALLS_MAX, |index, raw| {
        let name = format!("{name}[{index}]");
        let fields = object(&name, raw, &["id", "function"])?;
        let function = fields.raw("function").ok_or_else(|| missing(&name, "function"))?;
        let id = optional(&name, &fields, "id")?.unwrap_or_default();
        let name = format!("{name}.function");
        let fields = object(&name, function, &["name", "arguments"])?;
        calls.push(ToolCall {
            id,
            name: required(&name, &fields, "name")?,
            arguments: optional(&name, &fields, "arguments")?.unwrap_or_else(|| "{}".to_owned()),
        });
        Ok(())
    });
    read.map_err(|error| error.at(top(name)))?;
    Ok(calls)
}

/// The fields of an object within a body.
pub fn object<'a>(
    name: &str,
    raw: &'a RawValue,
    names: &[&'static str],
) -> Result<Fields<'a>, ApiError> {
    if kind(raw) != Kind::Object {
        return Err(unexpected(name, raw, "an object"));
    }
    let scanned = Fields::scan(raw.get().as_bytes(), names);
    scanned.map_err(|error| {
        ApiError::invalid(top(name), format!("`{name}` can't be read: {}", error.message))
    })
}

/// A text of an object within a body, if it is there.
pub fn optional(
    name: &str,
    fields: &Fields<'_>,
    field: &'static str,
) -> Result<Option<String>, ApiError> {
    fields.raw(field).map(|raw| text(&format!("{name}.{field}"), raw)).transpose()
}

/// A text of an object within a body, which has to be there.
pub fn required(name: &str, fields: &Fields<'_>, field: &'static str) -> Result<String, ApiError> {
    optional(name, fields, field)?.ok_or_else(|| missing(name, field))
}

/// The error of a field within an object that is not there.
pub fn missing(name: &str, field: &str) -> ApiError {
    ApiError::invalid(top(name), format!("`{name}.{field}` is missing: send it"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;

    fn parsed(messages: &Value) -> Result<Vec<Message>, ApiError> {
        read("messages", &to_raw_value(messages).unwrap(), 4)
    }

    #[test]
    fn a_conversation_with_tools_is_read() {
        let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
        let found = parsed(&json!([
            {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}]},
            {"role": "user", "content": "", "name": "Ann"},
            {"role": "assistant", "content": null, "tool_calls": [call], "refusal": null},
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
        ]));
        let call = ToolCall { id: "c1".into(), name: "f".into(), arguments: "{\"a\": 1}".into() };
        let user = Message { name: Some("Ann".into()), ..Message::new("user", "") };
        let assistant = Message { tool_calls: vec![call], ..Message::new("assistant", "") };
        let tool = Message { tool_call_id: Some("c1".into()), ..Message::new("tool", "2") };
        let expected = vec![Message::new("system", "Be\nkind."), user, assistant, tool];
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn a_mistake_names_where_it_is() {
        let user = |content: Value| json!([{"role": "user", "content": content}]);
        let image = json!([{"type": "image_url", "image_url": {"url": "x"}}]);
        let cases = [
            (json!("x"), "`messages` is a string"),
            (json!([]), "`messages` is empty"),
            (json!([1]), "`messages[0]` is a number: expected an object"),
            (json!([{"content": "x"}]), "`messages[0].role` is missing"),
            (json!([{"role": "robot", "content": "x"}]), "`messages[0].role` is `robot`"),
            (json!([{"role": "user"}]), "`messages[0].content` is missing"),
            (user(json!(5)), "`messages[0].content` is a number"),
            (user(image), "`messages[0].content[0]` is of the type `image_url`"),
            (user(json!([{"type": "text"}])), "`messages[0].content[0].text` is missing"),
            (
                json!([{"role": "assistant", "tool_calls": [{"function": {}}]}]),
                "`messages[0].tool_calls[0].function.name` is missing",
            ),
            (json!([{}, {}, {}, {}, {}]), "`messages[0].role` is missing"),
        ];
        for (messages, expected) in cases {
            let error = parsed(&messages).unwrap_err();
            assert!(error.message.starts_with(expected), "{error}");
            assert_eq!(error.param.as_deref(), Some("messages"), "{error}");
        }
        let many = json!(vec![json!({"role": "user", "content": "x"}); 5]);
        assert!(parsed(&many).unwrap_err().message.contains("more than 4"));
    }
}
