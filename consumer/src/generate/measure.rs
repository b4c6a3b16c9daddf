//! Figures of a generating worker that people and the autoscaler go by: how many tokens it still expects to compute,
//! how many a job needs, and how fast it is. Nothing in this worker is decided by them.

use std::collections::VecDeque;

use forebay_fabric::lengths::{Lengths, REMEMBERED};
use forebay_schemas::{GenerateRecord, Work};
use metrics::gauge;
use tokio::time::Instant;

use crate::generate::sequence::Sequence;

/// Rates are averaged over about this time.
const AVERAGED_S: f64 = 10.0;
/// Shorter times say little of a rate: a step takes some tens of milliseconds.
const LOOK_S: f64 = 0.5;
/// A rate below this counts as zero; above it, it is shown as one at least.
const PER_S_MIN: f64 = 0.05;

/// The measures of the last jobs and seconds. Bounded.
#[derive(Debug, Default)]
pub struct Measure {
    lengths: Lengths,
    /// Tokens that the last jobs needed.
    needed: VecDeque<u64>,
    /// The last prompts: tokens that were remembered, and all.
    prompts: VecDeque<(u64, u64)>,
    rates: Option<Rates>,
}

impl Measure {
    /// A step computed so many tokens, and so many were picked after them.
    pub fn computed(&mut self, tokens: usize, picked: usize, now: Instant) {
        let rates = self.rates.get_or_insert_with(|| Rates::begin(now));
        rates.prompt += tokens.saturating_sub(picked) as u64;
        rates.output += picked as u64;
    }

    /// A prompt of so many tokens came to the device, and so many of them were remembered.
    pub fn opened(&mut self, cached: usize, prompt: usize) {
        remember(&mut self.prompts, (cached as u64, prompt as u64));
    }

    /// A job ended with its whole output.
    pub fn ended(&mut self, sequence: &Sequence) {
        self.lengths.ended(sequence.output() as u64);
        let cached = sequence.figures.cached.unwrap_or_default();
        remember(&mut self.needed, sequence.tokens.len().saturating_sub(cached) as u64);
    }

    /// Tokens that an output will have in all; `None` while nothing says so.
    fn output(&self, sequence: &Sequence) -> Option<u64> {
        let most = sequence.output_max as u64;
        if sequence.sampling.ignore_eos {
            return Some(most);
        }
        let least = (sequence.sampling.min_tokens as u64).min(most);
        let so_far = (sequence.output() as u64).min(most);
        let states_most = matches!(
            &sequence.job.work,
            Work::Generate { params, .. } if params.max_tokens.is_some()
        );
        // Where nothing is known of any output, a limit that the job itself names is the best guess.
        let expected = self.lengths.expected(so_far, most).or(states_most.then_some(most));
        expected.map(|tokens| tokens.max(least))
    }

    /// Adds what was measured to what was counted, for these jobs that are here.
    pub fn complete<'a>(
        &mut self,
        counted: GenerateRecord,
        jobs: impl Iterator<Item = &'a Sequence>,
        now: Instant,
    ) -> GenerateRecord {
        let mut running = Some(0);
        let mut waiting = Some(0);
        let mut needed: u64 = self.needed.iter().sum();
        let mut known = self.needed.len() as u64;
        for sequence in jobs {
            let output = self.output(sequence);
            let all = output.map(|output| sequence.prompt_tokens as u64 + output);
            let cached = sequence.figures.cached.unwrap_or_default() as u64;
            needed += all.map_or(0, |all| all.saturating_sub(cached));
            known += u64::from(all.is_some());
            // One that gave way is computed once more.
            let done = sequence.open.map_or(0, |open| open.done) as u64;
            let left = all.map(|all| all.saturating_sub(done));
            let sum = if sequence.open.is_some() { &mut running } else { &mut waiting };
            *sum = sum.zip(left).map(|(sum, left)| sum + left);
        }
        if let Some(rates) = &mut self.rates {
            rates.look(now);
        }
        let rates = self.rates.as_ref().and_then(|rates| rates.per_s);
        let prompts: u64 = self.prompts.iter().map(|(_, prompt)| prompt).sum();
        let cached: u64 = self.prompts.iter().map(|(cached, _)| cached).sum();
        GenerateRecord {
            running_tokens: running,
            waiting_tokens: waiting,
            tokens_per_job: needed.checked_div(known).map(|tokens| tokens.max(1)),
            prompt_tokens_per_s: rates.map(|(prompt, _)| whole(prompt)),
            output_tokens_per_s: rates.map(|(_, output)| whole(output)),
            prefix_hit_percent: (100 * cached).checked_div(prompts),
            ..counted
        }
    }
}

/// Sets the metrics of a record.
pub fn publish(record: &GenerateRecord, pages_cached: usize) {
    gauge!("forebay_generate_pages").set(record.pages as f64);
    gauge!("forebay_generate_pages_free").set(record.pages_free as f64);
    gauge!("forebay_generate_pages_cached").set(pages_cached as f64);
    gauge!("forebay_generate_running").set(record.running as f64);
    gauge!("forebay_generate_waiting").set(record.waiting as f64);
    let expected = [("running", record.running_tokens), ("waiting", record.waiting_tokens)];
    for (state, tokens) in expected {
        // Unknown keeps the last value.
        if let Some(tokens) = tokens {
            gauge!("forebay_generate_expected_tokens", "state" => state).set(tokens as f64);
        }
    }
    if let Some(tokens) = record.tokens_per_job {
        gauge!("forebay_generate_job_tokens").set(tokens as f64);
    }
}

fn remember<T>(values: &mut VecDeque<T>, value: T) {
    if values.len() == REMEMBERED {
        values.pop_front();
    }
    values.push_back(value);
}

/// A rate as a whole number: what is not nothing is one at least.
fn whole(per_s: f64) -> u64 {
    if per_s < PER_S_MIN { 0 } else { per_s.round().max(1.0) as u64 }
}

/// Tokens of prompts and of outputs a second.
#[derive(Debug)]
struct Rates {
    looked_at: Instant,
    /// Since then.
    prompt: u64,
    output: u64,
    per_s: Option<(f64, f64)>,
}

impl Rates {
    fn begin(now: Instant) -> Self {
        Self { looked_at: now, prompt: 0, output: 0, per_s: None }
    }

    fn look(&mut self, now: Instant) {
        let passed_s = now.saturating_duration_since(self.looked_at).as_secs_f64();
        if passed_s < LOOK_S {
            return;
        }
        let kept = (-passed_s / AVERAGED_S).exp();
        let [prompt, output] = [self.prompt, self.output].map(|tokens| tokens as f64 / passed_s);
        self.per_s = Some(self.per_s.map_or((prompt, output), |(prompts, outputs)| {
            (prompts * kept + prompt * (1.0 - kept), outputs * kept + output * (1.0 - kept))
        }));
        *self = Self { looked_at: now, prompt: 0, output: 0, per_s: self.per_s };
    }
}

#[cfg(test)]
mod tests;
