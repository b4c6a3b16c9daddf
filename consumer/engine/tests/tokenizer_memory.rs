//! Memory that a text of 8.2 MB takes to be tokenized, by the peak of a process that does only this.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::path::Path;
use std::process::Command;

use forebay_engine::{DType, LoadOptions, Tokenizer, load};

const TEXT_BYTES: usize = 8_200_000;
/// The variable that names the case to the process that measures it.
const CASE: &str = "FOREBAY_MEMORY_CASE";
const MODELS: [&str; 4] = ["bert", "mpnet", "roberta-classify", "xlm-roberta-rerank"];
const TEXTS: [(&str, &str); 5] = [
    ("words", "water and wine, "),
    ("one script without spaces", "\u{65e5}\u{672c}\u{8a9e}\u{306e}"),
    ("a record", "{\"key\":[1,2,3]},"),
    ("one word", "abcd"),
    ("one word of characters with accents", "\u{e9}"),
];

/// A line of `/proc/self/status`, in bytes.
fn status(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kib: usize = line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap();
    1024 * kib
}

#[test]
fn a_text_of_megabytes_takes_little_memory_with_and_without_spaces() {
    for model in MODELS {
        for (text, (name, _)) in TEXTS.iter().enumerate() {
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "one_case", "--nocapture"])
                .env(CASE, format!("{model} {text}"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&child.stdout).into_owned();
            assert!(child.status.success(), "{model}, {name}: {said}");
            println!("{}", said.lines().find(|line| line.contains(" MiB")).unwrap_or_default());
        }
    }
}

/// Run by the other test, in a process of its own.
#[test]
fn one_case() {
    let Ok(case) = std::env::var(CASE) else { return };
    let (model, text) = case.split_once(' ').unwrap();
    let (name, part) = TEXTS[text.parse::<usize>().unwrap()];
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny")).join(model);
    let options = LoadOptions { dtype: Some(DType::F32), ..LoadOptions::default() };
    let tokenizer = load(&folder, &options).unwrap().tokenizer;
    let text = part.repeat(TEXT_BYTES / part.len());
    // 5 sets the peak back to what is used now, see proc(5).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    let outcome = tokenizer.encode(&text);
    let taken = status("VmHWM").saturating_sub(before);
    let outcome = match outcome {
        Ok(tokens) => format!("{} tokens", tokens.ids.len()),
        Err(error) => error.to_string(),
    };
    println!("{model}, {name}: {:.1} MiB, {outcome}", taken as f64 / f64::from(1 << 20));
    assert!(taken <= Tokenizer::bytes_needed(text.len()), "{taken}");
    assert!(taken < 64 << 20, "{taken}");
}
