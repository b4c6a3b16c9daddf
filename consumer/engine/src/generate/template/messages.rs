//! Messages as the OpenAI API has them, made into what templates expect.

use serde_json::Value as Json;

/// The names that reasoning goes by; templates read the first, that of gpt-oss the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The messages with these differences, as vLLM makes them too: the arguments of tool calls are objects instead of
/// JSON in a string, a content of text parts is one text with a line for each part, and null is an empty text.
/// Reasoning has all of the names that templates read, as in transformers.
pub(super) fn prepared(messages: &Json) -> Json {
    let mut messages = messages.clone();
    for message in messages.as_array_mut().into_iter().flatten() {
        if let Some(content) = message.get_mut("content") {
            match content {
                Json::Null => *content = Json::String(String::new()),
                Json::Array(parts) => {
                    if let Some(text) = text_of(parts) {
                        *content = Json::String(text);
                    }
                }
                _ => {}
            }
        }
        if let Json::Object(message) = message {
            let reasoning =
                REASONING.iter().find_map(|&name| message.get(name).filter(|text| !text.is_null()));
            if let Some(reasoning) = reasoning.cloned() {
                message.entry("thinking").or_insert_with(|| reasoning.clone());
                message.insert("reasoning_content".to_owned(), reasoning);
            }
        }
        for call in message.get_mut("tool_calls").and_then(Json::as_array_mut).into_iter().flatten()
        {
            let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
            let parsed = arguments.as_str().and_then(|text| serde_json::from_str(text).ok());
            if let Some(parsed @ Json::Object(_)) = parsed {
                *arguments = parsed;
            }
        }
    }
    messages
}

/// The parts' texts; `None` if a part is no text.
fn text_of(parts: &[Json]) -> Option<String> {
    let text = |part: &Json| match part {
        Json::String(text) => Some(text.clone()),
        part if part["type"] == "text" => part["text"].as_str().map(str::to_owned),
        _ => None,
    };
    Some(parts.iter().map(text).collect::<Option<Vec<_>>>()?.join("\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_are_what_templates_expect() {
        let messages = json!([
            {"role": "user", "content": [{"type": "text", "text": "a"}, "b"]},
            {"role": "user", "content": [{"type": "image_url"}]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"function": {"name": "f", "arguments": "{\"b\": 1, \"a\": [2]}"}},
                {"function": {"name": "f", "arguments": "no JSON"}},
                {"function": {"name": "f", "arguments": {"a": 1}}},
                {},
            ]},
            {"role": "tool"},
            {"role": "assistant", "reasoning": "hm", "content": "a"},
            "no message",
        ]);
        let right = json!([
            {"role": "user", "content": "a\nb"},
            {"role": "user", "content": [{"type": "image_url"}]},
            {"role": "assistant", "content": "", "tool_calls": [
                {"function": {"name": "f", "arguments": {"b": 1, "a": [2]}}},
                {"function": {"name": "f", "arguments": "no JSON"}},
                {"function": {"name": "f", "arguments": {"a": 1}}},
                {},
            ]},
            {"role": "tool"},
            {"role": "assistant", "reasoning": "hm", "thinking": "hm", "reasoning_content": "hm", "content": "a"},
            "no message",
        ]);
        assert_eq!(prepared(&messages), right);
        assert_eq!(prepared(&json!("no list")), json!("no list"));
    }
}
