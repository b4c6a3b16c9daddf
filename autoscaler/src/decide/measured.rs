//! The quantities from which a size is worked out.

/// The quantities of one pool at one look.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub now_ms: u64,
    /// Jobs in queues or with workers that stay.
    pub backlog_jobs: u64,
    /// Jobs in queues.
    pub queued_jobs: u64,
    pub arrivals_per_s: f64,
    /// Jobs that one busy worker does in a second.
    pub jobs_per_s: f64,
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

impl Measured {
    /// The backlog in seconds of one worker.
    pub(super) fn work_s(&self) -> f64 {
        self.backlog_jobs as f64 / self.jobs_per_s
    }
}
