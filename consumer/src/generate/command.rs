//! The generator alone: prompts from a reader to answers on a writer, without broker or store.
//!
//! A step is either of prompts or of picked tokens, so that the speed of each can be measured. Prompts are read ahead,
//! on a thread of its own, as in the worker.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, Write},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use forebay_engine::{
    Chunk, Detokenizer, Generator, Keep, Model, ModelInfo, Pick, Picked, SequenceId, Step,
    StopStrings, Vocabulary,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    error::WorkerError,
    generate::prompts::{Prompt, Read, Reader, Settings},
    memory,
};

/// Prompts that are read ahead of the device.
const PROMPTS_AHEAD: usize = 256;
/// Tokens of prompts in a step: enough that weights are read for many rows, few enough that states stay in caches.
const STEP_TOKENS: usize = 512;

/// One line of output.
#[derive(Serialize)]
struct Answer {
    id: Value,
    #[serde(flatten)]
    result: AnswerResult,
}

#[derive(Serialize)]
#[serde(untagged)]
enum AnswerResult {
    Generated { text: String, token_ids: Vec<u32>, finish_reason: &'static str },
    Failed { error: String },
}

/// The figures of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Prompts answered.
    pub sequences: u64,
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Tokens of all answers.
    pub output_tokens: u64,
    /// From the first line read to the last line written.
    pub seconds: f64,
    /// Tokens of prompts a second, while steps were of prompts.
    pub prefill_tokens_per_s: f64,
    /// Tokens of answers a second, while steps were of them.
    pub decode_tokens_per_s: f64,
    /// Seconds that loading the model took.
    pub load_seconds: f64,
    /// The device.
    pub device: String,
    /// The number type.
    pub dtype: String,
    /// How many threads computed.
    pub threads: usize,
    /// The most memory that this process had; 0 where the system doesn't say.
    pub memory_bytes_max: u64,
}

/// Answers every line of `input`, in order.
pub fn run(
    model: Model,
    load: Duration,
    settings: Settings,
    input: impl BufRead + Send,
    output: impl Write,
) -> Result<Summary, WorkerError> {
    let Model { tokenizer, engine, info } = model;
    let vocabulary = Arc::new(tokenizer.vocabulary()?);
    let reader = Reader::new(tokenizer, &info, settings)?;
    let (sender, prompts) = mpsc::sync_channel(PROMPTS_AHEAD);
    let mut run = Run {
        generator: engine.into_generator()?,
        vocabulary,
        concurrency: settings.concurrency.max(1),
        running: Vec::new(),
        waiting: VecDeque::new(),
        answers: BTreeMap::new(),
        next: 0,
        output,
        figures: Figures::default(),
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let reading = scope.spawn(move || reader.read(input, &sender));
        let all = run.all(&prompts);
        drop(prompts); // the reader may wait for room among them
        let read = reading.join().unwrap_or(Err(WorkerError::StageEnded("read")));
        all.and(read)
    })?;
    run.output.flush().map_err(writing)?;
    Ok(run.figures.summary(&info, load, started.elapsed()))
}

/// A run on its way.
struct Run<W> {
    generator: Box<dyn Generator>,
    vocabulary: Arc<Vocabulary>,
    concurrency: usize,
    running: Vec<Running>,
    /// The next prompt, if it has no room yet.
    waiting: VecDeque<(u64, Prompt)>,
    /// Answers that wait for earlier ones, by the number of their line.
    answers: BTreeMap<u64, Answer>,
    /// The number of the answer that is written next.
    next: u64,
    output: W,
    figures: Figures,
}

/// A sequence that is being generated.
struct Running {
    number: u64,
    prompt: Prompt,
    sequence: SequenceId,
    /// The prompt's tokens, then those of the answer.
    tokens: Vec<u32>,
    /// How many of them are computed.
    done: usize,
    detokenizer: Detokenizer,
    stops: StopStrings,
    text: String,
    finish_reason: Option<&'static str>,
}

impl<W: Write> Run<W> {
    fn all(&mut self, prompts: &mpsc::Receiver<Read>) -> Result<(), WorkerError> {
        let mut is_open = true;
        loop {
            while is_open && self.waiting.is_empty() && self.running.len() < self.concurrency {
                let idle = self.running.is_empty();
                let next = if idle { prompts.recv().ok() } else { prompts.try_recv().ok() };
                match next {
                    Some((number, Ok(prompt))) => {
                        self.waiting.push_back((number, prompt));
                        self.admit()?;
                    }
                    Some((number, Err((id, error)))) => {
                        self.answer(number, Answer { id, result: AnswerResult::Failed { error } })?;
                    }
                    None => {
                        is_open = !idle;
                        break;
                    }
                }
            }
            self.admit()?;
            if self.running.is_empty() && self.waiting.is_empty() && !is_open {
                return Ok(());
            }
            self.step()?;
        }
    }

    /// Opens the sequence of the waiting prompt, if pages are left for all that may come of it and of the others.
    fn admit(&mut self) -> Result<(), WorkerError> {
        let room = self.generator.room();
        let pages = |prompt: &Prompt| room.pages_of(prompt.ids.len() + prompt.tokens_max);
        let reserved: usize = self.running.iter().map(|running| pages(&running.prompt)).sum();
        let Some((_, prompt)) = self.waiting.front() else { return Ok(()) };
        let is_full =
            self.running.len() >= self.concurrency || reserved + pages(prompt) > room.pages();
        if is_full && !self.running.is_empty() {
            return Ok(());
        }
        let Some((number, prompt)) = self.waiting.pop_front() else { return Ok(()) };
        let opened = self.generator.open(&prompt.ids, 0)?;
        self.figures.sequences += 1;
        self.figures.prompt_tokens += prompt.ids.len() as u64;
        self.running.push(Running {
            number,
            sequence: opened.id,
            tokens: prompt.ids.clone(),
            done: opened.cached,
            detokenizer: prompt.detokenizer(self.vocabulary.clone()),
            stops: StopStrings::new(prompt.stops.iter().cloned()),
            text: String::new(),
            finish_reason: None,
            prompt,
        });
        Ok(())
    }

    /// Computes prompts, or if all are computed a token of every answer.
    fn step(&mut self) -> Result<(), WorkerError> {
        let is_prefill = self.running.iter().any(Running::is_prompt);
        let mut left = STEP_TOKENS.max(self.concurrency);
        let mut rows = Vec::new();
        let mut computed = Vec::new();
        for (index, running) in self.running.iter().enumerate() {
            if running.is_prompt() == is_prefill && left > 0 {
                let chunk = running.chunk(left);
                left -= chunk.tokens.len();
                computed.push((index, chunk.tokens.len()));
                rows.push(chunk);
            }
        }
        let began = Instant::now();
        let picks = self.generator.begin(&Step { rows })?.wait()?;
        self.figures.count(
            is_prefill,
            began.elapsed(),
            computed.iter().map(|(_, tokens)| *tokens).sum(),
        );
        for (index, tokens) in computed {
            self.running[index].done += tokens;
        }
        for (sequence, picked) in picks.picked {
            if let Some(running) = self.running.iter_mut().find(|it| it.sequence == sequence) {
                self.figures.output_tokens += 1;
                running.take(&picked);
            }
        }
        for (sequence, error) in picks.failed {
            if let Some(at) = self.running.iter().position(|it| it.sequence == sequence) {
                let failed = self.running.remove(at);
                self.generator.close(sequence, Keep::Nothing);
                let result = AnswerResult::Failed { error: error.to_string() };
                self.answer(failed.number, Answer { id: failed.prompt.id, result })?;
            }
        }
        while let Some(at) = self.running.iter().position(|it| it.finish_reason.is_some()) {
            let ended = self.running.remove(at);
            self.generator.close(ended.sequence, Keep::Prefix);
            self.answer(ended.number, ended.answer())?;
        }
        Ok(())
    }

    /// Writes an answer, and those that waited for it.
    fn answer(&mut self, number: u64, answer: Answer) -> Result<(), WorkerError> {
        self.answers.insert(number, answer);
        while let Some(answer) = self.answers.remove(&self.next) {
            serde_json::to_writer(&mut self.output, &answer)
                .map_err(|error| writing(error.into()))?;
            self.output.write_all(b"\n").map_err(writing)?;
            self.next += 1;
        }
        Ok(())
    }
}

impl Running {
    /// Whether more than the last token is still to be computed, or nothing of the answer is there.
    fn is_prompt(&self) -> bool {
        self.tokens.len() == self.prompt.ids.len()
    }

    /// The next tokens, at most so many.
    fn chunk(&self, most: usize) -> Chunk<'_> {
        let end = self.tokens.len().min(self.done + most);
        let pick = Pick {
            sampling: &self.prompt.sampling,
            prompt_tokens: self.prompt.ids.len(),
            mask: None,
        };
        Chunk {
            id: self.sequence,
            tokens: &self.tokens[self.done..end],
            pick: (end == self.tokens.len()).then_some(pick),
        }
    }

    /// Appends a picked token, which may be the last one.
    fn take(&mut self, picked: &Picked) {
        self.tokens.push(picked.token);
        let output = self.tokens.len() - self.prompt.ids.len();
        if self.prompt.sampling.ends(picked.token) {
            return self.finish("stop");
        }
        let mut more = String::new();
        self.detokenizer.push(picked.token, &mut more);
        if output < self.prompt.sampling.min_tokens {
            self.stops.pass(&more, &mut self.text);
        } else if self.stops.push(&more, &mut self.text).is_some() {
            self.finish_reason = Some("stop");
            return;
        }
        if output >= self.prompt.tokens_max {
            self.finish("length");
        }
    }

    fn finish(&mut self, reason: &'static str) {
        let mut more = String::new();
        self.detokenizer.finish(&mut more);
        // What was held back, or the last character, may still be a stop string.
        let reason = if self.stops.push(&more, &mut self.text).is_some() {
            "stop"
        } else {
            self.stops.finish(&mut self.text);
            reason
        };
        self.finish_reason = Some(reason);
    }

    fn answer(self) -> Answer {
        let result = AnswerResult::Generated {
            text: self.text,
            token_ids: self.tokens[self.prompt.ids.len()..].to_vec(),
            finish_reason: self.finish_reason.unwrap_or("length"),
        };
        Answer { id: self.prompt.id, result }
    }
}

/// Sums over all prompts.
#[derive(Default)]
struct Figures {
    sequences: u64,
    prompt_tokens: u64,
    output_tokens: u64,
    prefill: Measured,
    decode: Measured,
}

/// Tokens, and how long they took.
#[derive(Default)]
struct Measured {
    tokens: usize,
    time: Duration,
}

impl Measured {
    fn per_s(&self) -> f64 {
        self.tokens as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

impl Figures {
    fn count(&mut self, is_prefill: bool, time: Duration, tokens: usize) {
        let these = if is_prefill { &mut self.prefill } else { &mut self.decode };
        these.tokens += tokens;
        these.time += time;
    }

    fn summary(&self, info: &ModelInfo, load: Duration, all: Duration) -> Summary {
        Summary {
            sequences: self.sequences,
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.output_tokens,
            seconds: all.as_secs_f64(),
            prefill_tokens_per_s: self.prefill.per_s(),
            decode_tokens_per_s: self.decode.per_s(),
            load_seconds: load.as_secs_f64(),
            device: info.device.to_string(),
            dtype: info.dtype.to_string(),
            threads: info.threads,
            memory_bytes_max: memory::peak_bytes(),
        }
    }
}

fn writing(source: std::io::Error) -> WorkerError {
    WorkerError::Io { action: "writing the answers", source }
}

#[cfg(test)]
mod tests;
