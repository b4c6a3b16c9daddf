//! Clients of OpenAI's interfaces for text, unmodified: each gets what was written, whole and as it comes. A stand-in
//! for a worker writes it, so that each way of asking has an answer that is known.

use std::fs;
use std::process::Command;

use forebay_tests::binaries::checkout;
use forebay_tests::gateway::Gateway;
use forebay_tests::model::TINY;
use forebay_tests::stack::Stack;
use forebay_tests::writer::{Writer, beside_script, reply_to};
use serde_json::{Value, json};

use super::clients::{CLIENTS, OPENAI_2};
use super::python::interpreter_of;

/// The clients, their environments and versions; the table of `docs/gateway.md` names the same versions.
const DRIVERS: [((&str, &str), &str, &str); 6] = [
    (CLIENTS, "openai_text", "3.57.0"),
    (CLIENTS, "openai_async_text", "3.57.0"),
    (OPENAI_2, "openai_text", "2.54.0"),
    (OPENAI_2, "openai_async_text", "2.54.0"),
    (CLIENTS, "langchain_text", "1.7.4"),
    (CLIENTS, "litellm_text", "1.110.2"),
];

const MESSAGE: &str = "What is in front of a turbine?";

/// The first mistake in a client's answer.
fn problem(answer: &Value, version: &str) -> Option<String> {
    if answer["version"] != version {
        return Some(format!("version {} answers", answer["version"]));
    }
    let texts = answer["texts"].as_object()?;
    texts.iter().find_map(|(way, text)| {
        let is_object = ["call", "format"].iter().any(|word| way.contains(word));
        let expected =
            if is_object { "{\"city\": \"Oslo\"}".to_owned() } else { reply_to(MESSAGE) };
        (*text != expected).then(|| format!("{way}: {text}, not {expected}"))
    })
}

#[tokio::test]
async fn every_client_gets_the_texts_and_calls_that_were_written() {
    let stack = Stack::start().await.tiny();
    for command in [&["queues"][..], &["tenants", "create", "acme"]] {
        assert_eq!(stack.forebay(command).await.code, 0);
    }
    let created = stack.forebay(&["keys", "create", "--tenant", "acme"]).await;
    let key = created.output.trim_end().to_owned();
    let gateway = Gateway::of(&stack, &[]).await;
    let asked = stack.store.folder().join("asked.json");
    fs::write(&asked, json!({"message": MESSAGE}).to_string()).unwrap();
    let writer = Writer::of(&stack, TINY).await;
    let drive = async {
        let mut problems = Vec::new();
        for ((variable, environment), function, version) in DRIVERS {
            let mut command = Command::new("sh");
            command.args(["-c", "exec \"$0\" \"$1\" \"$2\" <\"$3\""]);
            command.arg(interpreter_of(variable, environment));
            command.arg(checkout().join("tests/clients/drivers.py")).arg(function).arg(&asked);
            stack.address(&mut command);
            command.env("FOREBAY_GATEWAY_URL", gateway.url("")).env("FOREBAY_API_KEY", &key);
            command.env("FOREBAY_MODEL", TINY);
            let finished = stack.run(command).await;
            let printed = finished.output.lines().last().unwrap_or_default();
            let found = match (finished.code, serde_json::from_str(printed)) {
                (0, Ok(answer)) => problem(&answer, version),
                (code, _) => {
                    Some(format!("ended with {code}: {}{}", finished.output, finished.errors))
                }
            };
            problems.extend(found.map(|found| format!("{function} {version}: {found}")));
        }
        problems
    };
    let problems = beside_script(writer, drive).await;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
