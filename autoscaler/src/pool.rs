//! One model's workers, from what is seen of them to what is to be done.

use std::collections::VecDeque;

use forebay_fabric::config::PoolConfig;
use forebay_schemas::{
    DecisionReport, ModelId, PoolStatus, WorkerRecord, status::DECISIONS_REPORTED_MAX,
};
use metrics::counter;

use crate::{
    act::{Instance, circuit::Circuit},
    fleet::{End, Fleet, Overdue, Patience, READY_MS_MIN},
    observe::{Arrivals, Sight},
    policy::{self, Backlog, Decision, Memory, Observed, Phase, PoolPolicy, WorkerSeen},
    share::Claim,
};

/// What is kept of one pool from tick to tick.
pub struct Pool {
    /// The model.
    pub model: ModelId,
    /// How it is to be run.
    pub config: PoolConfig,
    /// What holds its launches back.
    pub circuit: Circuit,
    memory: Memory,
    arrivals: Arrivals,
    fleet: Fleet,
    decisions: VecDeque<DecisionReport>,
    /// The workers that were wanted last; `None` before the first decision.
    wanted: Option<u32>,
}

/// What one pool is to do, as far as it alone can tell.
#[derive(Debug)]
pub struct Plan {
    /// What is seen of its workers.
    pub workers: Vec<WorkerSeen>,
    /// The decision.
    pub decision: Decision,
    /// Workers that have to be ended.
    pub overdue: Vec<Overdue>,
    /// What is wrong.
    pub problems: Vec<String>,
    /// Whether its workers and queues could be seen.
    pub observed: bool,
    backlog: Option<Backlog>,
}

impl Pool {
    /// A pool that has seen nothing yet.
    pub fn new(model: ModelId, config: PoolConfig) -> Self {
        Self {
            model,
            config,
            circuit: Circuit::default(),
            memory: Memory::new(),
            arrivals: Arrivals::default(),
            fleet: Fleet::default(),
            decisions: VecDeque::new(),
            wanted: None,
        }
    }

    /// Decides on what is seen. `instances` are its workers; a reason when its launcher could not list them.
    pub fn plan(
        &mut self,
        now_ms: u64,
        sight: &Sight,
        instances: Result<&[Instance], &str>,
        patience: &Patience,
    ) -> Plan {
        let mut problems = Vec::new();
        let records = sight.workers.as_deref().ok();
        let mine: Option<Vec<&WorkerRecord>> = records
            .map(|all| all.iter().filter(|record| record.model == self.model.as_str()).collect());
        let looked = match instances {
            Ok(instances) => self.fleet.look(now_ms, instances, records, patience),
            Err(reason) => {
                problems.push(reason.to_owned());
                crate::fleet::Looked::default()
            }
        };
        self.hear_of_ends(now_ms, &looked.ended);
        if looked.proven {
            self.circuit.succeeded();
        }
        if looked.adopted > 0 {
            tracing::info!(model = %self.model, workers = looked.adopted, "adopted");
            let model = self.model.to_string();
            counter!("forebay_workers_adopted_total", "model" => model)
                .increment(looked.adopted.into());
        }
        let backlog = instances.ok().and(self.backlog(now_ms, sight, mine.as_deref()));
        let seen = Observed { now_ms, backlog, workers: looked.workers };
        let mut decision = policy::decide(&self.policy(), &mut self.memory, &seen);
        // A size that rests on half of what there is to see may grow and not shrink.
        if sight.management.is_some() && !decision.drain.is_empty() {
            decision.drain.clear();
            decision.wanted = decision.wanted.max(active(&seen.workers));
        }
        problems.extend(self.circuit.problem(now_ms));
        let observed = backlog.is_some();
        Plan {
            workers: seen.workers,
            decision,
            overdue: looked.overdue,
            problems,
            observed,
            backlog,
        }
    }

    fn policy(&self) -> PoolPolicy {
        let config = &self.config;
        PoolPolicy {
            workers_min: config.min,
            workers_max: config.max,
            drain_s: config.target_wait_s,
            idle_s: config.idle_s,
            activation_jobs: config.activation_jobs,
            jobs_per_s_prior: config.jobs_per_s_prior,
            cold_start_s_prior: config.cold_start_s_prior,
        }
    }

    fn backlog(
        &mut self,
        now_ms: u64,
        sight: &Sight,
        mine: Option<&[&WorkerRecord]>,
    ) -> Option<Backlog> {
        let (waiting, mine) = (sight.waiting.as_ref().ok()?.get(&self.model)?, mine?);
        let counted = self.arrivals.look(now_ms, waiting.ready, mine);
        // The management API is some seconds behind: where nothing waits and nobody holds anything, it is not asked.
        let unacknowledged = match waiting.in_hand {
            Some(in_hand) if waiting.ready + counted.in_hand > 0 => counted.in_hand.max(in_hand),
            _ => counted.in_hand,
        };
        let arrived_total = counted.arrived;
        Some(Backlog { ready: waiting.ready, unacknowledged, arrived_total })
    }

    /// One that ends unasked before it was ready, or soon after, counts against the launcher; one that is lost later is
    /// just replaced.
    fn hear_of_ends(&mut self, now_ms: u64, ended: &[End]) {
        for end in ended {
            let lasted = end.ready_for_ms.is_some_and(|ms| ms >= READY_MS_MIN);
            if end.expected || (end.well && lasted) {
                tracing::info!(model = %self.model, worker = end.name, how = end.how, "worker ended");
                continue;
            }
            tracing::warn!(model = %self.model, worker = end.name, how = end.how, "worker lost");
            let reason = if end.ready_for_ms.is_some() { "lost" } else { "start" };
            let model = self.model.to_string();
            counter!("forebay_workers_replaced_total", "model" => model, "reason" => reason)
                .increment(1);
            if !lasted {
                let when = if reason == "lost" { "soon after" } else { "before" };
                let reason = format!("{} ended {when} it was ready: {}", end.name, end.how);
                self.circuit.failed(now_ms, reason);
            }
        }
    }

    /// These were told to finish.
    pub fn told_to_end(&mut self, now_ms: u64, names: &[String]) {
        self.fleet.told_to_end(now_ms, names);
    }

    /// What the pool claims of its launcher's places.
    pub fn claim(&self, plan: &Plan) -> Claim {
        Claim {
            priority: self.config.priority,
            min: self.config.min.min(plan.decision.wanted),
            wanted: plan.decision.wanted,
            active: active(&plan.workers),
        }
    }

    /// Takes note of the size that was granted, when it is another than before.
    pub fn note(&mut self, at_ms: u64, granted: u32, plan: &Plan) {
        let before = self.wanted.replace(granted).unwrap_or_else(|| active(&plan.workers));
        if before == granted {
            return;
        }
        let code = plan.decision.why.code.as_str();
        let mut why = plan.decision.why.to_string();
        if granted < plan.decision.wanted {
            why = format!("{why}; there are places for {granted} only");
        }
        tracing::info!(model = %self.model, before, wanted = granted, code, why, "scales");
        let direction = if granted > before { "up" } else { "down" };
        let model = self.model.to_string();
        counter!("forebay_scale_actions_total", "model" => model, "direction" => direction)
            .increment(1);
        self.decisions.truncate(DECISIONS_REPORTED_MAX - 1);
        let code = code.to_owned();
        self.decisions.push_front(DecisionReport { at_ms, before, wanted: granted, code, why });
    }

    /// What is told of it.
    pub fn status(&self, launcher: &str, plan: &Plan, granted: u32) -> PoolStatus {
        let count =
            |phase| plan.workers.iter().filter(|worker| worker.phase == phase).count() as u32;
        let why = &plan.decision.why;
        let jobs = plan.backlog.map(|backlog| backlog.ready + backlog.unacknowledged);
        let ready = count(Phase::Ready);
        let capacity = f64::from(ready) * why.jobs_per_s;
        let mut problems = plan.problems.clone();
        if granted < plan.decision.wanted {
            problems.push(format!(
                "wants {} workers, and there are places for {granted}",
                plan.decision.wanted
            ));
        }
        PoolStatus {
            model: self.model.to_string(),
            launcher: launcher.to_owned(),
            workers_min: self.config.min,
            workers_max: self.config.max,
            wanted: granted,
            starting: count(Phase::Starting),
            ready,
            draining: count(Phase::Draining),
            jobs_ready: plan.backlog.map(|backlog| backlog.ready),
            jobs_unacknowledged: plan.backlog.map(|backlog| backlog.unacknowledged),
            arrivals_per_s: why.arrivals_per_s,
            worker_jobs_per_s: why.jobs_per_s,
            cold_start_s: why.cold_start_s,
            drain_time_s: jobs.filter(|_| capacity > 0.0).map(|jobs| jobs as f64 / capacity),
            problems,
            decisions: self.decisions.iter().cloned().collect(),
        }
    }
}

/// The workers that are there or will be, and stay.
pub fn active(workers: &[WorkerSeen]) -> u32 {
    workers.iter().filter(|worker| worker.phase != Phase::Draining).count() as u32
}

/// Which workers go when a pool may keep `granted`: those that the policy chose, then those with the least in hand.
pub fn leaving(plan: &Plan, granted: u32) -> Vec<String> {
    let mut leaving = plan.decision.drain.clone();
    let mut others: Vec<&WorkerSeen> = plan
        .workers
        .iter()
        .filter(|worker| worker.phase != Phase::Draining && !leaving.contains(&worker.id))
        .collect();
    others.sort_by_key(|worker| (worker.in_flight, worker.age_ms));
    let surplus = others.len().saturating_sub(granted as usize);
    leaving.extend(others[..surplus].iter().map(|worker| worker.id.clone()));
    leaving
}

/// The workers that load.
pub fn starting(workers: &[WorkerSeen]) -> u32 {
    workers.iter().filter(|worker| worker.phase == Phase::Starting).count() as u32
}
