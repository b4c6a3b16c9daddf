//! Tokens a second of the bare engine, over texts sorted by length, for several batch sizes.
//!
//! `cargo run --release -p forebay-engine --example throughput -- MODEL_FOLDER TEXTS.jsonl [THREADS]`: each
//! line of the texts is an object with a `text`; the first 500 are used. Every figure includes tokenization
//! and is the best of five runs, because other work on the machine can only slow a run down.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use forebay_engine::{EngineError, Finish, LoadOptions, Model, PackedBatch, load};

const TEXTS: usize = 500;
const RUNS: usize = 5;

/// When a batch is full.
#[derive(Clone, Copy)]
enum Budget {
    Texts(usize),
    Tokens(usize),
}

impl Budget {
    fn is_reached(self, batch: &PackedBatch) -> bool {
        match self {
            Self::Texts(texts) => batch.sequences() >= texts,
            Self::Tokens(tokens) => batch.tokens() >= tokens,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Texts(texts) => format!("{texts} texts"),
            Self::Tokens(tokens) => format!("{tokens} tokens"),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: throughput MODEL_FOLDER TEXTS.jsonl [THREADS]";
    let (folder, texts) = arguments.next().zip(arguments.next()).ok_or(usage)?;
    let threads = arguments.next().map(|threads| threads.parse()).transpose()?;
    let mut model =
        load(&PathBuf::from(folder), &LoadOptions { threads, ..LoadOptions::default() })?;
    let texts = read_texts(&texts)?;
    println!("{} texts, {} threads, {}", texts.len(), model.info.threads, model.info.dtype);

    let budgets = [Budget::Texts(1), Budget::Texts(32)].into_iter();
    let budgets = budgets.chain([1, 2, 4, 8, 16].map(|thousands| Budget::Tokens(thousands * 1024)));
    let mut best: Vec<(Budget, f64)> = budgets.map(|budget| (budget, 0.0)).collect();
    // Round after round, so that a busy moment of the machine does not meet one budget only.
    for _ in 0..RUNS {
        for (budget, best) in &mut best {
            let start = Instant::now();
            let tokens = embed_all(&mut model, &texts, *budget)?;
            *best = best.max(tokens as f64 / start.elapsed().as_secs_f64());
        }
    }
    for (budget, tokens_per_second) in best {
        println!("{:>12} a batch: {tokens_per_second:>7.0} tokens/s", budget.name());
    }
    let start = Instant::now();
    for text in &texts {
        model.tokenizer.encode(text)?;
    }
    println!(
        "tokenization alone, one thread: {:.0} texts/s",
        texts.len() as f64 / start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn read_texts(path: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let mut texts = Vec::new();
    for line in std::fs::read_to_string(path)?.lines().take(TEXTS) {
        let value: serde_json::Value = serde_json::from_str(line)?;
        texts.push(value["text"].as_str().ok_or("a line without \"text\"")?.to_owned());
    }
    Ok(texts)
}

/// Tokenizes, sorts by length, packs and computes; returns the number of tokens.
fn embed_all(model: &mut Model, texts: &[String], budget: Budget) -> Result<usize, EngineError> {
    let mut sequences =
        texts.iter().map(|text| model.tokenizer.encode(text)).collect::<Result<Vec<_>, _>>()?;
    sequences.sort_by_key(|tokens| tokens.ids.len());
    let mut batch = PackedBatch::new();
    let mut tokens = 0;
    for sequence in &sequences {
        batch.push(&sequence.ids, Finish::default());
        if budget.is_reached(&batch) {
            tokens += batch.tokens();
            model.engine.encoder()?.compute(&batch)?;
            batch.clear();
        }
    }
    if !batch.is_empty() {
        tokens += batch.tokens();
        model.engine.encoder()?.compute(&batch)?;
    }
    Ok(tokens)
}
