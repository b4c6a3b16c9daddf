//! A fleet in virtual time: jobs arrive, workers start, serve first come first served, drain and stop. Of generators
//! each runs many jobs side by side, and gives them back when it drains.
//!
//! Events are processed in order of time: arrivals, workers that become ready, jobs that end, and the looks of the
//! scaler. Between two of them nothing changes, so a day takes a moment. Time is in whole microseconds.

use std::{cmp::Reverse, collections::VecDeque};

use super::{
    outcome::{Outcome, Sample},
    worker::{Job, Part, SimulatedWorker},
};
use crate::decide::Phase;

/// The change that a scaler asks for.
pub enum Change {
    /// Nothing.
    Hold,
    /// This many workers. The fleet chooses which ones are drained, in favour of the peers: idle ones first.
    Size(u32),
    /// This many workers, by these moves.
    Moves {
        /// The size wanted.
        wanted: u32,
        /// How many to launch.
        launch: u32,
        /// Which to drain.
        drain: Vec<String>,
    },
}

/// A policy as the simulator drives it.
pub trait Scaler {
    /// When it looks next.
    fn next_look_us(&self) -> u64;
    /// Whether an arrival at a fleet of none makes it look at once.
    fn wakes_on_arrival(&self) -> bool {
        false
    }
    /// Looks at the fleet and decides.
    fn look(&mut self, fleet: &SimulatedFleet<'_>) -> Change;
}

/// The fleet and its queue.
pub struct SimulatedFleet<'a> {
    jobs: &'a [Job],
    cold_start_us: u64,
    slots: u32,
    /// Now.
    pub now_us: u64,
    /// Workers that have not stopped.
    pub workers: Vec<SimulatedWorker>,
    arrived: usize,
    begun: usize,
    /// Those that were given back: they go before the others.
    returned: VecDeque<Part>,
    launches: u32,
    size: u32,
    outcome: Outcome,
}

/// How a fleet is run.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// From launch to the first job.
    pub cold_start_us: u64,
    /// Up to here at least worker-seconds are counted; later if jobs are left.
    pub length_us: u64,
    /// Workers that are ready at the beginning. Their cold start is paid.
    pub workers_at_start: u32,
    /// The jobs that a worker runs side by side: 1 of an encoder, more of a generator.
    pub slots: u32,
    /// Keeps this many samples of queue and workers for a plot.
    pub samples: usize,
}

/// Runs `jobs` under `scaler` to the end.
pub fn run(jobs: &[Job], setting: Setting, scaler: &mut dyn Scaler) -> Outcome {
    let mut fleet = SimulatedFleet::new(jobs, setting);
    let sample_us = setting.length_us.checked_div(setting.samples as u64).unwrap_or(0).max(1);
    let mut next_sample_us = if setting.samples > 0 { 0 } else { u64::MAX };
    loop {
        let look_us = scaler.next_look_us();
        let arrival_us = jobs.get(fleet.arrived).map_or(u64::MAX, |job| job.at_us);
        let event_us = fleet.next_event_us();
        let next_us = look_us.min(arrival_us).min(event_us);
        while next_sample_us <= next_us && next_sample_us <= setting.length_us {
            fleet.sample(next_sample_us);
            next_sample_us += sample_us;
        }
        let idle = fleet.begun == jobs.len()
            && fleet.returned.is_empty()
            && fleet.workers.iter().all(|worker| worker.jobs() == 0);
        if next_us == u64::MAX || (idle && next_us > setting.length_us) {
            return fleet.finish(setting.length_us);
        }
        fleet.now_us = next_us;
        fleet.workers.iter_mut().for_each(|worker| worker.advance(next_us));
        let mut look = look_us == next_us;
        if event_us == next_us {
            fleet.progress();
        }
        if arrival_us == next_us {
            fleet.arrived += 1;
            look |= scaler.wakes_on_arrival() && fleet.active() == 0;
        }
        fleet.assign();
        if look {
            let change = scaler.look(&fleet);
            fleet.apply(change);
        }
    }
}

impl<'a> SimulatedFleet<'a> {
    fn new(jobs: &'a [Job], setting: Setting) -> Self {
        let mut fleet = Self {
            jobs,
            cold_start_us: setting.cold_start_us,
            slots: setting.slots,
            now_us: 0,
            workers: Vec::new(),
            arrived: 0,
            begun: 0,
            returned: VecDeque::new(),
            launches: 0,
            size: setting.workers_at_start,
            outcome: Outcome::default(),
        };
        for _ in 0..setting.workers_at_start {
            fleet.launch();
        }
        for worker in &mut fleet.workers {
            worker.ready_us = 0;
            fleet.outcome.worker_us += setting.cold_start_us;
        }
        fleet
    }

    /// Jobs that wait for a worker.
    pub fn ready(&self) -> u64 {
        (self.arrived - self.begun + self.returned.len()) as u64
    }

    /// Jobs that a worker has.
    pub fn in_service(&self) -> u64 {
        self.workers.iter().map(|worker| worker.jobs() as u64).sum()
    }

    /// Jobs that came so far.
    pub fn arrived(&self) -> u64 {
        self.arrived as u64
    }

    /// Workers that start or are ready.
    pub fn active(&self) -> u32 {
        self.workers.iter().filter(|worker| worker.phase != Phase::Draining).count() as u32
    }

    fn next_event_us(&self) -> u64 {
        self.workers.iter().map(SimulatedWorker::next_event_us).min().unwrap_or(u64::MAX)
    }

    /// Ends the jobs and the cold starts that end now.
    fn progress(&mut self) {
        let now_us = self.now_us;
        for worker in &mut self.workers {
            if worker.phase == Phase::Starting && worker.ready_us <= now_us {
                worker.phase = Phase::Ready;
            }
            if worker.end_jobs() > 0 {
                self.outcome.last_end_us = now_us;
            }
        }
        self.stop_drained();
    }

    fn stop_drained(&mut self) {
        let now_us = self.now_us;
        let outcome = &mut self.outcome;
        self.workers.retain(|worker| {
            let stops = worker.phase == Phase::Draining && worker.jobs() == 0;
            if stops {
                outcome.worker_us += now_us - worker.launched_us;
            }
            !stops
        });
    }

    /// Gives waiting jobs, the oldest first, to the workers that have the fewest.
    fn assign(&mut self) {
        while self.ready() > 0 {
            let takers = self.workers.iter_mut().filter(|worker| worker.takes());
            let Some(worker) = takers.min_by_key(|worker| worker.jobs()) else { return };
            if let Some(part) = self.returned.pop_front() {
                worker.take(part, self.jobs[part.job]);
                continue;
            }
            let job = self.jobs[self.begun];
            let part = Part { job: self.begun, left_us: job.service_us as f64, output: 0 };
            worker.take(part, job);
            self.outcome.waits_us.push(self.now_us - job.at_us);
            self.begun += 1;
        }
    }

    fn apply(&mut self, change: Change) {
        let (wanted, launch, drain) = match change {
            Change::Hold => return,
            Change::Moves { wanted, launch, drain } => (wanted, launch, drain),
            Change::Size(wanted) => {
                let active = self.active();
                let drain = self.choose(active.saturating_sub(wanted) as usize);
                (wanted, wanted.saturating_sub(active), drain)
            }
        };
        if wanted != self.size {
            self.outcome.actions += 1;
            self.size = wanted;
        }
        for _ in 0..launch {
            self.launch();
        }
        for worker in &mut self.workers {
            if drain.contains(&worker.id) {
                self.returned.extend(worker.drain());
            }
        }
        self.stop_drained();
        self.assign();
    }

    fn choose(&self, count: usize) -> Vec<String> {
        if count == 0 {
            return Vec::new();
        }
        let mut active: Vec<&SimulatedWorker> =
            self.workers.iter().filter(|worker| worker.phase != Phase::Draining).collect();
        // Idle workers go first, the newest of them first; then those that start, the newest first; then busy ones,
        // those with the fewest jobs first.
        let rank = |worker: &SimulatedWorker| {
            let class = match worker.phase {
                Phase::Ready if worker.jobs() == 0 => 2,
                Phase::Starting => 1,
                _ => 0,
            };
            (class, Reverse(worker.jobs()), worker.launched_us)
        };
        active.sort_by_key(|worker| Reverse(rank(worker)));
        active.into_iter().take(count).map(|worker| worker.id.clone()).collect()
    }

    fn launch(&mut self) {
        self.launches += 1;
        self.outcome.cold_starts += 1;
        let id = format!("w{}", self.launches);
        self.workers.push(SimulatedWorker::new(id, self.now_us, self.cold_start_us, self.slots));
    }

    fn sample(&mut self, at_us: u64) {
        let count = |phase| self.workers.iter().filter(|worker| worker.phase == phase).count();
        let starting = count(Phase::Starting);
        let ready = count(Phase::Ready);
        let draining = count(Phase::Draining);
        let waiting = self.ready() as usize;
        self.outcome.samples.push(Sample { at_us, waiting, starting, serving: ready + draining });
    }

    /// Stops what is left, at the end of the trace or of the last job.
    fn finish(mut self, length_us: u64) -> Outcome {
        let end_us = length_us.max(self.outcome.last_end_us);
        for worker in &self.workers {
            self.outcome.worker_us += end_us.saturating_sub(worker.launched_us);
        }
        self.outcome.waits_us.sort_unstable();
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wants sizes at moments.
    struct Script(Vec<(u64, u32)>);

    impl Scaler for Script {
        fn next_look_us(&self) -> u64 {
            self.0.first().map_or(u64::MAX, |step| step.0)
        }
        fn look(&mut self, _: &SimulatedFleet<'_>) -> Change {
            Change::Size(self.0.remove(0).1)
        }
    }

    fn jobs(jobs: &[(u64, u64)]) -> Vec<Job> {
        jobs.iter().map(|&(at_us, service_us)| Job { at_us, service_us, tokens: None }).collect()
    }

    fn setting(cold_start_us: u64, length_us: u64) -> Setting {
        Setting { cold_start_us, length_us, workers_at_start: 0, slots: 1, samples: 0 }
    }

    #[test]
    fn a_job_waits_for_the_cold_start_and_the_jobs_before_it() {
        let jobs = jobs(&[(10, 5), (10, 5), (12, 5)]);
        let outcome = run(&jobs, setting(20, 60), &mut Script(vec![(10, 1), (50, 0)]));
        assert_eq!(outcome.waits_us, [20, 25, 28]);
        assert_eq!((outcome.worker_us, outcome.cold_starts, outcome.actions), (40, 1, 2));
    }

    #[test]
    fn a_draining_worker_finishes_its_job_and_takes_no_other() {
        let jobs = jobs(&[(0, 100), (1, 100)]);
        let outcome = run(&jobs, setting(0, 10), &mut Script(vec![(0, 1), (50, 0), (200, 1)]));
        assert_eq!(outcome.waits_us, [0, 199]);
        assert_eq!(outcome.worker_us, 100 + 100);
    }

    #[test]
    fn idle_workers_are_drained_before_busy_ones() {
        let jobs = jobs(&[(5, 100)]);
        let outcome = run(&jobs, setting(0, 200), &mut Script(vec![(0, 3), (10, 1), (150, 0)]));
        assert_eq!(outcome.worker_us, 10 + 10 + 150);
    }

    #[test]
    fn a_worker_that_is_drained_while_it_starts_costs_until_then() {
        let outcome = run(&jobs(&[]), setting(100, 50), &mut Script(vec![(0, 2), (30, 0)]));
        assert_eq!((outcome.worker_us, outcome.cold_starts), (60, 2));
    }

    #[test]
    fn a_job_that_is_never_served_does_not_keep_the_run_from_ending() {
        let outcome = run(&jobs(&[(1, 1)]), setting(0, 5), &mut Script(Vec::new()));
        assert!(outcome.waits_us.is_empty());
    }
}
