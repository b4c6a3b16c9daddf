//! The quantities that a size is worked out from.

/// What is known at a look.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub now_ms: u64,
    /// Queued or with workers that stay.
    pub backlog_jobs: u64,
    pub queued_jobs: u64,
    pub arrivals_per_s: f64,
    pub jobs_per_s: f64,
    pub cold_start_s: f64,
    pub target_wait_s: f64,
    pub idle_s: f64,
    /// The idle time is somebody's wish, and not worked out here.
    pub idle_is_given: bool,
    pub quiet_s: f64,
    /// Workers that are busy at this very moment.
    pub workers_busy: f64,
    pub workers_needed: f64,
    pub actions_in_hand: f64,
}

impl Measured {
    /// The backlog in seconds of one worker.
    pub(super) fn work_s(&self) -> f64 {
        self.backlog_jobs as f64 / self.jobs_per_s
    }
}
