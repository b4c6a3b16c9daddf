//! `forebay check` on a small model, with a stand-in for Python that answers what a test says.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

fn tiny(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../consumer/engine/tests/data/tiny").join(model)
}

/// Runs the command on `model`, with a Python that reads its request and prints `answer`.
fn check(model: &Path, answer: &Value, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let python = folder.path().join("python");
    fs::write(&python, format!("#!/bin/sh\ncat > /dev/null\necho '{answer}'\n")).unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["check", model.to_str().unwrap(), "--python", python.to_str().unwrap()])
        .args(more)
        .current_dir(folder.path())
        .output()
        .unwrap()
}

fn lines(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The first text of the small BERT with its vector.
fn row() -> (String, Value) {
    let rows = fs::read_to_string(tiny("bert").join("expected.jsonl")).unwrap();
    let mut row: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    (row["text"].as_str().unwrap().to_owned(), row["mean"].take())
}

#[test]
fn a_model_that_agrees_ends_with_0_and_one_that_differs_with_1() {
    let (text, vector) = row();
    let answer = json!({"library": "library 1.0", "rows": [vector]});
    let output = check(&tiny("bert"), &answer, &["--text", &text]);
    let said = lines(&output);
    assert!(output.status.success(), "{said}");
    for part in ["family    bert", "task      embed", "pooling   mean", "agrees with library 1.0"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let output = check(&tiny("bert"), &answer, &["--text", "another text"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(lines(&output).contains("DIFFERS from library 1.0: least cosine 0."), "{output:?}");
}

#[test]
fn without_a_library_the_model_is_described_and_the_reason_is_given() {
    for (answer, reason) in [
        (json!({"missing": "torch"}), "has no torch"),
        (json!({"error": "ValueError: unknown"}), "can't run it: ValueError: unknown"),
    ] {
        let output = check(&tiny("bert-rerank"), &answer, &[]);
        let said = lines(&output);
        assert!(output.status.success() && said.contains("task      rerank"), "{said}");
        assert!(said.contains("compared  no") && said.contains(reason), "{said}");
    }
}

#[test]
fn a_language_model_is_a_reranker_where_the_caller_says_so() {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(tiny("qwen3-rerank").join(file), copy.path().join(file)).unwrap();
    }
    let text = "A forebay is the pool in front of a turbine.";
    let answer = json!({"library": "library 1.0", "rows": [[9.0]]});
    let output = check(copy.path(), &answer, &["--task", "rerank", "--text", text]);
    let said = lines(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["task      rerank", "asked as", "<Query>: {query}", "DIFFERS from library 1.0"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn json_says_which_fields_are_not_known() {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(tiny("bert").join(file), copy.path().join(file)).unwrap();
    }
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["rotary_twist"] = json!(2);
    fs::write(&path, config.to_string()).unwrap();
    let output = check(copy.path(), &json!({"missing": "torch"}), &["--json"]);
    let report: Value = serde_json::from_str(&lines(&output)).unwrap();
    let ignored = report["ignored"].as_array().unwrap();
    let unknown: Vec<&Value> = ignored.iter().filter(|field| field["is_known"] == false).collect();
    let expected =
        json!({"file": "config.json", "field": "rotary_twist", "is_known": false, "value": "2"});
    assert_eq!(unknown, [&expected]);
    assert_eq!(report["pooling"], json!(["mean"]));
}

#[test]
fn a_folder_that_is_refused_ends_with_the_field_s_name() {
    let copy = tempfile::tempdir().unwrap();
    fs::write(copy.path().join("config.json"), r#"{"model_type": "gpt2"}"#).unwrap();
    let output = check(copy.path(), &json!({}), &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("model_type = gpt2"), "{said}");
}
