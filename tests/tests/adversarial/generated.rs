//! Requests that a generator makes of the `OpenAPI` document: schemathesis, if `FOREBAY_SCHEMATHESIS` names it.

use std::env;
use std::fs;
use std::process::Command;
use std::time::Instant;

use forebay_tests::MODEL;
use forebay_tests::model::TINY;

use super::ground::{Ground, Tally};

/// The checks that answers are held to: no fault, and nothing but what the document has.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,ignored_auth,unsupported_method";

pub(super) async fn run(ground: &mut Ground) {
    let Ok(program) = env::var("FOREBAY_SCHEMATHESIS") else {
        println!("generated requests: left out, since FOREBAY_SCHEMATHESIS names no program");
        return;
    };
    let began = Instant::now();
    let examples = env::var("FOREBAY_ADVERSARIAL_EXAMPLES").unwrap_or("100".into());
    // Its examples name a model that this fleet has not.
    let document = ground.gateway.get("/openapi.json").body.to_string().replace(MODEL, TINY);
    let file = ground.stack.store.folder().join("openapi.json");
    fs::write(&file, document).unwrap();
    let mut command = Command::new(program);
    command
        .arg("run")
        .arg(file)
        .args(["--url", &ground.gateway.url(""), "--checks", CHECKS])
        .args(["--phases", "examples,coverage,fuzzing", "--continue-on-failure"])
        .args(["--header", &format!("Authorization: {}", ground.keys[0])])
        .args(["--max-examples", &examples, "--request-timeout", "60", "--no-color"])
        .current_dir(ground.stack.store.folder());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let summary = said.lines().rev().take(20).collect::<Vec<_>>();
    summary.into_iter().rev().for_each(|line| println!("  {line}"));
    ground.after("generated requests", began, &Tally::default()).await;
}
