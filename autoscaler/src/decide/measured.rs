//! The quantities from which a size is worked out.

use super::seen::WorkerSeen;

/// The quantities of one pool at one look.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub now_ms: u64,
    /// Jobs in queues or with workers that stay.
    pub backlog_jobs: u64,
    /// Jobs in queues.
    pub queued_jobs: u64,
    pub arrivals_per_s: f64,
    /// Jobs that one busy worker does in a second; where its work is known in tokens, one that runs all it can.
    pub jobs_per_s: f64,
    /// The backlog in tokens, where the model generates text and enough was measured.
    pub tokens: Option<TokensMeasured>,
    pub cold_start_s: f64,
    pub target_wait_s: f64,
    /// How long idle workers are kept.
    pub idle_s: f64,
    /// Whether the idle time is configured, not worked out.
    pub idle_is_given: bool,
    /// Time since there was anything to do.
    pub quiet_s: f64,
    /// Workers that are busy at this very moment.
    pub workers_busy: f64,
    /// Workers that are of use now.
    pub workers_needed: f64,
    /// Scale actions that may still be taken.
    pub actions_in_hand: f64,
}

/// The work of a pool in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TokensMeasured {
    /// Of jobs that are queued or wait in workers.
    pub waiting: f64,
    /// Of sequences that run.
    pub running: f64,
    /// Of a job, prompt and output together.
    pub per_job: f64,
    /// Tokens that a worker computes in a second while it runs all it can.
    pub per_s: f64,
}

impl Measured {
    /// The work that no worker has begun, in seconds of one worker. All of the backlog where jobs are counted.
    pub(super) fn work_s(&self) -> f64 {
        match &self.tokens {
            Some(tokens) => tokens.waiting / tokens.per_s,
            None => self.backlog_jobs as f64 / self.jobs_per_s,
        }
    }

    /// The seconds for which a worker is taken by what it runs; 0 where jobs are counted, which are all in the backlog.
    pub(super) fn taken_s(&self, worker: &WorkerSeen) -> f64 {
        let running = self.tokens.zip(worker.generates);
        running.map_or(0.0, |(tokens, worker)| worker.running_tokens as f64 / tokens.per_s)
    }
}
