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

/// The example's texts, and how many of them are used: all take minutes in a build for tests.
const TEXTS: &str = "descriptions.jsonl";
const TEXTS_MAX: usize = 50;

/// A dead letter's name, as the documents show it: an example.
const SHOWN: &str = "6f1c0a9be2d4";

/// `make` builds and starts everything. Here it only looks for the targets that are asked for.
const MAKE: &str = "for target; do grep -q \"^$target:\" Makefile || exit 2; done";

/// `forebay top` waits for a key on a terminal, and the example's dead letter has to be one that exists.
const FOREBAY: &str = "[ \"$*\" = top ] && set -- top --once\n\
                       [ \"$3\" = SHOWN ] && set -- dead show DEAD_LETTER\nexec PROGRAM \"$@\"";

/// A sweep takes minutes in a build that is not optimised. Here its arguments are only read.
const AUTOSCALER: &str =
    "case \"$*\" in *--sweep*) set -- \"$@\" --help ;; esac\nexec PROGRAM \"$@\"";

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

/// A folder that looks like the checkout after `make up`.
fn prepare(folder: &Path, stack: &Stack, dead_letter: &str) {
    link_all(checkout(), folder, &[".forebay", "examples"]);
    link_all(&checkout().join("examples"), &folder.join("examples"), &["data"]);
    let data = checkout().join("examples/data");
    let here = folder.join("examples/data");
    link_all(&data, &here, &[TEXTS]);
    let texts = fs::read_to_string(data.join(TEXTS)).unwrap();
    let first: Vec<&str> = texts.lines().take(TEXTS_MAX).collect();
    fs::write(here.join(TEXTS), first.join("\n") + "\n").unwrap();
    let state = folder.join(".forebay");
    let programs = state.join("programs");
    fs::create_dir_all(&programs).unwrap();
    for (name, script) in [("forebay", FOREBAY), ("forebay-autoscaler", AUTOSCALER)] {
        let path = binary(name).display().to_string();
        let script = script.replace("SHOWN", SHOWN).replace("DEAD_LETTER", dead_letter);
        write_program(&programs.join(name), &script.replace("PROGRAM", &path));
    }
    write_program(&programs.join("make"), MAKE);
    let environment = format!(
        "export FOREBAY_AMQP_URL='{}'\nexport FOREBAY_MANAGEMENT_URL='{}'\nexport FOREBAY_REDIS_URL='{}'\n\
         export FOREBAY_GATEWAY_URL=http://127.0.0.1:1\nexport FOREBAY_API_KEY=none\n\
         export FOREBAY_ADMIN_KEY=none\nexport FOREBAY_CONFIG='{}'\nexport PATH={}:$PATH\n",
        stack.amqp_url(),
        stack.vhost.management_url(),
        stack.redis_url(),
        stack.config().display(),
        programs.display()
    );
    assert_eq!(
        exported(&environment),
        exported_by_the_script(),
        "`make up` writes another environment"
    );
    fs::write(state.join("env"), environment).unwrap();
}

/// Makes links in `to` to all that is in `from` but `others`.
fn link_all(from: &Path, to: &Path, others: &[&str]) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if !others.iter().any(|other| entry.file_name() == *other) {
            symlink(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// A script that stands before a program in the path.
fn write_program(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
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
        // The first command that fails ends it; each is shown in front of what it says.
        let script = format!(". .forebay/env\nset -euxo pipefail\n{}", block.text);
        shell.current_dir(folder.path()).args(["-c", &script]);
        let finished = stack.run(shell).await;
        if finished.code != 0 {
            failed.push(format!("{}:{}: {finished:#?}", block.document, block.line));
        }
    }
    assert!(failed.is_empty(), "blocks that don't run as written:\n{}", failed.join("\n"));
}
