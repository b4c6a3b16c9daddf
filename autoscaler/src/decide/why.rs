//! Why a decision was taken: a code for machines, the numbers it was taken from, and a sentence.

use std::fmt;

use serde::Serialize;

use super::{measured::Measured, policy::PoolPolicy, seen::Capacity};

/// The rule that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The size fits.
    Steady,
    /// The queues could not be observed, so the size is held.
    NotObserved,
    /// The launcher is still at what was decided before.
    Acting,
    /// Fewer workers than the least.
    BelowMinimum,
    /// More workers than the most.
    AboveMaximum,
    /// Jobs, but no worker.
    FromZero,
    /// The backlog would take longer than the target wait to work off.
    BehindTarget,
    /// A burst is due, by the gaps that were observed.
    BurstDue,
    /// More workers are needed, but the step is too small or too soon after the last one.
    HeldBack,
    /// Workers idle and are drained.
    Idle,
    /// Workers idle, and have not yet cost what a cold start costs.
    KeptWarm,
    /// Workers idle for long enough, but too many scale actions were taken lately.
    TooManyActions,
}

impl Code {
    /// The name in logs and metrics, equal to the serialised one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::NotObserved => "not_observed",
            Self::Acting => "acting",
            Self::BelowMinimum => "below_minimum",
            Self::AboveMaximum => "above_maximum",
            Self::FromZero => "from_zero",
            Self::BehindTarget => "behind_target",
            Self::BurstDue => "burst_due",
            Self::HeldBack => "held_back",
            Self::Idle => "idle",
            Self::KeptWarm => "kept_warm",
            Self::TooManyActions => "too_many_actions",
        }
    }
}

/// Why a decision was taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Why {
    /// The rule that decided.
    pub code: Code,
    /// Workers that are ready.
    pub workers_ready: u32,
    /// Workers that start.
    pub workers_starting: u32,
    /// The least size allowed.
    pub workers_min: u32,
    /// The greatest size allowed.
    pub workers_max: u32,
    /// Jobs queued or in flight; 0 if not observed.
    pub backlog_jobs: u64,
    /// Arrivals, averaged over some ten seconds.
    pub arrivals_per_s: f64,
    /// Jobs that one busy worker does in a second.
    pub jobs_per_s: f64,
    /// The backlog in tokens, where the work is known in tokens: of jobs that wait, and of sequences that run.
    pub backlog_tokens: Option<f64>,
    /// Tokens that a job needs.
    pub tokens_per_job: Option<f64>,
    /// Tokens that one worker computes in a second while it runs all it can.
    pub tokens_per_s: Option<f64>,
    /// Workers that the demand of the last seconds keeps busy.
    pub workers_needed: f64,
    /// The target wait.
    pub target_wait_s: f64,
    /// From launch to first job.
    pub cold_start_s: f64,
    /// For how long idle workers are kept.
    pub idle_s: f64,
    /// For how long there was nothing to do.
    pub quiet_s: f64,
    /// The action budget: scale actions that may be taken now. A scale-in takes 1.
    pub actions_in_hand: f64,
}

impl Why {
    pub(super) fn new(
        code: Code,
        policy: &PoolPolicy,
        capacity: &Capacity<'_>,
        measured: Option<&Measured>,
    ) -> Self {
        let none = Measured::default();
        let measured = measured.unwrap_or(&none);
        let tokens = measured.tokens;
        Self {
            code,
            workers_ready: capacity.ready.len() as u32,
            workers_starting: capacity.starting.len() as u32,
            workers_min: policy.workers_min,
            workers_max: policy.workers_max,
            backlog_jobs: measured.backlog_jobs,
            arrivals_per_s: measured.arrivals_per_s,
            jobs_per_s: measured.jobs_per_s,
            backlog_tokens: tokens.map(|tokens| tokens.waiting + tokens.running),
            tokens_per_job: tokens.map(|tokens| tokens.per_job),
            tokens_per_s: tokens.map(|tokens| tokens.per_s),
            workers_needed: measured.workers_needed,
            target_wait_s: policy.target_wait_s,
            cold_start_s: measured.cold_start_s,
            idle_s: measured.idle_s,
            quiet_s: measured.quiet_s,
            actions_in_hand: measured.actions_in_hand,
        }
    }
}

impl Why {
    /// The backlog, in tokens too where they are known.
    fn backlog(&self) -> String {
        let jobs = self.backlog_jobs;
        match self.backlog_tokens {
            Some(tokens) => format!("{jobs} jobs with {tokens:.0} tokens to come"),
            None => format!("{jobs} jobs"),
        }
    }

    /// How much a worker does in a second.
    fn rate(&self) -> String {
        match self.tokens_per_s {
            Some(tokens) => format!("{tokens:.0} tokens"),
            None => format!("{:.1} jobs", self.jobs_per_s),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = self.workers_ready;
        let starting = self.workers_starting;
        let backlog = self.backlog();
        let rate = self.rate();
        let cold_s = self.cold_start_s;
        let idle_s = self.idle_s;
        let quiet_s = self.quiet_s;
        match self.code {
            Code::Steady => write!(
                to,
                "the size fits: {backlog} in the backlog, {:.1} workers needed, {ready} ready and {starting} \
                 starting",
                self.workers_needed
            ),
            Code::NotObserved => write!(
                to,
                "the queues could not be observed, so the {ready} ready and {starting} starting workers stay"
            ),
            Code::Acting => write!(
                to,
                "the launcher is still at what was decided before, so the {ready} ready and {starting} starting \
                 workers stay"
            ),
            Code::BelowMinimum => write!(
                to,
                "{ready} ready and {starting} starting workers are fewer than the least, {}",
                self.workers_min
            ),
            Code::AboveMaximum => write!(
                to,
                "{ready} ready and {starting} starting workers are more than the most, {}",
                self.workers_max
            ),
            Code::FromZero => write!(to, "{backlog} and no worker"),
            Code::BehindTarget => write!(
                to,
                "{backlog}, and {:.1} jobs more a second, are too many for {ready} ready and {starting} starting \
                 workers at {rate} a second each: a new worker would be ready in {cold_s:.1} s, and the target \
                 wait after that is {:.0} s",
                self.arrivals_per_s, self.target_wait_s
            ),
            Code::BurstDue => write!(
                to,
                "nothing came for {quiet_s:.0} s, and by the gaps observed a burst is due within a cold start of \
                 {cold_s:.0} s"
            ),
            Code::HeldBack => write!(
                to,
                "{backlog} ask for more than {ready} ready and {starting} starting workers, but the step is small \
                 or soon after the last"
            ),
            Code::Idle => write!(
                to,
                "{:.1} of {ready} ready workers were needed in the last {idle_s:.0} s",
                self.workers_needed
            ),
            Code::KeptWarm => write!(
                to,
                "{:.1} of {ready} ready workers are needed; the others stay until they have idled for {idle_s:.0} s",
                self.workers_needed
            ),
            Code::TooManyActions => write!(
                to,
                "{:.1} of {ready} ready workers are needed, but the action budget is {:.1} and one action needs 1",
                self.workers_needed, self.actions_in_hand
            ),
        }
    }
}
