//! A simulated worker: an encoder that does one job at a time, or a generator that runs many sequences side by side.

use forebay_fabric::lengths::{Lengths, REMEMBERED};

use super::trace::JobTokens;
use crate::decide::{Generating, Phase};

/// How much faster a generator is with many sequences than with one: `n` of them together go `n·(1 + h)/(n + h)` times
/// as fast as one. With `h = 4` that is 3.3, 4.4 and 4.7 times with 8, 32 and 64 sequences; a small model in 4 bits was
/// measured at 3.2, 4.6 and 4.6 times (docs/performance.md, "Generation").
const GAIN: f64 = 4.0;
/// Tokens of a page of keys and values.
const PAGE_TOKENS: u64 = 32;
/// The most tokens of an output, where a job does not say.
const OUTPUT_MAX: u64 = 4_096;
/// Service that is left out of rounding, in microseconds.
const SLACK_US: f64 = 1e-3;

/// How many times as fast a worker is with so many sequences as with one.
pub fn speed_up(sequences: u32) -> f64 {
    let n = f64::from(sequences);
    n * (1.0 + GAIN) / (n + GAIN)
}

/// A job: when it arrives, and how long a worker needs for it.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Since the beginning of the trace.
    pub at_us: u64,
    /// Of one worker that does nothing else.
    pub service_us: u64,
    /// Of a job that generates text.
    pub tokens: Option<JobTokens>,
}

/// A job of which a worker does a part.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The job's number in the trace.
    pub job: usize,
    /// The rest of it, in microseconds of a worker that does nothing else.
    pub left_us: f64,
    /// Tokens of output that are there already.
    pub output: u64,
}

/// A part that runs.
#[derive(Clone, Copy, Debug)]
struct Running {
    job: Job,
    number: usize,
    /// The worker's service to each of its sequences, when this one began and when it will end.
    begun_us: f64,
    ends_us: f64,
    /// Tokens of output at its beginning.
    output: u64,
}

impl Running {
    /// Tokens that it has computed and those of its output, where the worker has given each so much service.
    fn done(&self, served_us: f64) -> (u64, u64) {
        let Some(tokens) = self.job.tokens else { return (0, 0) };
        let share = (served_us - self.begun_us) / (self.ends_us - self.begun_us).max(SLACK_US);
        let prompt = u64::from(tokens.prompt) + self.output;
        let output = u64::from(tokens.output) - self.output;
        let passed = share.clamp(0.0, 1.0) * JobTokens::work(prompt, output);
        let of_prompt = passed.min(JobTokens::work(prompt, 0));
        let of_output = (passed - of_prompt) / JobTokens::work(0, 1);
        ((of_prompt + of_output).round() as u64, self.output + of_output as u64)
    }
}

/// A worker of the simulated fleet.
#[derive(Clone, Debug)]
pub struct SimulatedWorker {
    /// Unique in the run.
    pub id: String,
    /// Starting, ready or draining.
    pub phase: Phase,
    /// When it was launched; from then on it costs.
    pub launched_us: u64,
    /// When it can take jobs.
    pub ready_us: u64,
    /// Jobs done since its launch.
    pub jobs_done: u64,
    /// The time for which it had a job.
    pub busy_us: u64,
    /// The sequences that it can run at once.
    slots: u32,
    running: Vec<Running>,
    /// The service that each of its sequences has had, up to a moment.
    served_us: f64,
    at_us: u64,
    /// Of jobs that are done or were given back.
    tokens_done: u64,
    lengths: Lengths,
    /// Tokens of the last jobs.
    needed: Vec<u64>,
}

impl SimulatedWorker {
    /// One that starts.
    pub fn new(id: String, now_us: u64, cold_start_us: u64, slots: u32) -> Self {
        Self {
            id,
            phase: Phase::Starting,
            launched_us: now_us,
            ready_us: now_us + cold_start_us,
            jobs_done: 0,
            busy_us: 0,
            slots,
            running: Vec::new(),
            served_us: 0.0,
            at_us: now_us,
            tokens_done: 0,
            lengths: Lengths::default(),
            needed: Vec::new(),
        }
    }

    /// The jobs that it runs.
    pub fn jobs(&self) -> usize {
        self.running.len()
    }

    /// Whether it can take one more.
    pub fn takes(&self) -> bool {
        self.phase == Phase::Ready && self.running.len() < self.slots as usize
    }

    /// The speed of each sequence, by that of one alone.
    fn speed(&self) -> f64 {
        let running = self.running.len() as u32;
        if running == 0 { 0.0 } else { speed_up(running) / f64::from(running) }
    }

    /// When it becomes ready, or its next job ends.
    pub fn next_event_us(&self) -> u64 {
        if self.phase == Phase::Starting {
            return self.ready_us;
        }
        let first_us = self.running.iter().map(|it| it.ends_us).min_by(f64::total_cmp);
        first_us.map_or(u64::MAX, |ends_us| {
            let left_us = (ends_us - self.served_us).max(0.0) / self.speed();
            self.at_us + left_us.ceil() as u64
        })
    }

    /// Works up to this moment.
    pub fn advance(&mut self, now_us: u64) {
        let passed_us = now_us.saturating_sub(self.at_us);
        if !self.running.is_empty() {
            self.served_us += passed_us as f64 * self.speed();
            self.busy_us += passed_us;
        }
        self.at_us = now_us;
    }

    /// Takes a job, or goes on with one.
    pub fn take(&mut self, part: Part, job: Job) {
        let begun_us = self.served_us;
        let ends_us = begun_us + part.left_us;
        let Part { job: number, output, .. } = part;
        self.running.push(Running { job, number, begun_us, ends_us, output });
    }

    /// Ends what is done by now. Returns how many jobs that were.
    pub fn end_jobs(&mut self) -> u64 {
        let served_us = self.served_us;
        let before = self.running.len();
        let mut ended = Vec::new();
        self.running.retain(|it| {
            let is_done = it.ends_us <= served_us + SLACK_US;
            if is_done {
                ended.push(*it);
            }
            !is_done
        });
        for it in ended {
            if let Some(tokens) = it.job.tokens {
                self.tokens_done += it.done(served_us + SLACK_US).0;
                self.lengths.ended(tokens.output.into());
                if self.needed.len() == REMEMBERED {
                    self.needed.remove(0);
                }
                self.needed.push(u64::from(tokens.prompt) + u64::from(tokens.output));
            }
        }
        let done = (before - self.running.len()) as u64;
        self.jobs_done += done;
        done
    }

    /// A generator that drains gives its jobs back, with what there is of their outputs: another goes on with them
    /// after it has computed their tokens once more. An encoder finishes its job.
    pub fn drain(&mut self) -> Vec<Part> {
        self.phase = Phase::Draining;
        if self.slots == 1 {
            return Vec::new();
        }
        let served_us = self.served_us;
        let give_back = |it: Running| {
            let (computed, output) = it.done(served_us);
            let left_us = it.job.tokens.map_or(it.ends_us - served_us, |tokens| {
                let prompt = u64::from(tokens.prompt);
                let all = u64::from(tokens.output);
                let left = JobTokens::work(prompt + output, all - output);
                it.job.service_us as f64 * left / JobTokens::work(prompt, all)
            });
            (computed, Part { job: it.number, left_us, output })
        };
        let (computed, parts): (Vec<u64>, Vec<Part>) =
            self.running.drain(..).map(give_back).unzip();
        self.tokens_done += computed.iter().sum::<u64>();
        parts
    }

    /// The work in tokens that a generator reports.
    pub fn generating(&self) -> Option<Generating> {
        if self.slots == 1 {
            return None;
        }
        let mut needed: u64 = self.needed.iter().sum();
        let mut known = self.needed.len() as u64;
        let mut left = 0;
        let mut computed = 0;
        let mut pages_held = 0;
        let mut is_known = true;
        for it in &self.running {
            let tokens = it.job.tokens?;
            let (done, output) = it.done(self.served_us);
            computed += done;
            let most = tokens.output_max.map_or(OUTPUT_MAX, u64::from);
            let stated = tokens.output_max.map(u64::from);
            let expected = self.lengths.expected(output, most).or(stated);
            is_known &= expected.is_some();
            let prompt = u64::from(tokens.prompt);
            pages_held += (prompt + output).div_ceil(PAGE_TOKENS);
            if let Some(expected) = expected {
                needed += prompt + expected;
                known += 1;
                left += (prompt + expected).saturating_sub(done);
            }
        }
        is_known.then_some(Generating {
            jobs: self.running.len() as u64,
            running_tokens: left,
            waiting_tokens: 0,
            tokens_per_job: needed.checked_div(known),
            tokens_done: self.tokens_done + computed,
            is_full: self.running.len() >= self.slots as usize,
            pages_held,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A job of a thousand microseconds, a unit of work each.
    fn job() -> Job {
        let tokens = JobTokens { prompt: 100, output: 90, output_max: None };
        Job { at_us: 0, service_us: 1_000, tokens: Some(tokens) }
    }

    fn with_jobs(slots: u32, jobs: usize) -> SimulatedWorker {
        let mut worker = SimulatedWorker::new("w1".into(), 0, 0, slots);
        worker.phase = Phase::Ready;
        for number in 0..jobs {
            worker.take(Part { job: number, left_us: 1_000.0, output: 0 }, job());
        }
        worker
    }

    #[test]
    fn sequences_slow_each_other_down_and_are_faster_together() {
        assert_eq!(with_jobs(1, 1).next_event_us(), 1_000);
        assert_eq!(with_jobs(4, 1).next_event_us(), 1_000);
        let mut two = with_jobs(4, 2);
        assert_eq!(two.next_event_us(), 1_200);
        two.advance(1_200);
        assert_eq!((two.end_jobs(), two.jobs_done, two.busy_us), (2, 2, 1_200));
        let all = two.generating().unwrap();
        assert_eq!((all.tokens_done, all.tokens_per_job, all.jobs), (2 * 190, Some(190), 0));
    }

    #[test]
    fn what_is_not_known_of_outputs_is_not_reported() {
        let mut worker = with_jobs(2, 2);
        assert_eq!(worker.generating(), None, "no output has ended yet");
        worker.lengths.ended(90);
        let all = worker.generating().unwrap();
        assert_eq!((all.running_tokens, all.is_full), (2 * 190, true));
    }

    #[test]
    fn a_generator_that_drains_gives_its_jobs_back_for_one_prefill() {
        let mut worker = with_jobs(4, 1);
        worker.lengths.ended(90);
        worker.advance(550);
        let held = worker.generating().unwrap();
        assert_eq!((held.tokens_done, held.running_tokens, held.pages_held), (145, 45, 5));
        let parts = worker.drain();
        assert_eq!((parts[0].output, worker.jobs(), worker.tokens_done), (45, 0, 145));
        assert!((parts[0].left_us - (145.0 + 450.0)).abs() < 1e-6, "{parts:?}");
        let mut next = with_jobs(4, 0);
        next.take(parts[0], job());
        next.advance(145);
        next.lengths.ended(90);
        assert_eq!(next.generating().unwrap().running_tokens, 45, "as many are left as before");
    }

    #[test]
    fn an_encoder_that_drains_ends_its_job() {
        let mut worker = with_jobs(1, 1);
        assert!(worker.drain().is_empty());
        assert_eq!((worker.jobs(), worker.next_event_us()), (1, 1_000));
    }
}
