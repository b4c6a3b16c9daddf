//! The house rules that a compiler does not check. No servers needed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use toml::{Table, Value};

use self::tidy::files::{Source, assert_none, root, sources, written};

mod tidy {
    mod commands;
    pub mod files;
    mod metrics;
    mod modules;
    mod style;
    mod words;
}

/// The rooms and their floors: a room depends on rooms of lower floors only. A new room gets its line here.
const FLOORS: &[(&str, u32)] = &[
    ("forebay-schemas", 1),
    ("forebay-kernels", 1),
    ("forebay-fabric", 2),
    ("forebay-engine", 2),
    ("forebay-client", 3),
    ("forebay-consumer", 3),
    ("forebay-autoscaler", 3),
    ("forebay-gateway", 4),
    ("forebay-producer", 4),
    ("forebay-gateway", 4),
    ("forebay-tests", 5),
];

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn every_file_opens_by_saying_what_it_is_for() {
    let silent = sources("rs").into_iter().filter(|source| !source.text.starts_with("//! "));
    let paths: Vec<String> = silent.map(|source| source.path.clone()).collect();
    assert_none("files that don't open with `//! `", &paths);
}

#[test]
fn files_are_short() {
    let lengths = sources("rs").into_iter().filter(|source| !source.is_test()).map(|source| {
        let lines = source.lines_before_tests().count();
        (&source.path, lines)
    });
    let long = lengths
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines}"));
    assert_none("files over 400 lines without their tests", &long.collect::<Vec<_>>());
}

#[test]
fn functions_are_short() {
    let long: Vec<String> = sources("rs").into_iter().flat_map(long_functions).collect();
    assert_none("functions over 70 lines", &long);
}

/// Formatted code closes a function with a brace in the column where its first line began.
fn long_functions(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut long = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        if !begins_function(line.trim_start()) || line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        // A trait's declaration over several lines ends with its semicolon.
        let closes = |rest: &str| rest == "}" || (rest.starts_with(')') && rest.ends_with(';'));
        let ends = |line: &&str| line.strip_prefix(indent).is_some_and(closes);
        let length = lines[at..].iter().position(ends).map_or(1, |end| end + 1);
        if length > FUNCTION_LINES_MAX {
            long.push(format!("{}:{}: {length} lines", source.path, at + 1));
        }
    }
    long
}

fn begins_function(line: &str) -> bool {
    let mut words = line.split_whitespace().take_while(|word| !word.starts_with("//"));
    let modifiers =
        ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\""];
    words.find(|word| !modifiers.contains(word)) == Some("fn")
}

#[test]
fn nothing_is_left_undone_or_skipped() {
    // Written apart, so that this file does not find itself.
    let banned = [
        ["#[igno", "re"],
        ["todo", "!("],
        ["unimplemented", "!("],
        ["dbg", "!("],
        ["FIX", "ME"],
        ["TO", "DO"],
    ];
    let banned = banned.map(|parts| parts.concat());
    let mut offences = Vec::new();
    for source in sources("rs") {
        for (at, line) in source.text.lines().enumerate() {
            let found = banned.iter().find(|word| line.contains(word.as_str()));
            offences.extend(found.map(|word| format!("{}:{}: {word}", source.path, at + 1)));
        }
    }
    assert_none("unfinished or skipped", &offences);
}

#[test]
fn tests_wait_for_conditions_and_not_for_time() {
    let waits = ["::sle", "ep("].concat();
    let tests = sources("rs").into_iter().filter(|source| source.path.starts_with("tests/"));
    let sleepy = tests
        .filter(|source| source.text.contains(&waits) && !source.path.ends_with("patience.rs"));
    assert_none("tests that sleep", &sleepy.map(|source| source.path.clone()).collect::<Vec<_>>());
}

#[test]
fn unsafe_code_is_allowed_in_the_kernels_alone() {
    let allows = ["allow(unsafe", "_code)"].concat();
    let elsewhere =
        sources("rs").into_iter().filter(|source| !source.path.starts_with("consumer/kernels/"));
    let offenders =
        elsewhere.filter(|source| source.text.contains(&allows)).map(|source| source.path.clone());
    assert_none("files that allow unsafe code", &offenders.collect::<Vec<_>>());
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    let private = [["/ho", "me/"], ["/ro", "ot/"], ["/wo", "rk/"], ["/Use", "rs/"]]
        .map(|parts| parts.concat());
    let named = |source: &&Source| private.iter().any(|folder| source.text.contains(folder));
    let kinds = ["rs", "md", "toml", "py", "sh", "yml", "html"];
    let files = written().iter().filter(|source| kinds.contains(&source.kind()));
    let offences: Vec<String> = files.filter(named).map(|source| source.path.clone()).collect();
    assert_none("files that name such a folder", &offences);
}

/// The members' manifests, the root's left out.
fn manifests() -> Vec<(String, Table)> {
    let members = sources("toml").into_iter().filter(|source| source.path.ends_with("/Cargo.toml"));
    let parsed = members.map(|source| {
        let table: Table =
            source.text.parse().unwrap_or_else(|error| panic!("{}: {error}", source.path));
        (source.path.clone(), table)
    });
    parsed
        .filter(|(_, table)| table.contains_key("package") && !table.contains_key("workspace"))
        .collect()
}

/// Name and requirement of every dependency, whatever it is needed for.
fn dependencies(manifest: &Table) -> Vec<(&String, &Value)> {
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = kinds.iter().filter_map(|kind| manifest.get(*kind)?.as_table());
    tables.flat_map(Table::iter).collect()
}

#[test]
fn rooms_depend_on_lower_floors_only() {
    let floor = |name: &str| FLOORS.iter().find(|(room, _)| *room == name).map(|(_, floor)| *floor);
    let mut offences = Vec::new();
    for (path, manifest) in manifests() {
        let name = manifest["package"]["name"].as_str().unwrap();
        let Some(own) = floor(name) else {
            offences.push(format!("{path}: {name} has no floor"));
            continue;
        };
        let upward =
            dependencies(&manifest).into_iter().filter(|(other, _)| floor(other) >= Some(own));
        offences.extend(upward.map(|(other, _)| format!("{path}: {other} is not below {name}")));
    }
    assert_none("dependencies that don't point down", &offences);
}

#[test]
fn versions_and_lints_stand_in_one_table() {
    let mut offences = Vec::new();
    for (path, manifest) in manifests() {
        let shared = |value: &Value| value.get("workspace").and_then(Value::as_bool) == Some(true);
        let own = dependencies(&manifest).into_iter().filter(|(_, needed)| !shared(needed));
        offences.extend(own.map(|(name, _)| format!("{path}: {name} has a version of its own")));
        if !manifest.get("lints").is_some_and(shared) {
            offences.push(format!("{path}: [lints] workspace = true is missing"));
        }
    }
    assert_none("manifests that go their own way", &offences);
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut offences = Vec::new();
    for document in sources("md") {
        let folder: PathBuf = root().join(&document.path).parent().unwrap().into();
        for target in links(&document.text) {
            let file = target.split('#').next().unwrap();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !file.is_empty() && !folder.join(file).exists() {
                offences.push(format!("{}: {target}", document.path));
            }
        }
    }
    assert_none("links to nowhere", &offences);
}

/// The targets of `[text](target)` outside code blocks.
fn links(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    prose
        .flat_map(|part| part.split("](").skip(1))
        .filter_map(|rest| rest.split([')', ' ']).next())
        .collect()
}
