//! Clients of OpenAI's interfaces for text, unmodified, and a real model: each way of asking comes to the text that the
//! model's worker writes without any of them, and what is held to a schema keeps to it.

use std::fs;
use std::process::Command;

use forebay_tests::binaries::checkout;
use forebay_tests::gateway::Gateway;
use forebay_tests::generator::{GENERATOR, chat, worker};
use forebay_tests::job::Codec;
use forebay_tests::patience::PATIENT;
use forebay_tests::record::result_within;
use forebay_tests::stack::Stack;
use serde_json::{Value, json};

use super::clients::{ASYNC_OPENAI, CLIENTS, OPENAI_2, package};
use super::python::interpreter_of;

/// A client of Python: the variable that names its environment, and the environment.
type Python = (&'static str, &'static str);

/// The clients, their environments and versions; the table of `docs/gateway.md` names the same versions.
const DRIVERS: [(Option<Python>, &str, &str); 6] = [
    (Some(CLIENTS), "openai_model", "3.57.0"),
    (Some(OPENAI_2), "openai_model", "2.54.0"),
    (Some(CLIENTS), "langchain_model", "1.7.4"),
    (Some(CLIENTS), "litellm_model", "1.110.2"),
    (Some(OPENAI_2), "llama_index_model", "0.8.1"),
    (None, ASYNC_OPENAI, "0.43.0"),
];

const MESSAGE: &str = "What is the capital of France?";
const PROMPT: &str = "The capital of France is";

/// The texts that the worker writes.
struct Written {
    answer: String,
    completion: String,
}

impl Written {
    async fn by(stack: &Stack) -> Self {
        let publisher = stack.publisher().await;
        let mut redis = stack.redis().await;
        let answer = chat(MESSAGE, &json!({"max_tokens": 32}));
        let completion =
            chat("", &json!({"max_tokens": 16})).with("input", json!({"prompt": PROMPT}));
        let mut texts = Vec::new();
        for job in [answer, completion] {
            publisher.submit(GENERATOR, &job, Codec::Json).await;
            let record = result_within(&mut redis, job.id(), PATIENT).await;
            texts.push(record.fields["output"]["text"].as_str().unwrap().to_owned());
        }
        let [answer, completion] = texts.try_into().unwrap();
        Self { answer, completion }
    }

    /// The first mistake in a client's answer.
    fn problem(&self, answer: &Value, version: &str) -> Option<String> {
        if answer["version"] != version {
            return Some(format!("version {} answers", answer["version"]));
        }
        let Some(texts) = answer["texts"].as_object().filter(|texts| texts.len() >= 5) else {
            return Some(format!("it asked in too few ways: {answer}"));
        };
        texts.iter().find_map(|(way, text)| {
            let text = text.as_str().unwrap_or_default();
            let is_right = match way.split(' ').next().unwrap_or_default() {
                "call" | "format" => serde_json::from_str(text).is_ok_and(|object: Value| {
                    object == json!({"city": "Oslo"}) || object == json!({"city": "Rome"})
                }),
                "completion" => text == self.completion,
                _ => text == self.answer,
            };
            (!is_right).then(|| format!("{way}: {text}"))
        })
    }
}

#[tokio::test]
async fn every_client_gets_what_the_model_writes_in_every_way_of_asking() {
    let stack = Stack::start().await;
    for command in [&["queues"][..], &["tenants", "create", "acme"]] {
        assert_eq!(stack.forebay(command).await.code, 0);
    }
    let created = stack.forebay(&["keys", "create", "--tenant", "acme"]).await;
    let key = created.output.trim_end().to_owned();
    let gateway = Gateway::of(&stack, &[]).await;
    let _worker = worker(&stack, &[]).await;
    let written = Written::by(&stack).await;
    let asked = stack.store.folder().join("asked.json");
    fs::write(&asked, json!({"message": MESSAGE, "prompt": PROMPT}).to_string()).unwrap();
    let mut problems = Vec::new();
    for (python, name, version) in DRIVERS {
        let mut command = Command::new("sh");
        command.args(["-c", "exec <\"$0\" \"$@\""]).arg(&asked);
        match python {
            Some((variable, environment)) => {
                command.arg(interpreter_of(variable, environment));
                command.arg(checkout().join("tests/clients/drivers.py")).arg(name);
            }
            None => {
                command.arg(package(name));
            }
        }
        stack.address(&mut command);
        command.env("FOREBAY_GATEWAY_URL", gateway.url("")).env("FOREBAY_API_KEY", &key);
        command.env("FOREBAY_MODEL", GENERATOR);
        let finished = stack.run(command).await;
        let printed = finished.output.lines().last().unwrap_or_default();
        let found = match (finished.code, serde_json::from_str(printed)) {
            (0, Ok(answer)) => written.problem(&answer, version),
            (code, _) => Some(format!("ended with {code}: {}{}", finished.output, finished.errors)),
        };
        problems.extend(found.map(|found| format!("{name} {version}: {found}")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
