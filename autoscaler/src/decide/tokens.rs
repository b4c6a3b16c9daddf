//! Learns how fast workers of a model that generates text are, and what its jobs need, in tokens.
//!
//! A worker with few sequences computes far fewer tokens a second than one that runs all it can. So its speed counts as
//! what it is capable of only while it is full; until some worker was, the speed of those that are not is the least
//! that one can do. Tokens are known within seconds, while a job of a thousand tokens counts as done once, at its end.

use super::{
    measured::TokensMeasured,
    seen::{Capacity, Generating, WorkerSeen},
};

/// With less busy time than this no speed is known.
const KNOWN_S: f64 = 2.0;
/// A worker that is slower is taken for one of this speed.
const PER_S_MIN: f64 = 1e-3;
/// The most jobs of a worker that its mean rests on.
const JOBS_MAX: u64 = 128;

/// The work of a model in tokens, as far as it is known. Bounded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tokens {
    /// Of full workers.
    full: Speed,
    /// Of all workers.
    any: Speed,
    per_job: Option<f64>,
}

/// Tokens, and the busy seconds that they took; the older, the less they count.
#[derive(Clone, Copy, Debug, Default)]
struct Speed {
    tokens: f64,
    busy_s: f64,
}

impl Speed {
    fn add(&mut self, tokens: f64, busy_s: f64, half_life_s: f64) {
        let kept = (-busy_s / half_life_s).exp2();
        self.tokens = self.tokens * kept + tokens;
        self.busy_s = self.busy_s * kept + busy_s;
    }

    fn per_s(&self) -> Option<f64> {
        let is_known = self.busy_s >= KNOWN_S && self.tokens > 0.0;
        is_known.then(|| self.tokens / self.busy_s)
    }
}

impl Tokens {
    /// A worker computed so many tokens in so many busy seconds.
    pub(super) fn computed(&mut self, tokens: u64, busy_s: f64, was_full: bool, half_life_s: f64) {
        self.any.add(tokens as f64, busy_s, half_life_s);
        if was_full {
            self.full.add(tokens as f64, busy_s, half_life_s);
        }
    }

    /// Takes in what the workers' jobs need. While none reports it, what was known before counts.
    pub(super) fn observe(&mut self, workers: &[WorkerSeen]) {
        let mut tokens = 0.0;
        let mut jobs = 0.0;
        for worker in workers {
            let Some(Generating { tokens_per_job: Some(mean), jobs: held, .. }) = worker.generates
            else {
                continue;
            };
            let weight = worker.jobs_done.min(JOBS_MAX).saturating_add(held).max(1) as f64;
            tokens += mean as f64 * weight;
            jobs += weight;
        }
        if jobs > 0.0 {
            self.per_job = Some((tokens / jobs).max(1.0));
        }
    }

    /// Tokens that a worker computes in a second while it runs all it can; `None` while that is unknown.
    pub(super) fn per_s(&self) -> Option<f64> {
        let speeds = [self.full.per_s(), self.any.per_s()].into_iter().flatten();
        speeds.max_by(f64::total_cmp).map(|per_s| per_s.max(PER_S_MIN))
    }

    /// The work of so many jobs that are queued or with workers that stay; `None` while it is not known in tokens.
    pub(super) fn of(&self, backlog_jobs: u64, capacity: &Capacity<'_>) -> Option<TokensMeasured> {
        let per_job = self.per_job?;
        let per_s = self.per_s()?;
        let staying = capacity.ready.iter().chain(&capacity.starting);
        let known = staying.filter_map(|worker| worker.generates);
        let mut jobs: u64 = 0;
        let mut waiting = 0.0;
        let mut running = 0.0;
        for worker in known {
            jobs = jobs.saturating_add(worker.jobs);
            waiting += worker.waiting_tokens as f64;
            running += worker.running_tokens as f64;
        }
        waiting += backlog_jobs.saturating_sub(jobs) as f64 * per_job;
        Some(TokensMeasured { waiting, running, per_job, per_s })
    }
}
