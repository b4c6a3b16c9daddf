//! Answers with calls, whole and in parts.

use proptest::prelude::*;

use super::*;

fn text(text: &str) -> AnswerPart {
    AnswerPart::Text(text.to_owned())
}

fn call(name: &str, arguments: &str) -> AnswerPart {
    AnswerPart::Call(ToolCall { name: name.to_owned(), arguments: arguments.to_owned() })
}

/// Answers with their parts.
fn answers() -> Vec<(ToolFormat, &'static str, Vec<AnswerPart>)> {
    use ToolFormat::{Hermes, Llama, Mistral};
    let level = || call("level", r#"{"gate":3}"#);
    vec![
        (Hermes, "It rises.", vec![text("It rises.")]),
        (Hermes, " \n", vec![text(" \n")]),
        (
            Hermes,
            "Let me see.\n<tool_call>\n{\"name\": \"level\", \"arguments\": {\"gate\": 3}}\n</tool_call>\n<tool_call>\n\
             {\"name\": \"open\", \"arguments\": {\"b\": [\"</\", 1.5], \"a\": null}}\n</tool_call>\n",
            vec![text("Let me see."), level(), call("open", r#"{"b":["</",1.5],"a":null}"#)],
        ),
        (Hermes, "<tool_call>{\"name\": \"level\", \"arguments\": {\"gate\": 3}}", vec![level()]),
        (
            Hermes,
            "<tool_call>no JSON</tool_call> and <tool_call>{\"name\": 1}",
            vec![text("<tool_call>no JSON</tool_call> and <tool_call>{\"name\": 1}")],
        ),
        (Hermes, "a <tool_ b < c <tool_call", vec![text("a <tool_ b < c <tool_call")]),
        (Llama, "{\"name\": \"level\", \"parameters\": {\"gate\": 3}}", vec![level()]),
        (
            Llama,
            " <|python_tag|>{\"name\": \"level\", \"parameters\": {\"gate\": 3}}; {\"name\": \"level\", \
             \"arguments\": \"{\\\"gate\\\": 3}\"}\n",
            vec![level(), level()],
        ),
        (Llama, "{\"answer\": 3} is all", vec![text("{\"answer\": 3} is all")]),
        (Llama, "{no JSON", vec![text("{no JSON")]),
        (Llama, "The level {3}.", vec![text("The level {3}.")]),
        (Llama, "<|python", vec![text("<|python")]),
        (
            Mistral,
            "[TOOL_CALLS] [{\"name\": \"level\", \"arguments\": {\"gate\": 3}}, {\"name\": \"level\", \"arguments\": \
             {\"gate\": 3}}]",
            vec![level(), level()],
        ),
        (
            Mistral,
            "So:[TOOL_CALLS]level{\"gate\": 3}[TOOL_CALLS]level[CALL_ID]a1[ARGS]{\"gate\": 3}",
            vec![text("So:"), level(), level()],
        ),
        (Mistral, "[TOOL_CALLS]level", vec![text("[TOOL_CALLS]level")]),
        (Mistral, "[TOOL_CALLS][1, 2] x", vec![text("[TOOL_CALLS][1, 2] x")]),
    ]
}

fn merged(parts: impl IntoIterator<Item = AnswerPart>) -> Vec<AnswerPart> {
    let mut all = Vec::new();
    for part in parts {
        match part {
            AnswerPart::Text(text) => append(text, &mut all),
            call @ AnswerPart::Call(_) => all.push(call),
        }
    }
    all
}

#[test]
fn calls_are_found_and_all_else_is_text() {
    for (format, answer, right) in answers() {
        assert_eq!(ToolCalls::parse(format, answer), right, "{answer}");
    }
}

#[test]
fn text_does_not_wait_for_calls() {
    let mut calls = ToolCalls::new(ToolFormat::Hermes);
    assert_eq!(calls.push("The level is <to"), [text("The level is")]);
    assert_eq!(calls.push("o high> now"), [text(" <too high> now")]);
}

#[test]
fn formats_are_known_by_their_templates() {
    for (template, format) in [
        ("… '\\n<tool_call>\\n{\"name\": \"' …", Some(ToolFormat::Hermes)),
        ("{{- \"<tool_call>\\n<function=\" }}", None),
        ("{{ '[TOOL_CALLS]' }}", Some(ToolFormat::Mistral)),
        ("<|start_header_id|> … \"parameters\": ", Some(ToolFormat::Llama)),
        ("<|im_start|>", None),
    ] {
        assert_eq!(ToolFormat::of_template(template), format);
    }
}

proptest! {
    #[test]
    fn parts_make_no_difference(
        which in 0usize..16,
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (format, answer, right) = answers().swap_remove(which);
        let boundaries: Vec<usize> = (0..=answer.len()).filter(|&at| answer.is_char_boundary(at)).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.get(&boundaries)).collect();
        cuts.push(answer.len());
        cuts.sort_unstable();
        let mut calls = ToolCalls::new(format);
        let mut parts = Vec::new();
        let mut start = 0;
        for cut in cuts {
            parts.extend(calls.push(&answer[start..cut]));
            start = cut;
        }
        parts.extend(calls.finish());
        prop_assert_eq!(merged(parts), right);
    }

    #[test]
    fn any_text_in_parts_is_what_it_is_as_a_whole(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("<tool_call>"), Just("</tool_call>"), Just("[TOOL_CALLS]"), Just("<|python_tag|>"), Just(" "),
                Just("{\"name\": \"f\", \"arguments\": {}}"), Just("["), Just("]"), Just("{"), Just("}"), Just("f"),
                Just("é"), Just(";"), Just("\""), Just("<tool"), Just("_call>"), Just("[ARGS]"),
            ],
            0..12,
        ),
        format in prop_oneof![Just(ToolFormat::Hermes), Just(ToolFormat::Llama), Just(ToolFormat::Mistral)],
    ) {
        let mut calls = ToolCalls::new(format);
        let mut found: Vec<AnswerPart> = parts.iter().flat_map(|part| calls.push(part)).collect();
        found.extend(calls.finish());
        prop_assert_eq!(merged(found), ToolCalls::parse(format, &parts.concat()));
    }
}
