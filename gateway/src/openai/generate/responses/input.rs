//! The input of a response: a text, or a list of items, as the turns of a conversation.

use forebay_schemas::{Message, ToolCall};
use schemars::JsonSchema;
use serde_json::value::RawValue;

use crate::{
    error::ApiError,
    fields::{Kind, each, kind, text, unexpected},
    openai::generate::messages::{
        Content, Role, content, missing, object, one, optional, required,
    },
};

/// A text, or a list of items.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum InputBody {
    /// One turn of the user.
    Text(String),
    /// Items, in their order.
    Items(#[schemars(length(min = 1))] Vec<ItemBody>),
}

/// One item of an input: a turn, a call of a function, its output, or reasoning, which is not read.
#[derive(JsonSchema)]
#[schemars(rename = "ResponseInputItem")]
pub struct ItemBody {
    /// Its kind; `message` unless set.
    #[serde(rename = "type")]
    pub kind: Option<ItemKind>,
    /// Of a turn: the speaker.
    pub role: Option<Role>,
    /// Of a turn: its text.
    pub content: Option<Content>,
    /// Of a call and its output: the call's id.
    pub call_id: Option<String>,
    /// Of a call: the function.
    pub name: Option<String>,
    /// Of a call: the text of a JSON object.
    pub arguments: Option<String>,
    /// Of an output: its text.
    pub output: Option<Content>,
}

/// Kinds of items.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[allow(missing_docs)] // the names of the wire
pub enum ItemKind {
    Message,
    FunctionCall,
    FunctionCallOutput,
    Reasoning,
}

const NAME: &str = "input";

/// Reads the field `input`, with at most `items_max` items.
pub fn read(raw: &RawValue, items_max: usize) -> Result<Vec<Message>, ApiError> {
    let mut messages: Vec<Message> = Vec::new();
    match kind(raw) {
        Kind::Text => messages.push(Message::new("user", text(NAME, raw)?)),
        Kind::List => each(NAME, raw, items_max, |index, raw| {
            item(&format!("{NAME}[{index}]"), raw, &mut messages)
        })?,
        _ => return Err(unexpected(NAME, raw, "a string or a list of items")),
    }
    if messages.is_empty() {
        return Err(ApiError::invalid(NAME, "`input` has no message: send at least one"));
    }
    Ok(messages)
}

fn item(name: &str, raw: &RawValue, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let fields = object(name, raw, &["type", "call_id", "name", "arguments", "output"])?;
    match optional(name, &fields, "type")?.as_deref().unwrap_or("message") {
        "message" => messages.push(one(name, raw)?),
        "function_call" => {
            let call = ToolCall {
                id: required(name, &fields, "call_id")?,
                name: required(name, &fields, "name")?,
                arguments: required(name, &fields, "arguments")?,
            };
            // Calls at once are one turn, with the text in front of them.
            let last = messages.last_mut().filter(|message| message.role == "assistant");
            if let Some(turn) = last {
                turn.tool_calls.push(call);
            } else {
                let turn = Message::new("assistant", "");
                messages.push(Message { tool_calls: vec![call], ..turn });
            }
        }
        "function_call_output" => {
            let raw = fields.raw("output").ok_or_else(|| missing(name, "output"))?;
            let output = content(&format!("{name}.output"), raw)?;
            let tool_call_id = Some(required(name, &fields, "call_id")?);
            messages.push(Message { tool_call_id, ..Message::new("tool", output) });
        }
        // A model reads what was said, and no template takes the reasons of another turn.
        "reasoning" => {}
        other => {
            let came: String = other.chars().take(40).collect();
            let message = format!(
                "`{name}.type` is `{came}`: send `message`, `function_call` or `function_call_output`"
            );
            return Err(ApiError::invalid(NAME, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;

    fn parsed(input: &Value) -> Result<Vec<Message>, ApiError> {
        read(&to_raw_value(input).unwrap(), 10)
    }

    fn call(id: &str) -> Value {
        json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}", "id": "fc_1"})
    }

    #[test]
    fn items_are_the_turns_of_a_conversation() {
        assert_eq!(parsed(&json!("Hi")).unwrap(), [Message::new("user", "Hi")]);
        let said = json!([{"type": "output_text", "text": "So", "annotations": []}]);
        let found = parsed(&json!([
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": said},
            call("a"), call("b"),
            {"type": "function_call_output", "call_id": "a", "output": "1"},
            {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
        ]));
        let called =
            |id: &str| ToolCall { id: id.into(), name: "f".into(), arguments: "{}".into() };
        let tool = |id: &str, text: &str| Message {
            tool_call_id: Some(id.into()),
            ..Message::new("tool", text)
        };
        let turn = Message {
            tool_calls: vec![called("a"), called("b")],
            ..Message::new("assistant", "So")
        };
        assert_eq!(
            found.unwrap(),
            [Message::new("user", "Hi"), turn, tool("a", "1"), tool("b", "2")]
        );
    }

    #[test]
    fn a_mistake_names_where_it_is() {
        for (input, expected) in [
            (json!(5), "`input` is a number"),
            (json!([]), "`input` is empty"),
            (json!([{"type": "reasoning"}]), "`input` has no message"),
            (json!([{"type": "item_reference", "id": "x"}]), "`input[0].type` is `item_reference`"),
            (json!([{"type": "function_call", "call_id": "a"}]), "`input[0].name` is missing"),
            (
                json!([{"role": "user", "content": [{"type": "input_image"}]}]),
                "`input[0].content[0]` is of the type",
            ),
        ] {
            let error = parsed(&input).unwrap_err();
            assert!(error.message.starts_with(expected), "{error}");
            assert_eq!(error.param.as_deref(), Some("input"));
        }
    }
}
