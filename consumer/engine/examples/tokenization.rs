//! How fast texts become tokens on one thread, beside the `tokenizers` library.
//!
//! `tokenization MODEL_FOLDER LINES.jsonl` tokenises the lines' texts, cut at the model's length, both ways in turns.
//! It checks that the tokens are equal, and prints a table and last a line of JSON.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use forebay_engine::{LoadOptions, load};
use serde_json::{Value, json};
use tokenizers::{Tokenizer, TruncationParams};

const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "tokenization MODEL_FOLDER LINES.jsonl";
    let folder = arguments.next().ok_or(usage)?;
    let lines = arguments.next().ok_or(usage)?;
    let model = load(folder.as_ref(), &LoadOptions::default())?;
    let mut library = Tokenizer::from_file(Path::new(&folder).join("tokenizer.json"))?;
    library.with_padding(None);
    let cut = TruncationParams { max_length: model.info.tokens_max, ..Default::default() };
    library.with_truncation(Some(cut))?;
    let texts = texts(&lines)?;

    let mut tokens = 0;
    for text in &texts {
        let ours = model.tokenizer.encode(text)?.ids;
        if library.encode_fast(text.as_str(), true)?.get_ids() != ours {
            return Err(format!("other tokens than the library's: {text:?}").into());
        }
        tokens += ours.len();
    }
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for text in &texts {
            model.tokenizer.encode(text)?;
        }
        ours.push(tokens as f64 / began.elapsed().as_secs_f64());
        let began = Instant::now();
        for text in &texts {
            library.encode_fast(text.as_str(), true)?;
        }
        theirs.push(tokens as f64 / began.elapsed().as_secs_f64());
    }
    let mut ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
    let ours = spread(&mut ours);
    let theirs = spread(&mut theirs);
    let ratio = spread(&mut ratios)[1];
    println!("{} texts, {tokens} tokens, one thread, tokens/s", texts.len());
    println!("{:<24} {:>12} {:>12} {:>12}", "", "min", "median", "max");
    for (name, [min, median, max]) in [("Forebay", ours), ("tokenizers", theirs)] {
        println!("{name:<24} {min:>12.0} {median:>12.0} {max:>12.0}");
    }
    println!("ours is {ratio:.1} times as fast");
    println!("{}", json!({"tokens": tokens, "ours": ours, "tokenizers": theirs, "ratio": ratio}));
    Ok(())
}

fn texts(lines: &str) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let mut texts = Vec::new();
    for line in std::fs::read_to_string(lines)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        texts.push(line["text"].as_str().ok_or("a line without a text")?.to_owned());
    }
    Ok(texts)
}

/// The least, the median, the greatest.
fn spread(figures: &mut [f64]) -> [f64; 3] {
    figures.sort_by(f64::total_cmp);
    [figures[0], figures[figures.len() / 2], figures[figures.len() - 1]]
}
