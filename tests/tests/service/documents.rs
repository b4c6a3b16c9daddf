//! The documents' commands run as written, on a private stack in the environment that `make up` leaves behind.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use forebay_tests::binaries::{binary, checkout};
use forebay_tests::document::{Block, command_blocks};
use forebay_tests::patience::{SOON, until};
use forebay_tests::publisher::BATCH;
use forebay_tests::stack::Stack;
use lapin::BasicProperties;

use super::commands::json_lines;

/// The programs that run here. A block that has another one is checked by the test `tidy`, and says there why it can't.
const PROGRAMS: &[&str] = &["forebay", "forebay-autoscaler", "make", "."];

/// A dead letter's name, as the documents show it.
const SHOWN: &str = "6f1c0a9be2d4";

/// `make` starts and builds everything: here it only has the targets that are asked for. `forebay top` waits for a key
/// on a terminal, and a name in a document is that of another day's dead letter.
const MAKE: &str = "#!/bin/sh\nfor target; do grep -q \"^$target:\" Makefile || exit 2; done\n";

fn documents() -> Vec<(String, String)> {
    let folders = ["", "docs", "examples/data", "findings"].map(|folder| checkout().join(folder));
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    let named = paths.into_iter().map(|path| {
        let name = path.strip_prefix(checkout()).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    });
    named.collect()
}

/// The blocks all of whose programs run here, apart from those of `make` alone.
fn runnable_blocks() -> Vec<Block> {
    let blocks = documents().into_iter().flat_map(|(name, text)| command_blocks(&name, &text));
    let runs = |block: &Block| {
        let commands = block.commands();
        let programs = || commands.iter().map(|command| command.words[0].as_str());
        programs().all(|program| PROGRAMS.contains(&program))
            && programs().any(|program| program != "make")
    };
    blocks.filter(runs).collect()
}

/// A folder that looks like the checkout after `make up`, with what a reader would have in it.
fn prepare(folder: &Path, stack: &Stack, dead_letter: &str) {
    for entry in fs::read_dir(checkout()).unwrap().map(Result::unwrap) {
        if entry.file_name() != ".forebay" {
            symlink(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
    fs::write(folder.join("texts.jsonl"), "{\"text\": \"one\"}\n{\"text\": \"two\"}\n".repeat(20))
        .unwrap();
    let state = folder.join(".forebay");
    let programs = state.join("programs");
    fs::create_dir_all(&programs).unwrap();
    write_program(&programs.join("make"), MAKE);
    let forebay = binary("forebay");
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = top ] && set -- top --once\n[ \"$3\" = {SHOWN} ] && set -- dead show {dead_letter}\n\
         exec {} \"$@\"\n",
        forebay.display()
    );
    write_program(&programs.join("forebay"), &script);
    let built = forebay.parent().unwrap();
    let environment = format!(
        "export FOREBAY_AMQP_URL='{}'\nexport FOREBAY_MANAGEMENT_URL='{}'\nexport FOREBAY_REDIS_URL='{}'\n\
         export FOREBAY_GATEWAY_URL=http://127.0.0.1:1\nexport FOREBAY_CONFIG='{}'\nexport PATH={}:{}:$PATH\n",
        stack.amqp_url(),
        stack.vhost.management_url(),
        stack.redis_url(),
        stack.config().display(),
        programs.display(),
        built.display()
    );
    assert_eq!(
        exported(&environment),
        exported_by_the_script(),
        "`make up` writes another environment"
    );
    fs::write(state.join("env"), environment).unwrap();
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The names that a script exports.
fn exported(script: &str) -> Vec<String> {
    let names = script.split("export ").skip(1).filter_map(|rest| rest.split('=').next());
    names.map(ToOwned::to_owned).collect()
}

/// Those that `make up` writes into `.forebay/env`.
fn exported_by_the_script() -> Vec<String> {
    let script = fs::read_to_string(checkout().join("scripts/lib/fleet.sh")).unwrap();
    let writer = script.split("write_env()").nth(1).expect("a function that writes it");
    let lines = writer.lines().filter(|line| line.trim_start().starts_with("printf 'export "));
    exported(&lines.collect::<Vec<_>>().join("\n"))
}

/// Makes one dead letter and returns its name.
async fn dead_letter(stack: &Stack) -> String {
    let nameless = BasicProperties::default().with_content_type("application/msgpack".into());
    stack.publisher().await.publish(BATCH, b"\xc1 no job", nameless).await;
    until("a dead letter is listed", SOON, async || {
        let listed = json_lines(&stack.forebay(&["dead", "list", "--json"]).await);
        Some(listed.first()?["letter"].as_str().expect("a name").to_owned())
    })
    .await
}

#[tokio::test]
async fn every_command_of_the_documents_that_can_run_here_runs_as_written() {
    let blocks = runnable_blocks();
    let documents: Vec<&str> = blocks.iter().map(|block| block.document.as_str()).collect();
    assert!(
        documents.contains(&"README.md") && documents.contains(&"docs/operating.md"),
        "{documents:?}"
    );
    let stack = Stack::declared().await;
    let _autoscaler = stack.autoscaler(&[]).await;
    let _worker = stack.worker(&[]).await;
    let dead_letter = dead_letter(&stack).await;
    let mut failed = Vec::new();
    for block in blocks {
        let folder = tempfile::tempdir_in(stack.store.folder()).unwrap();
        prepare(folder.path(), &stack, &dead_letter);
        let mut shell = Command::new("bash");
        stack.address(&mut shell);
        // Each command ends well, and is shown in front of what it says.
        let script = format!("set -euxo pipefail\n. .forebay/env\n{}", block.text);
        shell.current_dir(folder.path()).args(["-c", &script]);
        let finished = stack.run(shell).await;
        if finished.code != 0 {
            failed.push(format!("{}:{}: {finished:#?}", block.document, block.line));
        }
    }
    assert!(failed.is_empty(), "blocks that don't run as written:\n{}", failed.join("\n"));
}
