//! Chat templates render as in the transformers library: `templates.py` made what is compared with.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use forebay_engine::{ChatInput, ChatTemplate, TemplateError};
use serde_json::{Map, Value};

/// The time that `templates.py` takes for now.
const NOW_MS: i64 = 1_782_993_600_000;

/// The variables that `templates.py` gives every template.
fn special_tokens() -> Vec<(String, String)> {
    [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .to_vec()
}

fn render(template: &ChatTemplate, given: &Value) -> Result<String, TemplateError> {
    let mut arguments: Map<String, Value> = given.as_object().unwrap().clone();
    let messages = arguments.remove("conversation").unwrap();
    let tools = arguments.remove("tools").unwrap_or_default();
    let add_generation_prompt =
        arguments.remove("add_generation_prompt").unwrap().as_bool().unwrap();
    template.render(&ChatInput {
        messages: &messages,
        tools: &tools,
        add_generation_prompt,
        arguments: &arguments,
        now_ms: NOW_MS,
    })
}

/// How one rendering differs from the library's.
fn difference(template: &ChatTemplate, line: &Value) -> Option<String> {
    let rendered = render(template, &line["given"]);
    let is_right = match &rendered {
        Ok(ours) => line["prompt"] == **ours,
        Err(TemplateError::Refused(ours)) => line["refused"] == **ours,
        Err(_) => false,
    };
    let theirs = line["prompt"].as_str().or(line["refused"].as_str());
    (!is_right).then(|| match (rendered, line["prompt"].as_str()) {
        (Ok(ours), Some(theirs)) => {
            let at = ours.chars().zip(theirs.chars()).take_while(|(a, b)| a == b).count();
            let part =
                |text: &str| text.chars().skip(at.saturating_sub(40)).take(120).collect::<String>();
            format!("at character {at}: {:?}, not {:?}", part(&ours), part(theirs))
        }
        (ours, _) => format!("{ours:?}, not {theirs:?}"),
    })
}

#[test]
fn templates_render_as_in_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/templates");
    let mut templates = BTreeMap::new();
    let mut cases = 0;
    let mut differences = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        for line in fs::read_to_string(&path).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let name = line["template"].as_str().unwrap().to_owned();
            let template = templates.entry(name.clone()).or_insert_with(|| {
                ChatTemplate::new(
                    &fs::read_to_string(folder.join(&name)).unwrap(),
                    special_tokens(),
                )
            });
            cases += 1;
            match template {
                Ok(template) => {
                    let difference = difference(template, &line);
                    differences
                        .extend(difference.map(|it| format!("{name}, {}: {it}", line["case"])));
                }
                Err(error) if line["case"] == "user" => {
                    differences.push(format!("{name}: {error}"));
                }
                Err(_) => {}
            }
        }
    }
    assert!(templates.len() >= 9 && cases >= 100, "{} templates, {cases} cases", templates.len());
    assert!(
        differences.is_empty(),
        "{} of {cases} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}
