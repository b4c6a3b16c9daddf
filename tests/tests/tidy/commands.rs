//! The documents' commands that no test can run, and the tests that they name: all of it exists.
//!
//! The others are run by the test `service`, in `documents.rs`.

use std::fs;
use std::path::Path;

use forebay_tests::document::{Command, command_blocks, commands_of};

use super::files::{Source, assert_none, root, sources, written};

/// The programs whose commands run in the test `service`.
const RUN: &[&str] = &["forebay", "forebay-autoscaler", "."];

/// The programs that do not, with the reason.
const NOT_RUN: &[(&str, &str)] = &[
    ("make", "builds or starts everything; its target has to exist"),
    ("cargo", "builds; package, target and filter have to exist"),
    ("git", "fetches or changes a repository"),
    ("cd", "goes into a folder that another command makes"),
    ("docker", "needs a Docker engine"),
    ("kubectl", "needs a cluster"),
    (
        "rabbitmqctl",
        "changes an installed broker; `permissions.rs` runs the programs as these users",
    ),
    ("python3", "makes an environment for packages from the network"),
    (".forebay/venv-bench/bin/pip", "fetches packages from the network"),
    (".forebay/venv-gateways/bin/pip", "fetches packages from the network"),
];

/// A command, and where a document shows it.
struct Shown {
    at: String,
    command: Command,
}

/// The commands in the blocks of a document.
fn in_blocks(document: &Source) -> Vec<Shown> {
    let blocks = command_blocks(&document.path, &document.text).into_iter();
    let shown = blocks.flat_map(|block| {
        let at = format!("{}:{}", block.document, block.line);
        block.commands().into_iter().map(move |command| Shown { at: at.clone(), command })
    });
    shown.collect()
}

/// The calls of `make`, `cargo` and scripts within a sentence.
fn in_sentences(document: &Source) -> Vec<Shown> {
    let is_fence = |line: &&str| line.trim_start().starts_with("```");
    let mut is_inside = false;
    let mut found = Vec::new();
    for (at, line) in document.text.lines().enumerate() {
        is_inside ^= is_fence(&line);
        if is_inside {
            continue;
        }
        let code = line.split('`').skip(1).step_by(2).flat_map(commands_of);
        let called = code.filter(|command| {
            let program = command.words[0].as_str();
            command.words.len() > 1 && ["make", "cargo"].contains(&program)
                || program.starts_with("scripts/")
        });
        found.extend(
            called.map(|command| Shown { at: format!("{}:{}", document.path, at + 1), command }),
        );
    }
    found
}

/// The first mistake of a command that is not run.
fn problem(command: &Command) -> Option<String> {
    let arguments = &command.words[1..];
    let unknown = command.variables.iter().find(|variable| !is_setting(variable));
    if let Some(variable) = unknown {
        return Some(format!("nothing reads {variable}"));
    }
    match command.words[0].as_str() {
        "make" => arguments
            .iter()
            .find(|target| !is_target(target))
            .map(|target| format!("no target {target}")),
        "cargo" => cargo_problem(arguments),
        script if script.starts_with("scripts/") && !root().join(script).exists() => {
            Some("no such script".into())
        }
        _ => arguments
            .iter()
            .find(|argument| is_missing(argument))
            .map(|path| format!("no file {path}")),
    }
}

/// Whether `NAME=value` sets something that a script or a test reads.
fn is_setting(variable: &str) -> bool {
    let name = variable.split('=').next().unwrap_or_default();
    let code = ["sh", "py", "rs", "Makefile"];
    written().iter().any(|source| code.contains(&source.kind()) && source.text.contains(name))
}

fn is_target(target: &str) -> bool {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let is_variable = target.contains('=') && is_setting(target);
    is_variable || makefile.lines().any(|line| line.starts_with(&format!("{target}:")))
}

/// Whether an argument names a file in one of the checkout's folders that is not there.
fn is_missing(argument: &str) -> bool {
    let first = argument.split('/').next().unwrap_or_default();
    let is_path = argument.contains('/') && !first.is_empty() && root().join(first).is_dir();
    let is_made = first.starts_with('.');
    is_path && !is_made && !root().join(argument).exists()
}

/// Checks `cargo test --package P --test T filter`.
fn cargo_problem(arguments: &[String]) -> Option<String> {
    let before = arguments.iter().take_while(|argument| *argument != "--");
    let mut arguments = before.skip(1).map(String::as_str);
    let mut package = None;
    let mut filters = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument {
            "-p" | "--package" => package = arguments.next(),
            "--test" | "--example" | "--bench" | "--bin" => {
                let name = arguments.next()?;
                let is_there = root_names().any(|known| known == name);
                if !is_there {
                    return Some(format!("no {argument} {name}"));
                }
            }
            "--features" | "--profile" | "--target" => drop(arguments.next()),
            flag if flag.starts_with('-') => {}
            filter => filters.push(filter),
        }
    }
    let Some(folder) = folder_of(package) else { return Some(format!("no package {package:?}")) };
    let named = |filter: &&str| {
        let last = filter.rsplit("::").next().unwrap_or_default();
        let function = |line: &str| line.contains("fn ") && line.contains(last);
        let mut files = sources("rs").into_iter().filter(|source| source.path.starts_with(&folder));
        files.any(|source| source.path.contains(last) || source.text.lines().any(function))
    };
    filters
        .iter()
        .find(|filter| !named(filter))
        .map(|filter| format!("no test is named like {filter}"))
}

/// The names of all targets: root files in `tests`, `examples` and `benches`, and programs.
fn root_names() -> impl Iterator<Item = String> {
    let manifests =
        sources("toml").into_iter().filter(|source| source.path.ends_with("Cargo.toml"));
    let programs = manifests.flat_map(|manifest| {
        let lines = manifest.text.lines().filter_map(|line| line.strip_prefix("name = \""));
        lines.map(|name| name.trim_end_matches('"').to_owned())
    });
    let roots = sources("rs").into_iter().filter_map(|source| {
        let path = Path::new(&source.path);
        let named = if path.ends_with("main.rs") { path.parent()? } else { path };
        let kind = named.parent()?.file_name()?.to_str()?;
        let is_root = ["tests", "examples", "benches"].contains(&kind);
        is_root.then(|| named.file_stem().unwrap().to_string_lossy().into_owned())
    });
    programs.chain(roots)
}

/// The folder of a package; the checkout's own for all of them.
fn folder_of(package: Option<&str>) -> Option<String> {
    let Some(package) = package else { return Some(String::new()) };
    let line = format!("name = \"{package}\"");
    let manifests = sources("toml");
    let own = manifests.into_iter().find(|source| source.text.lines().any(|text| text == line))?;
    own.path.strip_suffix("Cargo.toml").map(ToOwned::to_owned)
}

#[test]
fn commands_of_the_documents_that_no_test_runs_name_what_exists() {
    let mut offences = Vec::new();
    for document in sources("md") {
        for Shown { at, command } in in_blocks(document) {
            let program = command.words[0].as_str();
            if RUN.contains(&program) {
                continue;
            }
            let is_known = NOT_RUN.iter().any(|(name, _)| *name == program);
            let problem =
                if is_known { problem(&command) } else { Some("is neither run nor listed".into()) };
            offences.extend(problem.map(|problem| format!("{at}: {program}: {problem}")));
        }
        let sentences = in_sentences(document).into_iter();
        let wrong = sentences.filter_map(|Shown { at, command }| Some((at, problem(&command)?)));
        offences.extend(wrong.map(|(at, problem)| format!("{at}: {problem}")));
    }
    assert_none("commands of the documents", &offences);
}

/// The tests in a document's code spans: `a::b::name_of_a_test`, or `a::b::beginning_of_some_*`.
fn named_tests(text: &str) -> Vec<&str> {
    let spans = text.split('`').skip(1).step_by(2);
    let last = spans.filter_map(|span| span.rsplit_once("::").map(|(_, name)| name));
    let part_of_a_name =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '*';
    last.filter(|name| name.matches('_').count() > 2 && name.chars().all(part_of_a_name)).collect()
}

fn is_a_function(name: &str) -> bool {
    let call =
        name.strip_suffix('*').map_or_else(|| format!("fn {name}("), |begin| format!("fn {begin}"));
    sources("rs").into_iter().any(|source| source.text.contains(&call))
}

#[test]
fn tests_that_the_documents_name_exist() {
    let mut offences = Vec::new();
    for document in sources("md") {
        let gone = named_tests(&document.text).into_iter().filter(|name| !is_a_function(name));
        offences.extend(gone.map(|name| format!("{}: {name}", document.path)));
    }
    assert_none("tests that are named and don't exist", &offences);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_name_what_is_not_there_are_found() {
        for wrong in [
            "make no-such-target",
            "FOREBAY_NO_SUCH_SETTING_=1 make test",
            "cargo test --package forebay-nothing",
            "cargo test --test no_such_test_binary",
            "cargo test -p forebay-tests no_such_test_at_all_",
            "kubectl apply --kustomize deploy/no-such-folder",
            "scripts/no-such-script",
        ] {
            // Put together here, so that the name isn't found in this file.
            let wrong = wrong
                .replace("SETTING_", &["SET", "TED"].concat())
                .replace("at_all_", &["at", "_all"].concat());
            assert!(
                commands_of(&wrong).iter().all(|command| problem(command).is_some()),
                "{wrong}"
            );
        }
    }

    #[test]
    fn commands_that_name_what_is_there_are_fine() {
        for right in [
            "make demo",
            "FOREBAY_CHAOS_RUNS=200 make chaos",
            "cargo test --workspace --test tidy commands_that_name -- --nocapture",
            "kubectl apply --kustomize deploy/kubernetes",
            "scripts/stack up",
        ] {
            let problems: Vec<_> = commands_of(right).iter().filter_map(problem).collect();
            assert!(problems.is_empty(), "{right}: {problems:?}");
        }
    }

    #[test]
    fn a_test_that_does_not_exist_is_found() {
        let text = "`a::a_test_that_does_not_exist_is_found`, `b::a_test_that_does_*`, `c::d`, `e::no_such_one_at_all`";
        let gone: Vec<&str> =
            named_tests(text).into_iter().filter(|name| !is_a_function(name)).collect();
        assert_eq!(gone, ["no_such_one_at_all"]);
    }
}
