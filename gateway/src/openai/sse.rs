//! Server-sent events as clients of OpenAI's API read them: lines of `data`, one JSON object an event, LF alone.

use serde::Serialize;

use crate::error::ApiError;

/// The end of a stream of chunks.
pub const DONE: &str = "data: [DONE]\n\n";
/// A comment: something moves, and no client reads it.
pub const PING: &str = ": ping\n\n";

/// One event. JSON has no line breaks outside texts, and writes those within texts as `\n`.
pub fn event(value: &impl Serialize) -> String {
    match serde_json::to_string(value) {
        Ok(json) => format!("data: {json}\n\n"),
        Err(error) => {
            tracing::warn!(%error, "an event can't be written");
            of_error(&ApiError::internal("the event can't be written"))
        }
    }
}

/// One event with its name.
pub fn named(name: &str, value: &impl Serialize) -> String {
    format!("event: {name}\n{}", event(value))
}

/// One event with its position, by which a client that reconnects goes on after it.
pub fn numbered(id: u64, value: &impl Serialize) -> String {
    format!("id: {id}\n{}", event(value))
}

/// An error in the middle of a stream, which has a status already.
pub fn of_error(error: &ApiError) -> String {
    format!("data: {}\n\n", String::from_utf8_lossy(&error.body()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_its_texts_have() {
        let written = event(&json!({"text": "a\nb\r\ndata: [DONE]\n\n"}));
        assert_eq!(written.matches('\n').count(), 2, "{written:?}");
        assert!(written.starts_with("data: {") && written.ends_with("}\n\n"), "{written:?}");
    }

    #[test]
    fn an_error_has_the_shape_of_every_answer_that_is_one() {
        let written = of_error(&ApiError::invalid("n", "x\ny"));
        let data: serde_json::Value =
            serde_json::from_str(written.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["error"]["param"], "n");
        assert_eq!(written.matches('\n').count(), 2);
    }

    #[test]
    fn names_and_positions_stand_before_the_data() {
        assert_eq!(named("a.b", &1), "event: a.b\ndata: 1\n\n");
        assert_eq!(numbered(7, &1), "id: 7\ndata: 1\n\n");
    }
}
