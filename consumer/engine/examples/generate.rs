//! The bare generator as a program that stays loaded, for benchmarks that put it beside others.
//!
//! `generate MODEL DTYPE THREADS` prints what was loaded, of a folder or a GGUF, then answers each line of standard
//! input with a line of JSON:
//!
//! - `prefill TOKENS` computes a prompt of so many tokens, drawn each time: `{"seconds"}`
//! - `decode SEQUENCES CONTEXT STEPS` lets so many sequences of so many tokens go on side by side: `{"seconds"}`, of
//!   all the steps
//! - `pages` says what the pages that were in use at once took at most: `{"bytes"}`
//! - `greedy TOKENS [IDS]` continues the prompt of these ids by the likeliest tokens: `{"ids"}`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::BufRead;
use std::time::Instant;

use forebay_engine::{
    Chunk, DType, Engine, Generator, Keep, LoadOptions, Model, Pick, Sampling, SequenceId, Step,
    load,
};
use serde_json::{Value, json};

/// Room for 32 sequences of a thousand tokens in f32; only what is written to is memory.
const CACHE_BYTES: u64 = 3 << 30;
/// Tokens of a prompt that one step computes.
const CHUNK: usize = 512;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("generate MODEL DTYPE THREADS")?;
    let dtype: DType = arguments.next().ok_or("a dtype")?.parse()?;
    let threads: usize = arguments.next().ok_or("how many threads")?.parse()?;
    let options = LoadOptions {
        dtype: Some(dtype),
        threads: Some(threads),
        cache_bytes: Some(CACHE_BYTES),
        ..LoadOptions::default()
    };
    let Model { engine, info, .. } = load(folder.as_ref(), &options)?;
    let Engine::Generator(generator) = engine else {
        return Err("the model doesn't generate".into());
    };
    println!("{}", json!({"dtype": dtype.to_string(), "threads": threads}));
    let mut bench =
        Bench { generator, vocabulary: info.vocabulary, drawn: 1, pages: 0, sampling: greedy() };
    for line in std::io::stdin().lock().lines() {
        println!("{}", bench.answer(&line?)?);
    }
    Ok(())
}

/// The likeliest token, whatever it is: a sequence ends where the bench ends it.
fn greedy() -> Sampling {
    Sampling { temperature: 0.0, ..Sampling::default() }
}

struct Bench {
    generator: Box<dyn Generator>,
    vocabulary: usize,
    drawn: u64,
    /// Held at once, at most.
    pages: usize,
    sampling: Sampling,
}

impl Bench {
    fn answer(&mut self, line: &str) -> Result<Value, Box<dyn Error>> {
        let mut words = line.splitn(2, ' ');
        let command = words.next().unwrap_or_default();
        let rest = words.next().unwrap_or_default();
        let numbers = || rest.split(' ').map(str::parse).collect::<Result<Vec<usize>, _>>();
        match command {
            "prefill" => {
                let [tokens] = numbers()?[..] else { return Err("prefill TOKENS".into()) };
                let prompt = self.prompt(tokens);
                let started = Instant::now();
                let (id, _) = self.open(&prompt)?;
                let seconds = started.elapsed().as_secs_f64();
                self.generator.close(id, Keep::Nothing);
                Ok(json!({ "seconds": seconds }))
            }
            "decode" => {
                let [sequences, context, steps] = numbers()?[..] else {
                    return Err("decode SEQUENCES CONTEXT STEPS".into());
                };
                let seconds = self.decode(sequences, context, steps)?;
                Ok(json!({ "seconds": seconds }))
            }
            "pages" => {
                let room = self.generator.room();
                Ok(json!({ "bytes": self.pages * room.page_tokens * room.bytes_per_token }))
            }
            "greedy" => {
                let (tokens, ids) = rest.split_once(' ').ok_or("greedy TOKENS [IDS]")?;
                let prompt: Vec<u32> = serde_json::from_str(ids)?;
                Ok(json!({ "ids": self.continued(&prompt, tokens.parse()?)? }))
            }
            other => Err(format!("unknown command {other:?}").into()),
        }
    }

    /// Token ids that no prompt before had in this order.
    fn prompt(&mut self, tokens: usize) -> Vec<u32> {
        let mut draw = || {
            // Steele and Vigna's splitmix64.
            self.drawn = self.drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.drawn;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % self.vocabulary as u64
        };
        (0..tokens).map(|_| draw() as u32).collect()
    }

    /// Opens a sequence and computes its prompt. The token that follows it.
    fn open(&mut self, prompt: &[u32]) -> Result<(SequenceId, u32), Box<dyn Error>> {
        let opened = self.generator.open(prompt, 0)?;
        let mut rest = &prompt[opened.cached..];
        loop {
            let (tokens, more) = rest.split_at(rest.len().min(CHUNK));
            let picked = self.step(&[(opened.id, tokens)], prompt.len(), more.is_empty())?;
            if let [token] = picked[..] {
                return Ok((opened.id, token));
            }
            rest = more;
        }
    }

    /// One step of all sequences, with a token for each if `picks`.
    fn step(
        &mut self,
        sequences: &[(SequenceId, &[u32])],
        prompt_tokens: usize,
        picks: bool,
    ) -> Result<Vec<u32>, Box<dyn Error>> {
        let pick = picks.then_some(Pick { sampling: &self.sampling, prompt_tokens, mask: None });
        let rows = sequences.iter().map(|&(id, tokens)| Chunk { id, tokens, pick }).collect();
        let picks = self.generator.begin(&Step { rows })?.wait()?;
        self.pages = self.pages.max(self.generator.room().pages_held);
        Ok(picks.picked.into_iter().map(|(_, picked)| picked.token).collect())
    }

    fn decode(
        &mut self,
        count: usize,
        context: usize,
        steps: usize,
    ) -> Result<f64, Box<dyn Error>> {
        let mut sequences = Vec::new();
        let mut next = Vec::new();
        for _ in 0..count {
            let prompt = self.prompt(context);
            let (id, token) = self.open(&prompt)?;
            sequences.push(id);
            next.push(token);
        }
        let started = Instant::now();
        for _ in 0..steps {
            let chunks: Vec<(SequenceId, &[u32])> =
                sequences.iter().copied().zip(next.chunks(1)).collect();
            next = self.step(&chunks, context, true)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        for id in sequences {
            self.generator.close(id, Keep::Nothing);
        }
        Ok(seconds)
    }

    fn continued(&mut self, prompt: &[u32], tokens: usize) -> Result<Vec<u32>, Box<dyn Error>> {
        let (id, mut token) = self.open(prompt)?;
        let mut output = vec![token];
        while output.len() < tokens {
            token = self.step(&[(id, &[token])], prompt.len(), true)?[0];
            output.push(token);
        }
        self.generator.close(id, Keep::Nothing);
        Ok(output)
    }
}
