//! Processor time of a process. On a machine that others use too it says more than the time that passed.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::worker::Worker;

/// The kernel's unit of processor time, which is the same on all processors that Linux runs on.
const TICKS_PER_S: u64 = 100;
/// Where user and system time are among the fields after the name in `/proc/<pid>/stat`.
const USER_AND_SYSTEM: std::ops::RangeInclusive<usize> = 11..=12;

/// The figures of one round.
pub(crate) struct Round {
    /// Jobs, tasks or messages a second.
    pub(crate) rate: f64,
    /// Microseconds of processor time for each: of the worker, or of nothing but lapin.
    pub(crate) worker_us: f64,
    /// Those of the client, where it is apart.
    pub(crate) client_us: f64,
}

/// When a round began, and the processor time that had been used by then.
pub(crate) struct Began {
    at: Instant,
    own: Duration,
    worker: Duration,
}

impl Began {
    /// Now. Without a worker, this process has both sides.
    pub(crate) fn now(worker: Option<&Worker>) -> Result<Self> {
        let of_worker = worker.map_or(Ok(Duration::ZERO), |worker| of(&worker.id().to_string()))?;
        Ok(Self { at: Instant::now(), own: of("self")?, worker: of_worker })
    }

    /// The round of so many jobs that ends now.
    pub(crate) fn until_now(&self, worker: Option<&Worker>, jobs: usize) -> Result<Round> {
        let now = Self::now(worker)?;
        let us_each = |time: Duration| time.as_secs_f64() * 1e6 / jobs as f64;
        let own_us = us_each(now.own.saturating_sub(self.own));
        let worker_us = us_each(now.worker.saturating_sub(self.worker));
        Ok(Round {
            rate: jobs as f64 / (now.at - self.at).as_secs_f64(),
            worker_us: if worker.is_some() { worker_us } else { own_us },
            client_us: own_us,
        })
    }
}

/// Processor time that a process has used so far.
fn of(process: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name is in parentheses and may have any characters.
    let (_, fields) = stat.rsplit_once(") ").context("no name in /proc/<pid>/stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let times = fields.get(USER_AND_SYSTEM).context("no times in /proc/<pid>/stat")?;
    let ticks = times.iter().map(|ticks| ticks.parse::<u64>()).sum::<Result<u64, _>>();
    // `sum` of results stops at the first that is no number.
    Ok(Duration::from_millis(ticks? * 1_000 / TICKS_PER_S))
}
