//! The outcome of a run: waits, costs and actions.

use serde::Serialize;

/// Queue and workers at a moment, for the plot.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the beginning.
    pub at_us: u64,
    /// Jobs without a worker.
    pub waiting: usize,
    /// Workers that start.
    pub starting: usize,
    /// Workers that are ready or finish their last job.
    pub serving: usize,
}

/// The counts of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// From arrival to the beginning of service, sorted once the run is over.
    pub waits_us: Vec<u64>,
    /// From launch to stop, summed over the workers.
    pub worker_us: u64,
    /// Launches.
    pub cold_starts: u64,
    /// Moments at which the size wanted changed.
    pub actions: u64,
    /// When the last job ended.
    pub last_end_us: u64,
    /// For the plot.
    pub samples: Vec<Sample>,
}

/// The figures of a run, as printed.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Jobs served.
    pub jobs: u64,
    /// Median of the waits.
    pub wait_s_p50: f64,
    /// 95th percentile of the waits.
    pub wait_s_p95: f64,
    /// 99th percentile of the waits.
    pub wait_s_p99: f64,
    /// Share of the jobs that waited no longer than the target.
    pub within_target: f64,
    /// From launch to stop, summed over the workers.
    pub worker_s: f64,
    /// Launches.
    pub cold_starts: u64,
    /// Moments at which the size wanted changed.
    pub actions: u64,
    /// Worker-seconds by their price.
    pub cost: f64,
}

impl Outcome {
    /// Sums up. `target_s` is the wait that is meant to hold, `cost_per_hour` the price of a worker.
    pub fn figures(&self, target_s: f64, cost_per_hour: f64) -> Figures {
        let within = self.waits_us.partition_point(|wait_us| *wait_us as f64 <= target_s * 1e6);
        let jobs = self.waits_us.len();
        let worker_s = self.worker_us as f64 / 1e6;
        Figures {
            jobs: jobs as u64,
            wait_s_p50: self.wait_s(0.5),
            wait_s_p95: self.wait_s(0.95),
            wait_s_p99: self.wait_s(0.99),
            within_target: if jobs == 0 { 1.0 } else { within as f64 / jobs as f64 },
            worker_s,
            cold_starts: self.cold_starts,
            actions: self.actions,
            cost: worker_s / 3_600.0 * cost_per_hour,
        }
    }

    /// The wait that `share` of the jobs did not exceed (nearest rank).
    pub fn wait_s(&self, share: f64) -> f64 {
        let rank = (share * self.waits_us.len() as f64).ceil() as usize;
        self.waits_us.get(rank.max(1) - 1).map_or(0.0, |wait_us| *wait_us as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let waits_us = (1..=100).map(|s| s * 1_000_000).collect();
        let outcome = Outcome { waits_us, ..Outcome::default() };
        let figures = outcome.figures(10.0, 3.6);
        let waits = [figures.wait_s_p50, figures.wait_s_p95, figures.wait_s_p99];
        assert_eq!(waits.map(|wait_s| wait_s as u64), [50, 95, 99]);
        assert!((figures.within_target - 0.1).abs() < 1e-9);
        assert!(Outcome::default().wait_s(0.95).abs() < 1e-9);
    }
}
