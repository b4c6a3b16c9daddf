//! Any chat template with any messages renders a prompt within bounds, or is refused by an error. It is a program that
//! comes with a model, so it must not get further than that.
//!
//! The input is a template and, after a NUL, a JSON object with `messages`, `tools` and further variables.
#![no_main]

use forebay_engine::{ChatInput, ChatTemplate};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (source, given) = text.split_once('\0').unwrap_or((text, "{}"));
    let special = vec![("bos_token".to_owned(), "<s>".to_owned())];
    let Ok(template) = ChatTemplate::new(source, special) else { return };
    let mut arguments: Map<String, Value> = serde_json::from_str(given).unwrap_or_default();
    let messages = arguments.remove("messages").unwrap_or_default();
    let tools = arguments.remove("tools").unwrap_or_default();
    let input = ChatInput {
        messages: &messages,
        tools: &tools,
        add_generation_prompt: true,
        arguments: &arguments,
        now_ms: 1_782_993_600_000,
    };
    let first = template.render(&input);
    assert!(first.as_ref().is_ok_and(|prompt| prompt.len() <= 32 << 20) || first.is_err());
    assert_eq!(first, template.render(&input));
});
