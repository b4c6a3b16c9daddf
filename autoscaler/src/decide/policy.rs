//! The settings of a decision: how a pool is to be run, and how long a worker may take.

/// How one pool is to be run, made from the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolPolicy {
    /// The fewest workers: 0 is serverless, 1 or more dedicated, and the same as the most is fixed.
    pub workers_min: u32,
    /// The most workers. Draining workers do not count.
    pub workers_max: u32,
    /// Pools of a higher priority are served first when device slots are short.
    pub priority: i32,
    /// Workers are added when the backlog would take longer than this to work off.
    pub target_wait_s: f64,
    /// How long workers may idle; without it, until they have cost what a cold start costs, refined by observed gaps.
    pub idle_s: Option<f64>,
    /// A pool leaves zero when its backlog is above this.
    pub activation_jobs: u64,
    /// Jobs that one busy worker does in a second, until that is measured.
    pub jobs_per_s_prior: f64,
    /// Seconds from a launch to the first job, until that is measured.
    pub cold_start_s_prior: f64,
}

/// How long a worker may take for what has an end. One that takes longer is ended.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From launch to ready.
    pub start_ms: u64,
    /// Holding jobs without progress.
    pub stuck_ms: u64,
    /// From the request to drain to the end.
    pub drain_ms: u64,
    /// Without a heartbeat, of a worker that had sent one.
    pub silent_ms: u64,
}

impl Timeouts {
    /// No time-out at all, for fleets whose workers never fail.
    pub const NONE: Self =
        Self { start_ms: u64::MAX, stuck_ms: u64::MAX, drain_ms: u64::MAX, silent_ms: u64::MAX };
}
