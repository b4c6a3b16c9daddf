//! Answers come in the order of prompts, and none depends on the others.

use std::path::Path;

use forebay_engine::{DType, LoadOptions};
use serde_json::json;

use super::*;

const SETTINGS: Settings = Settings { concurrency: 3, tokens_max: 20, temperature: 0.0 };

fn answers(settings: Settings, lines: &[Value]) -> (Vec<Value>, Summary) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/tests/data/tiny/llama");
    let options =
        LoadOptions { dtype: Some(DType::F32), threads: Some(1), ..LoadOptions::default() };
    let model = forebay_engine::load(&folder, &options).unwrap();
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let input = lines.join("\n\n");
    let mut output = Vec::new();
    let summary = run(model, Duration::ZERO, settings, input.as_bytes(), &mut output).unwrap();
    let output = String::from_utf8(output).unwrap();
    (output.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), summary)
}

fn prompt(id: usize, params: &Value) -> Value {
    json!({"id": id, "prompt": format!("{id}").repeat(5 + 40 * (id % 3)), "params": params})
}

#[test]
fn every_prompt_is_answered_in_order_and_as_if_it_were_alone() {
    let lines: Vec<Value> = (0..9)
        .map(|id| {
            let temperature = 0.7 * (id % 2) as f64;
            prompt(
                id,
                &json!({"max_tokens": 3 + 7 * (id % 4), "seed": id, "temperature": temperature}),
            )
        })
        .collect();
    let (together, summary) = answers(SETTINGS, &lines);
    for (id, answer) in together.iter().enumerate() {
        assert_eq!(answer["id"], id);
        let tokens = answer["token_ids"].as_array().unwrap().len();
        assert!(answer["finish_reason"] == "stop" || tokens == 3 + 7 * (id % 4), "{answer}");
        let (alone, _) = answers(Settings { concurrency: 1, ..SETTINGS }, &lines[id..=id]);
        assert_eq!(alone[0], *answer);
    }
    assert_eq!(summary.sequences, 9);
    assert!(summary.decode_tokens_per_s > 0.0 && summary.prefill_tokens_per_s > 0.0);
}

#[test]
fn a_prompt_that_cannot_be_answered_has_an_error_and_the_others_have_answers() {
    let lines = [
        json!({"id": "long", "prompt": "x".repeat(600)}),
        prompt(1, &json!({})),
        json!({"id": "chat", "messages": [{"role": "user", "content": "x"}]}),
        json!({"id": "none"}),
        prompt(3, &json!({"max_tokens": 600})),
        prompt(2, &json!({"max_tokens": 1})),
    ];
    let (answers, summary) = answers(SETTINGS, &lines);
    let error = |index: usize| answers[index]["error"].as_str().unwrap_or_default();
    assert!(error(0).contains("600 tokens") && error(2).contains("chat template"), "{answers:?}");
    assert!(error(3).contains("either"), "{answers:?}");
    assert!(error(4).contains("`max_tokens` is 600"), "{answers:?}");
    assert_eq!(answers[5]["finish_reason"], "length");
    assert_eq!(summary.sequences, 2);
}

#[test]
fn a_stop_string_ends_the_text_before_it_and_a_stop_token_after_itself() {
    let (plain, _) = answers(SETTINGS, &[prompt(1, &json!({"ignore_eos": true}))]);
    let text = plain[0]["text"].as_str().unwrap();
    let ids = plain[0]["token_ids"].as_array().unwrap();
    let stop: String = text.chars().skip(4).take(2).collect();
    let (stopped, _) = answers(SETTINGS, &[prompt(1, &json!({"ignore_eos": true, "stop": stop}))]);
    assert_eq!(stopped[0]["finish_reason"], "stop");
    let kept = stopped[0]["text"].as_str().unwrap();
    assert!(
        text.starts_with(kept) && !kept.contains(&stop),
        "{kept:?} of {text:?} before {stop:?}"
    );
    let (ended, _) = answers(SETTINGS, &[prompt(1, &json!({"stop_token_ids": [ids[5]]}))]);
    let until = ids.iter().position(|id| id == &ids[5]).unwrap();
    assert_eq!(ended[0]["finish_reason"], "stop");
    assert_eq!(ended[0]["token_ids"].as_array().unwrap()[..], ids[..=until]);
}

#[test]
fn a_line_that_is_no_json_ends_the_run_with_its_number() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/tests/data/tiny/llama");
    let model = forebay_engine::load(&folder, &LoadOptions::default()).unwrap();
    let input = &b"{\"prompt\": \"a\"}\nb\n"[..];
    let error = run(model, Duration::ZERO, SETTINGS, input, Vec::new()).unwrap_err();
    assert!(matches!(error, WorkerError::Line { line: 2, .. }), "{error}");
}
