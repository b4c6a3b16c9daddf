//! The history of a pool's load: rates, the demand of the last minutes, gaps, and the actions taken. Bounded.
//!
//! Counters of workers and queues are only ever compared with what they were at the look before, so a new history among
//! workers that have run for days learns from what they do now.

use std::collections::HashMap;

use super::{
    bursts::{BurstSample, Bursts},
    demand::Demand,
    measured::Measured,
    policy::PoolPolicy,
    seen::{Capacity, Phase, PoolSeen, WorkerSeen},
    tokens::Tokens,
    victims::Ends,
};

/// Arrivals are averaged over about this time: long enough to smooth counters that are refreshed every few seconds, and
/// short beside a burst.
const ARRIVALS_AVERAGED_S: f64 = 10.0;
/// The rate of a worker follows its last five busy minutes: that of a model hardly changes, the mix of its jobs does.
const RATE_HALF_LIFE_S: f64 = 300.0;
/// The prior counts as much as ten busy seconds.
const RATE_PRIOR_S: f64 = 10.0;
/// A start that takes longer than an hour is a failed one, whatever its worker says.
const COLD_START_S_MAX: f64 = 3_600.0;
/// No idle worker is kept for longer than a day.
const IDLE_S_MAX: f64 = 86_400.0;
/// A new cold start moves the average by this share.
const COLD_START_SHARE: f64 = 0.3;
/// A worker with work whose counters stand still for so long is taken to be in the midst of it. Workers report their
/// counters every two seconds.
const STALE_MS: u64 = 5_000;
/// Workers whose counters are remembered; more are taken as new each time.
const WORKERS_MAX: usize = 4_096;
/// The demand is averaged over half the target, since what can wait needs no worker of its own, and over this at most,
/// since after the end of a burst an average lingers.
const DEMAND_AVERAGED_S_MAX: f64 = 15.0;
/// The weight of the waits for a cold start against its worker-seconds, for a target far below it.
const WAIT_WEIGHT: f64 = 2.0;
/// Looks come every second or so, and counters are up to two seconds old: a shorter idle time is noise.
const IDLE_S_MIN: f64 = 5.0;
/// A scale action may be taken every 65 s on average. A pod autoscaler with its default stabilisation takes one in
/// about two minutes; this policy grants itself twice as many.
const ACTION_INTERVAL_S: f64 = 65.0;
/// Actions that may be saved up: to zero, and up again.
const ACTIONS_SAVED_MAX: f64 = 2.0;
/// Scale-outs are never refused, but lend no more than this from the future.
const ACTIONS_LENT_MAX: f64 = 1.0;

/// The counters of a worker when they last moved.
#[derive(Clone, Copy, Debug)]
struct Counters {
    jobs_done: u64,
    busy_ms: u64,
    /// Of a worker whose work is known in tokens: those that it has computed, and whether it was full.
    tokens: Option<(u64, bool)>,
    since_ms: u64,
    /// The share of its time for which it was busy; in tokens, the share of what it is capable of.
    busy: f64,
    cold_start_known: bool,
}

/// The history of one pool's load. It survives changes of the policy.
#[derive(Clone, Debug, Default)]
pub struct History {
    last_ms: Option<u64>,
    /// When the arrivals were last counted, and what they were.
    arrived: Option<(u64, u64)>,
    arrivals_per_s: f64,
    counters: HashMap<String, Counters>,
    jobs: f64,
    busy_s: f64,
    tokens: Tokens,
    cold_start_s: Option<f64>,
    busy_workers: f64,
    actions_spent: f64,
    pub(super) last_growth_ms: Option<u64>,
    /// The size that was asked for last.
    pub(super) asked: u32,
    pub(super) demand: Demand,
    pub(super) bursts: Bursts,
    /// The workers that were ended lately for doubt.
    pub(super) ends: Ends,
}

impl History {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what was seen. `None` if the queues were not observed.
    pub(super) fn observe(
        &mut self,
        policy: &PoolPolicy,
        seen: &PoolSeen,
        capacity: &Capacity<'_>,
    ) -> Option<Measured> {
        let now_ms = seen.now_ms;
        let elapsed_s = self.last_ms.map_or(0.0, |at| now_ms.saturating_sub(at) as f64 / 1e3);
        let busy_now = self.observe_workers(seen);
        self.last_ms = Some(self.last_ms.unwrap_or(now_ms).max(now_ms));
        self.actions_spent = (self.actions_spent - elapsed_s / ACTION_INTERVAL_S).max(0.0);
        let target_wait_s = positive(policy.target_wait_s, 1.0);
        let averaged_s = (target_wait_s / 2.0).min(DEMAND_AVERAGED_S_MAX);
        self.busy_workers = averaged(self.busy_workers, busy_now, elapsed_s, averaged_s);

        let backlog = seen.backlog?;
        let cold_start_s =
            self.cold_start_s.unwrap_or_else(|| positive(policy.cold_start_s_prior, 0.0));
        let cold_start_s = cold_start_s.min(COLD_START_S_MAX);
        let before = self.arrived.map_or(backlog.arrived_total, |(_, before)| before);
        let arrived = self.count_arrivals(now_ms, backlog.arrived_total);
        let held = backlog.unacknowledged.saturating_sub(capacity.draining_in_flight);
        let backlog_jobs = backlog.ready + held;
        let active_jobs = backlog.ready + backlog.unacknowledged;
        let tokens = self.tokens.of(backlog_jobs, capacity);
        let jobs_per_s =
            tokens.map_or_else(|| self.jobs_per_s(policy), |tokens| tokens.per_s / tokens.per_job);
        let active = active_jobs > 0 || arrived > 0;
        let arrivals = BurstSample { now_ms, active, before, total: backlog.arrived_total };
        self.bursts.observe(&arrivals, jobs_per_s, cold_start_s, target_wait_s);

        if policy.idle_s.is_some() && active_jobs == 0 {
            // A configured idle time counts from the last job, not from where an average ends.
            self.busy_workers = busy_now;
        }
        let break_even_s =
            cold_start_s * (1.0 + WAIT_WEIGHT * cold_start_s / (cold_start_s + target_wait_s));
        let given_s = policy.idle_s.map(|given_s| positive(given_s, 0.0));
        let worked_out_s = || self.bursts.idle_s(break_even_s).max(IDLE_S_MIN);
        let idle_s = given_s.unwrap_or_else(worked_out_s);
        let mut measured = Measured {
            now_ms,
            backlog_jobs,
            queued_jobs: backlog.ready,
            arrivals_per_s: self.arrivals_per_s,
            jobs_per_s,
            tokens,
            cold_start_s,
            target_wait_s,
            idle_s: idle_s.min(IDLE_S_MAX),
            idle_is_given: given_s.is_some(),
            quiet_s: self.bursts.quiet_s(now_ms),
            workers_busy: busy_now,
            workers_needed: 0.0,
            actions_in_hand: ACTIONS_SAVED_MAX - self.actions_spent,
        };
        measured.workers_needed = self.needed(&measured, capacity);
        let horizon_ms = (measured.idle_s.max(break_even_s) * 1e3) as u64;
        self.demand.record(now_ms, measured.workers_needed, horizon_ms);
        Some(measured)
    }

    /// Takes in how many jobs have arrived in all. Returns how many came since the last look at the queues, which may
    /// be longer ago than the last look at the workers.
    fn count_arrivals(&mut self, now_ms: u64, total: u64) -> u64 {
        let (counted_ms, before) = self.arrived.unwrap_or((now_ms, total));
        let arrived = total.saturating_sub(before);
        let counted_s = now_ms.saturating_sub(counted_ms) as f64 / 1e3;
        if counted_s > 0.0 {
            let rate = arrived as f64 / counted_s;
            self.arrivals_per_s =
                averaged(self.arrivals_per_s, rate, counted_s, ARRIVALS_AVERAGED_S);
        }
        if counted_s > 0.0 || self.arrived.is_none() {
            self.arrived = Some((now_ms, total));
        }
        arrived
    }

    /// Workers that are of use now: those that are busy, those that the backlog asks for, all of them while the backlog
    /// waits for some that start, and those that a burst will need which is due.
    fn needed(&self, measured: &Measured, capacity: &Capacity<'_>) -> f64 {
        let by_backlog =
            (measured.work_s() / measured.target_wait_s).min(measured.backlog_jobs as f64);
        let awaited = !capacity.starting.is_empty() && measured.backlog_jobs > 0;
        let awaited = if awaited { f64::from(capacity.active()) } else { 0.0 };
        let warmed_ms = self.bursts.warmed_ms().map(|at| measured.now_ms.saturating_sub(at));
        let warmed = warmed_ms.is_some_and(|ms| (ms as f64) < 2e3 * measured.cold_start_s);
        let due = self.bursts.due(measured.now_ms, measured.cold_start_s, measured.target_wait_s);
        let ahead = due.or_else(|| self.bursts.usual().filter(|_| warmed)).unwrap_or(0);
        self.busy_workers.max(by_backlog).max(awaited).max(f64::from(ahead))
    }

    /// Learns from the counters of the workers. Returns how many of them are busy.
    fn observe_workers(&mut self, seen: &PoolSeen) -> f64 {
        let mut jobs = 0.0;
        let mut busy_s = 0.0;
        let mut busy_now = 0.0;
        for worker in &seen.workers {
            let known = self.counters.get(&worker.id).copied();
            if let Some(known) = known {
                jobs += worker.jobs_done.saturating_sub(known.jobs_done) as f64;
                let worked_s = worker.busy_ms.saturating_sub(known.busy_ms) as f64 / 1e3;
                busy_s += worked_s;
                if let Some((before, was_full)) = known.tokens
                    && let Some(now) = worker.generates
                {
                    let computed = now.tokens_done.saturating_sub(before);
                    let is_full = was_full && now.is_full;
                    self.tokens.computed(computed, worked_s, is_full, RATE_HALF_LIFE_S);
                }
            }
            let counters = counters(known, worker, seen.now_ms, self.tokens.per_s());
            if worker.phase != Phase::Draining {
                busy_now += counters.busy;
            }
            if let Some(cold_start_ms) = worker.cold_start_ms
                && !known.is_some_and(|known| known.cold_start_known)
            {
                let cold_start_s = (cold_start_ms as f64 / 1e3).min(COLD_START_S_MAX);
                let average = self.cold_start_s.unwrap_or(cold_start_s);
                self.cold_start_s = Some(average + COLD_START_SHARE * (cold_start_s - average));
            }
            if let Some(known) = self.counters.get_mut(&worker.id) {
                *known = counters;
            } else if self.counters.len() < WORKERS_MAX {
                self.counters.insert(worker.id.clone(), counters);
            }
        }
        if self.counters.len() > seen.workers.len() {
            let there: std::collections::HashSet<&str> =
                seen.workers.iter().map(|worker| worker.id.as_str()).collect();
            self.counters.retain(|id, _| there.contains(id.as_str()));
        }
        self.tokens.observe(&seen.workers);
        let kept = (-busy_s / RATE_HALF_LIFE_S).exp2();
        self.jobs = self.jobs * kept + jobs;
        self.busy_s = self.busy_s * kept + busy_s;
        busy_now
    }

    /// Jobs that one busy worker does in a second.
    fn jobs_per_s(&self, policy: &PoolPolicy) -> f64 {
        let prior = positive(policy.jobs_per_s_prior, 1.0).max(1e-6);
        let rate = (self.jobs + prior * RATE_PRIOR_S) / (self.busy_s + RATE_PRIOR_S);
        rate.max(1e-6)
    }

    /// Records that a scale action was taken.
    pub(super) fn acted(&mut self, now_ms: u64, growth: bool) {
        self.actions_spent = (self.actions_spent + 1.0).min(ACTIONS_SAVED_MAX + ACTIONS_LENT_MAX);
        if growth {
            self.last_growth_ms = Some(now_ms);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.counters.len() + self.demand.len() + self.bursts.len()
    }
}

/// The counters of a worker after this look, where a full one computes so many tokens a second.
fn counters(
    known: Option<Counters>,
    worker: &WorkerSeen,
    now_ms: u64,
    tokens_per_s: Option<f64>,
) -> Counters {
    let idle = worker.in_flight == 0;
    let moved_ms = known.map_or(0, |known| worker.busy_ms.saturating_sub(known.busy_ms));
    let since_ms = known.map_or(now_ms, |known| known.since_ms);
    let elapsed_ms = now_ms.saturating_sub(since_ms);
    let (busy, since_ms) = match known {
        _ if moved_ms > 0 && elapsed_ms > 0 => {
            let busy = (moved_ms as f64 / elapsed_ms as f64).min(1.0);
            let load =
                tokens_per_s.and_then(|per_s| load(known, worker, per_s * elapsed_ms as f64));
            (load.map_or(busy, |load| load.min(busy)), now_ms)
        }
        _ if idle => (0.0, now_ms),
        Some(known) if elapsed_ms < STALE_MS => (known.busy, since_ms),
        _ => (1.0, since_ms),
    };
    Counters {
        jobs_done: worker.jobs_done,
        busy_ms: worker.busy_ms,
        tokens: worker.generates.map(|generates| (generates.tokens_done, generates.is_full)),
        since_ms,
        busy,
        cold_start_known: worker.cold_start_ms.is_some(),
    }
}

/// The share of its capacity, in thousandths of tokens, that a worker which is not full has used since it was seen
/// last; `None` for others.
fn load(known: Option<Counters>, worker: &WorkerSeen, capacity: f64) -> Option<f64> {
    let (before, _) = known?.tokens?;
    let now = worker.generates.filter(|generates| !generates.is_full)?;
    Some(now.tokens_done.saturating_sub(before) as f64 * 1e3 / capacity)
}

/// An exponential average over about `over_s`, after `elapsed_s` of `value`.
fn averaged(average: f64, value: f64, elapsed_s: f64, over_s: f64) -> f64 {
    let kept = (-elapsed_s / over_s.max(1e-3)).exp();
    average * kept + value * (1.0 - kept)
}

/// `value`, or `otherwise` if it is no positive number: the configuration is checked where it is read, and this is the
/// last safeguard.
fn positive(value: f64, otherwise: f64) -> f64 {
    if value.is_finite() && value > 0.0 { value } else { otherwise }
}
