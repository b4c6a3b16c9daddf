//! The bare engine as a program that stays loaded, for benchmarks that put it beside others.
//!
//! `beside MODEL_FOLDER DTYPE THREADS` prints what was loaded, then answers each line of standard input with a line
//! of JSON:
//!
//! - `texts FILE` takes the JSON list of texts in that file: `{"tokens"}`
//! - `round N` embeds them all N times, tokenisation included: `{"seconds"}`, the median of one time
//! - `vectors FILE` embeds them once more and writes the vectors there, as JSON
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::BufRead;
use std::sync::mpsc;
use std::time::Instant;

use forebay_engine::{DType, EngineError, Finish, LoadOptions, Model, PackedBatch, Tokens, load};
use serde_json::{Value, json};

/// Tokens of a batch: the default of a worker.
const BATCH_TOKENS_MAX: usize = 4_096;
/// Fewer texts are not worth a thread that tokenises ahead.
const AHEAD_MIN: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("beside MODEL_FOLDER DTYPE THREADS")?;
    let dtype: DType = arguments.next().ok_or("a dtype: f32 or bf16")?.parse()?;
    let threads: usize = arguments.next().ok_or("how many threads")?.parse()?;
    let options =
        LoadOptions { dtype: Some(dtype), threads: Some(threads), ..LoadOptions::default() };
    let mut model = load(folder.as_ref(), &options)?;
    println!("{}", json!({"dtype": dtype.to_string(), "threads": threads}));
    let mut texts = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (command, argument) = line.split_once(' ').ok_or("a command and its argument")?;
        println!("{}", answer(command, argument, &mut model, &mut texts)?);
    }
    Ok(())
}

fn answer(
    command: &str,
    argument: &str,
    model: &mut Model,
    texts: &mut Vec<String>,
) -> Result<Value, Box<dyn Error>> {
    match command {
        "texts" => {
            *texts = serde_json::from_slice(&std::fs::read(argument)?)?;
            let counts = texts.iter().map(|text| Ok(model.tokenizer.encode(text)?.ids.len()));
            let tokens: usize = counts.sum::<Result<usize, EngineError>>()?;
            Ok(json!({ "tokens": tokens }))
        }
        "round" => {
            let mut seconds = Vec::new();
            for _ in 0..argument.parse::<usize>()?.max(1) {
                let started = Instant::now();
                embed(model, texts)?;
                seconds.push(started.elapsed().as_secs_f64());
            }
            seconds.sort_by(f64::total_cmp);
            Ok(json!({ "seconds": seconds[seconds.len() / 2] }))
        }
        "vectors" => {
            std::fs::write(argument, serde_json::to_vec(&embed(model, texts)?)?)?;
            Ok(json!({ "written": texts.len() }))
        }
        other => Err(format!("unknown command {other:?}").into()),
    }
}

/// All texts in order, batch after batch.
fn embed(model: &mut Model, texts: &[String]) -> Result<Vec<Vec<f32>>, EngineError> {
    let tokenizer = model.tokenizer.clone();
    let encode = |text: &String| tokenizer.encode(text);
    let mut batches = Batches { model, batch: PackedBatch::new(), rows: Vec::new() };
    if texts.len() < AHEAD_MIN {
        texts.iter().map(encode).try_for_each(|tokens| batches.push(&tokens?))?;
        return batches.finish();
    }
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(texts.len());
        scope.spawn(move || texts.iter().map(encode).try_for_each(|tokens| sender.send(tokens)));
        receiver.iter().try_for_each(|tokens| batches.push(&tokens?))?;
        batches.finish()
    })
}

struct Batches<'a> {
    model: &'a mut Model,
    batch: PackedBatch,
    rows: Vec<Vec<f32>>,
}

impl Batches<'_> {
    fn push(&mut self, tokens: &Tokens) -> Result<(), EngineError> {
        if self.batch.tokens() + tokens.ids.len() > BATCH_TOKENS_MAX {
            self.compute()?;
        }
        self.batch.push(&tokens.ids, Finish::default());
        Ok(())
    }

    fn compute(&mut self) -> Result<(), EngineError> {
        let rows = self.model.engine.encoder()?.compute(&self.batch)?;
        self.rows.extend(rows.rows().map(<[f32]>::to_vec));
        self.batch.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Vec<f32>>, EngineError> {
        self.compute()?;
        Ok(self.rows)
    }
}
