//! The order of a worker's backlog, measured: jobs over a few templates that come in random order, run by the worker's
//! schedule on the engine in the order of their prefixes and in the order of arrival, in turns.
//!
//! `prefix MODEL [JOBS] [ROUNDS] [DTYPE] [THREADS]` prints a table, then a line of JSON. Pages hold six of the eight
//! templates and nothing else. Both orders have to give the same tokens.
#![allow(clippy::print_stdout)]

use std::{
    collections::{HashMap, VecDeque},
    error::Error,
    time::Instant,
};

use forebay_consumer::{
    fair::Weights,
    generate::{
        backlog::{Backlog, PASSED_MAX},
        prefix::Prefix,
        schedule::{Bounds, Next, Schedule, Waiting},
    },
};
use forebay_engine::{
    Chunk, DType, Generator, Keep, LoadOptions, Model, Pick, Sampling, SequenceId, Step, load,
};
use forebay_schemas::Lane;
use serde_json::json;

const TEMPLATES: u64 = 8;
const TEMPLATE_TOKENS: usize = 1_000;
/// Pages of six templates.
const PAGES: u64 = 6 * TEMPLATE_TOKENS.div_ceil(32) as u64;
/// A worker's own: tokens of a step, sequences at once, jobs in hand.
const STEP_TOKENS: usize = 256;
const SEQUENCES_MAX: usize = 64;
const HELD_MAX: usize = 256;

/// The tokens of jobs.
type Tokens = Vec<Vec<u32>>;

struct Job {
    prompt: Vec<u32>,
    output: usize,
}

/// A sequence on the device.
struct Open {
    id: SequenceId,
    done: usize,
}

/// Jobs on their way through one run.
struct Run<'a> {
    generator: &'a mut dyn Generator,
    schedule: Schedule,
    salt: u64,
    jobs: &'a [Job],
    /// The tokens of each job so far.
    tokens: Tokens,
    open: HashMap<u64, Open>,
    sampling: Sampling,
    ended: usize,
    figures: Figures,
}

/// The figures of runs in one order.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    seconds: f64,
    output: usize,
    computed: usize,
    cached: usize,
    steps: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("prefix MODEL [JOBS] [ROUNDS] [DTYPE] [THREADS]")?;
    let jobs: u64 = arguments.next().as_deref().unwrap_or("250").parse()?;
    let rounds: u64 = arguments.next().as_deref().unwrap_or("2").parse()?;
    let dtype = arguments.next().map(|dtype| dtype.parse::<DType>()).transpose()?;
    let threads = arguments.next().map(|threads| threads.parse()).transpose()?;
    let options = LoadOptions { dtype, threads, ..LoadOptions::default() };
    let mut model = load(folder.as_ref(), &options)?;
    let room = model.engine.generator()?.room();
    let cache_bytes = PAGES * room.page_tokens as u64 * room.bytes_per_token as u64;
    let Model { engine, info, .. } =
        load(folder.as_ref(), &LoadOptions { cache_bytes: Some(cache_bytes), ..options })?;
    let mut generator = engine.into_generator()?;
    let pages = generator.room().pages();
    let mut sums = [Figures::default(); 2];
    for round in 0..rounds {
        let jobs = jobs_of(round, jobs, info.vocabulary);
        let mut outputs: [Tokens; 2] = Default::default();
        for turn in 0..2 {
            // By prefix first in every other round.
            let order = ((round + turn) % 2) as usize;
            let passed_max = [PASSED_MAX, 0][order];
            // Nothing is remembered of the runs before.
            let salt = 2 * round + turn;
            let (figures, tokens) = Run::new(&mut *generator, &jobs, passed_max, salt).run()?;
            sums[order].add(figures);
            outputs[order] = tokens;
        }
        if outputs[0] != outputs[1] {
            return Err("the order of jobs changed their tokens".into());
        }
    }
    print(&sums, jobs * rounds, pages, &info.dtype.to_string(), info.threads);
    Ok(())
}

fn print(sums: &[Figures; 2], jobs: u64, pages: usize, dtype: &str, threads: usize) {
    println!(
        "{jobs} jobs over {TEMPLATES} templates of {TEMPLATE_TOKENS} tokens in random order, {pages} pages, {dtype}, \
         {threads} threads\n"
    );
    println!(
        "| order | output tokens/s | prompt tokens computed | cached_tokens | steps | seconds |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (name, sum) in ["by prefix", "of arrival"].iter().zip(sums) {
        let Figures { seconds, computed, cached, steps, .. } = sum;
        println!("| {name} | {:.0} | {computed} | {cached} | {steps} | {seconds:.1} |", sum.rate());
    }
    let ratio = sums[0].rate() / sums[1].rate();
    println!("\nby prefix: {ratio:.2} times the tokens/s of the order of arrival\n");
    let figures = sums.map(|sum| {
        json!({
            "tokens_per_s": sum.rate(), "computed": sum.computed, "cached": sum.cached, "steps": sum.steps,
            "seconds": sum.seconds,
        })
    });
    println!(
        "{}",
        json!({"jobs": jobs, "ratio": ratio, "by_prefix": figures[0], "of_arrival": figures[1]})
    );
}

/// Jobs of a template each, which is drawn, with a question of their own.
fn jobs_of(round: u64, count: u64, vocabulary: usize) -> Vec<Job> {
    let mut state = round;
    let mut draw = |below: u64| {
        // Steele and Vigna's splitmix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    };
    let ids = |count: usize, draw: &mut dyn FnMut(u64) -> u64| -> Vec<u32> {
        (0..count).map(|_| draw(vocabulary as u64) as u32).collect()
    };
    let templates: Vec<Vec<u32>> =
        (0..TEMPLATES).map(|_| ids(TEMPLATE_TOKENS, &mut draw)).collect();
    let mut job = || {
        let mut prompt = templates[draw(TEMPLATES) as usize].clone();
        let own = 24 + draw(16) as usize;
        prompt.extend(ids(own, &mut draw));
        Job { prompt, output: 24 + draw(16) as usize }
    };
    (0..count).map(|_| job()).collect()
}

impl Figures {
    fn add(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.output += other.output;
        self.computed += other.computed;
        self.cached += other.cached;
        self.steps += other.steps;
    }

    fn rate(&self) -> f64 {
        self.output as f64 / self.seconds
    }
}

impl<'a> Run<'a> {
    fn new(generator: &'a mut dyn Generator, jobs: &'a [Job], passed_max: u32, salt: u64) -> Self {
        let bounds = Bounds::of(generator.room(), STEP_TOKENS, SEQUENCES_MAX);
        let schedule =
            Schedule::with_backlog(bounds, &Weights::default(), &Backlog::new(passed_max));
        Self {
            generator,
            schedule,
            salt,
            jobs,
            tokens: jobs.iter().map(|job| job.prompt.clone()).collect(),
            open: HashMap::new(),
            sampling: Sampling { temperature: 0.0, ignore_eos: true, ..Sampling::default() },
            ended: 0,
            figures: Figures::default(),
        }
    }

    fn run(mut self) -> Result<(Figures, Tokens), Box<dyn Error>> {
        let started = Instant::now();
        let mut coming: VecDeque<u64> = (0..self.jobs.len() as u64).collect();
        while self.ended < self.jobs.len() {
            while self.jobs.len() - coming.len() - self.ended < HELD_MAX
                && let Some(key) = coming.pop_front()
            {
                self.push(key);
            }
            while let Some(admission) = self.schedule.admit(tokio::time::Instant::now()) {
                self.schedule.entered(admission.key);
            }
            let rows = self.next()?;
            self.step(&rows)?;
        }
        self.figures.seconds = started.elapsed().as_secs_f64();
        Ok((self.figures, self.tokens))
    }

    fn push(&mut self, key: u64) {
        let Job { prompt, output } = &self.jobs[key as usize];
        let page_tokens = self.schedule.bounds().page_tokens;
        let waiting = Waiting {
            key,
            tokens: prompt.len(),
            output_max: *output,
            output_expected: None,
            prefix: Prefix::of(prompt, self.salt, page_tokens),
            expires: None,
        };
        self.schedule.push(Lane::Batch, None, waiting, tokio::time::Instant::now());
    }

    fn next(&mut self) -> Result<Vec<(u64, usize)>, Box<dyn Error>> {
        loop {
            match self.schedule.next(self.generator.room().pages_left()) {
                Next::Step(rows) => return Ok(rows),
                Next::Open(key) => {
                    let opened = self.generator.open(&self.tokens[key as usize], self.salt)?;
                    self.figures.cached += opened.cached;
                    self.open.insert(key, Open { id: opened.id, done: opened.cached });
                    self.schedule.opened(key, opened.cached);
                }
                Next::GiveWay(key) => {
                    self.schedule.give_way(key);
                    self.close(key);
                }
            }
        }
    }

    fn close(&mut self, key: u64) {
        if let Some(open) = self.open.remove(&key) {
            self.generator.close(open.id, Keep::Prefix);
        }
    }

    fn step(&mut self, rows: &[(u64, usize)]) -> Result<(), Box<dyn Error>> {
        let mut step = Step::default();
        let mut keys = HashMap::new();
        for (key, count) in rows {
            let tokens = &self.tokens[*key as usize];
            let open = self.open.get_mut(key).ok_or("a row of a sequence that is not open")?;
            let range = open.done..open.done + count;
            let prompt_tokens = self.jobs[*key as usize].prompt.len();
            self.figures.computed += range.end.min(prompt_tokens).saturating_sub(range.start);
            open.done = range.end;
            keys.insert(open.id, *key);
            let pick = Pick { sampling: &self.sampling, prompt_tokens, mask: None };
            let pick = (range.end == tokens.len()).then_some(pick);
            step.rows.push(Chunk { id: open.id, tokens: &tokens[range], pick });
        }
        let picks = self.generator.begin(&step)?.wait()?;
        self.figures.steps += 1;
        for (key, count) in rows {
            self.schedule.computed(*key, *count);
        }
        for (id, picked) in picks.picked {
            let key = *keys.get(&id).ok_or("a pick of a sequence without a row")?;
            let tokens = &mut self.tokens[key as usize];
            tokens.push(picked.token);
            let Job { prompt, output } = &self.jobs[key as usize];
            if tokens.len() == prompt.len() + output {
                self.schedule.ended(key, *output);
                self.close(key);
                self.figures.output += output;
                self.ended += 1;
            } else {
                self.schedule.picked(key);
            }
        }
        Ok(())
    }
}
