//! Processor time of a process. On a machine that others use too it says more than the time that passed.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// The kernel's unit of processor time, which is the same on all processors that Linux runs on.
const TICKS_PER_S: u64 = 100;
/// Where user and system time are among the fields after the name in `/proc/<pid>/stat`.
const USER_AND_SYSTEM: std::ops::RangeInclusive<usize> = 11..=12;

/// Processor time that this process has used so far.
pub(crate) fn own() -> Result<Duration> {
    of("self")
}

/// Processor time that another process has used so far.
pub(crate) fn of_process(id: u32) -> Result<Duration> {
    of(&id.to_string())
}

/// Microseconds for each of so many items.
pub(crate) fn us_each(time: Duration, items: usize) -> f64 {
    time.as_secs_f64() * 1e6 / items as f64
}

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
