//! The engine alone: texts from a reader to vectors on a writer, without broker or store.
//!
//! Tokenization runs ahead on a thread of its own, as it does in the worker.

use std::{
    io::{BufRead, Write},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use forebay_engine::{Finish, Model, PackedBatch, Tokenizer};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{encode::packer::BatchLimits, error::WorkerError};

/// Texts that are tokenized ahead of the device.
const TEXTS_AHEAD: usize = 4_096;

/// One line of input.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    id: Value,
    text: String,
}

/// One line of output.
#[derive(Serialize)]
struct Vector<'a> {
    id: &'a Value,
    embedding: &'a [f32],
}

/// The figures of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Texts embedded.
    pub texts: u64,
    /// Tokens computed.
    pub tokens: u64,
    /// From the first line read to the last line written.
    pub seconds: f64,
    /// `tokens / seconds`
    pub tokens_per_s: f64,
    /// Seconds that loading the model took.
    pub load_seconds: f64,
    /// The device.
    pub device: String,
    /// The number type.
    pub dtype: String,
    /// How many threads computed.
    pub threads: usize,
}

struct Text {
    id: Value,
    ids: Vec<u32>,
}

/// Embeds every line of `input`, in order.
pub fn run(
    mut model: Model,
    load: Duration,
    limits: BatchLimits,
    input: impl BufRead + Send,
    mut output: impl Write,
) -> Result<Summary, WorkerError> {
    let started = Instant::now();
    let progress = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {pos} texts, {per_sec}, {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    let (sender, texts) = mpsc::sync_channel(TEXTS_AHEAD);
    let mut count = 0_u64;
    let mut tokens = 0_u64;
    let tokenizer = model.tokenizer.clone();
    thread::scope(|scope| {
        let reader = scope.spawn(move || read(input, &tokenizer, &sender));
        let mut held: Option<Text> = None;
        let mut batch = PackedBatch::new();
        let mut ids = Vec::new();
        loop {
            let next = held.take().or_else(|| texts.recv().ok());
            let full = next.as_ref().is_none_or(|text| !fits(&batch, text, limits));
            if full && !batch.is_empty() {
                let vectors = model.engine.encoder()?.compute(&batch)?;
                for (id, embedding) in ids.drain(..).zip(vectors.rows()) {
                    write(&mut output, &id, embedding)?;
                }
                count += batch.sequences() as u64;
                tokens += batch.tokens() as u64;
                progress.set_position(count);
                batch.clear();
                held = next;
            } else if let Some(Text { id, ids: token_ids }) = next {
                batch.push(&token_ids, Finish::default());
                ids.push(id);
            } else {
                break;
            }
        }
        reader.join().unwrap_or(Err(WorkerError::StageEnded("read")))
    })?;
    output.flush().map_err(writing)?;
    progress.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    Ok(Summary {
        texts: count,
        tokens,
        seconds,
        tokens_per_s: tokens as f64 / seconds.max(1e-9),
        load_seconds: load.as_secs_f64(),
        device: model.info.device.to_string(),
        dtype: model.info.dtype.to_string(),
        threads: model.info.threads,
    })
}

fn fits(batch: &PackedBatch, text: &Text, limits: BatchLimits) -> bool {
    batch.is_empty()
        || (batch.tokens() + text.ids.len() <= limits.tokens_max
            && batch.sequences() < limits.items_max)
}

fn write(output: &mut impl Write, id: &Value, embedding: &[f32]) -> Result<(), WorkerError> {
    serde_json::to_writer(&mut *output, &Vector { id, embedding })
        .map_err(|error| writing(error.into()))?;
    output.write_all(b"\n").map_err(writing)
}

fn writing(source: std::io::Error) -> WorkerError {
    WorkerError::Io { action: "writing the vectors", source }
}

fn read(
    input: impl BufRead,
    tokenizer: &Tokenizer,
    texts: &mpsc::SyncSender<Text>,
) -> Result<(), WorkerError> {
    for (number, line) in input.lines().enumerate() {
        let line =
            line.map_err(|source| WorkerError::Io { action: "reading the texts", source })?;
        if line.trim().is_empty() {
            continue;
        }
        let Line { id, text } = serde_json::from_str(&line).map_err(|error| WorkerError::Line {
            line: number + 1,
            reason: error.to_string(),
            expected: "text",
        })?;
        let ids = tokenizer.encode(&text)?.ids;
        if texts.send(Text { id, ids }).is_err() {
            break; // the receiving side has failed and returns its error
        }
    }
    Ok(())
}
