//! One model's workers from tick to tick: their history, the input of a decision, and the status.

use std::{collections::VecDeque, sync::Arc};

use forebay_fabric::config::PoolConfig;
use forebay_schemas::{
    CircuitState, DecisionReport, ModelId, PoolStatus, WorkerRecord, WorkerState,
    status::DECISIONS_REPORTED_MAX,
};
use metrics::counter;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    act::{
        Instance, Launcher,
        carry_out::{Carried, carry_out},
    },
    decide::{
        Answer, Backlog, Circuit, Decision, History, Moves, Phase, PoolInput, PoolPolicy, PoolSeen,
        active, count,
    },
    lead::Permit,
    observe::{
        Arrivals, Sight, Waiting,
        workers::{End, ObservedWorkers, READY_MS_MIN, WorkersLook},
    },
};

/// The part of one model that is kept from tick to tick.
pub struct ModelPool {
    /// The model.
    pub model: ModelId,
    /// How it is to be run.
    pub config: PoolConfig,
    /// Holds its launches back while they fail.
    pub circuit: Circuit,
    history: History,
    arrivals: Arrivals,
    workers: ObservedWorkers,
    decisions: VecDeque<DecisionReport>,
    /// The size that was granted last; `None` before the first decision.
    granted: Option<u32>,
    /// The moves that its launcher is still at.
    acting: Option<JoinHandle<Carried>>,
}

/// One model at one tick.
#[derive(Debug)]
pub struct PoolLook {
    /// The input of the decision.
    pub seen: PoolSeen,
    /// The workers that ended since the look before.
    pub ended: Vec<String>,
    /// Problems, for people.
    pub problems: Vec<String>,
    /// Jobs that wait in the interactive lane; `None` where that is not known.
    pub interactive: Option<u64>,
    /// Ready workers of a remote model that don't call its endpoint, because it fails.
    pub circuits_open: u32,
}

impl PoolLook {
    /// Whether its queues and workers could be observed.
    pub fn observed(&self) -> bool {
        self.seen.backlog.is_some()
    }
}

impl ModelPool {
    /// A pool of which nothing was seen yet.
    pub fn new(model: ModelId, config: PoolConfig) -> Self {
        Self {
            model,
            config,
            circuit: Circuit::default(),
            history: History::new(),
            arrivals: Arrivals::default(),
            workers: ObservedWorkers::default(),
            decisions: VecDeque::new(),
            granted: None,
            acting: None,
        }
    }

    /// Takes in what is seen now. `instances` are the workers of this model, or the reason why its launcher could not
    /// list them.
    pub fn look(
        &mut self,
        now_ms: u64,
        sight: &Sight,
        instances: Result<&[Instance], &str>,
    ) -> PoolLook {
        let mut problems = Vec::new();
        let registry = sight.workers.as_ref().ok();
        let mine: Option<Vec<&WorkerRecord>> = registry.map(|registry| {
            let mine = |record: &&WorkerRecord| record.model == self.model.as_str();
            registry.workers.iter().filter(mine).collect()
        });
        let look = match instances {
            Ok(instances) => self.workers.look(now_ms, instances, registry),
            Err(reason) => {
                problems.push(reason.to_owned());
                WorkersLook::default()
            }
        };
        self.judge_ends(now_ms, &look.ended);
        if look.proven {
            self.circuit.succeeded();
        }
        if look.adopted > 0 {
            tracing::info!(model = %self.model, workers = look.adopted, "adopted");
            let model = self.model.to_string();
            counter!("forebay_workers_adopted_total", "model" => model)
                .increment(look.adopted.into());
        }
        let waiting = sight.waiting.as_ref().ok().and_then(|waiting| waiting.get(&self.model));
        let unknown = waiting.and_then(|waiting| waiting.ready.as_ref().err());
        problems.extend(unknown.cloned());
        let backlog = waiting.and_then(|waiting| self.backlog(now_ms, waiting, mine.as_deref()));
        let backlog = instances.ok().and(backlog);
        problems.extend(self.circuit.problem(now_ms));
        if look.unreadable > 0 {
            problems.push(format!(
                "{} workers are of another version, whose records can't be read",
                look.unreadable
            ));
        }
        let uncounted = waiting.is_some_and(|waiting| waiting.uncounted);
        let partial = sight.management.is_some() || uncounted || look.unreadable > 0;
        let acting = self.acting.is_some();
        let ended = look.ended.into_iter().map(|end| end.name).collect();
        let interactive = waiting.and_then(|waiting| waiting.interactive);
        let circuits_open = mine.iter().flatten().filter(|record| is_away(record)).count() as u32;
        let seen = PoolSeen { now_ms, backlog, partial, acting, workers: look.workers };
        PoolLook { seen, ended, problems, interactive, circuits_open }
    }

    /// Takes in what a worker of this look answered when it was asked whether it is there.
    pub fn answered(&mut self, look: &mut PoolLook, name: &str, answer: Answer) {
        let now_ms = look.seen.now_ms;
        if let Some(worker) = look.seen.workers.iter_mut().find(|worker| worker.id == name) {
            self.workers.answered(now_ms, worker, answer);
        }
    }

    /// The input of the decision on this pool.
    pub fn input<'a>(&'a mut self, look: &'a PoolLook) -> PoolInput<'a> {
        PoolInput {
            policy: policy(&self.config),
            seen: &look.seen,
            circuit: &self.circuit,
            history: &mut self.history,
        }
    }

    /// Has these moves carried out. What comes of them is waited for by [`ModelPool::acted`].
    pub fn act(&mut self, launcher: Arc<dyn Launcher>, moves: Moves, permit: Permit) {
        let model = self.model.clone();
        self.acting =
            Some(tokio::spawn(async move { carry_out(&*launcher, &model, &moves, &permit).await }));
    }

    /// Whether its launcher is at work on it.
    pub fn is_acting(&self) -> bool {
        self.acting.is_some()
    }

    /// Waits for the moves that are carried out, at most until then, and takes in what came of them. Whether the permit
    /// was lost.
    pub async fn acted(&mut self, now_ms: u64, until: Instant) -> bool {
        let Some(acting) = &mut self.acting else { return false };
        let Ok(carried) = timeout_at(until, acting).await else { return false };
        self.acting = None;
        // A panic in it has been logged; the next look finds the workers as they are.
        let carried = carried.unwrap_or_default();
        let lost = carried.permit_lost;
        self.carried(now_ms, carried);
        lost
    }

    fn carried(&mut self, now_ms: u64, carried: Carried) {
        self.workers.asked_to_drain(now_ms, &carried.drained);
        for reason in carried.launch_failures {
            self.circuit.failed(now_ms, reason);
        }
    }

    fn backlog(
        &mut self,
        now_ms: u64,
        waiting: &Waiting,
        mine: Option<&[&WorkerRecord]>,
    ) -> Option<Backlog> {
        let ready = *waiting.ready.as_ref().ok()?;
        let counted = self.arrivals.look(now_ms, ready, mine?);
        // The management API is some seconds behind: where nothing waits and no worker holds jobs, it is not asked.
        let unacknowledged = match waiting.in_hand {
            Some(in_hand) if ready + counted.in_hand > 0 => counted.in_hand.max(in_hand),
            _ => counted.in_hand,
        };
        let arrived_total = counted.arrived;
        Some(Backlog { ready, unacknowledged, arrived_total })
    }

    /// A worker that ends unasked before it was ready, or soon after, counts as a failed launch; one that is lost later
    /// is just replaced.
    fn judge_ends(&mut self, now_ms: u64, ended: &[End]) {
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

    /// Records the size that was granted, when it differs from the one before.
    pub fn record(&mut self, look: &PoolLook, decision: &Decision) {
        let granted = decision.granted;
        let before = self.granted.replace(granted).unwrap_or_else(|| active(&look.seen.workers));
        if before == granted {
            return;
        }
        let code = decision.why.code.as_str();
        let mut why = decision.why.to_string();
        if granted < decision.wanted {
            why = format!("{why}; there are device slots for {granted} only");
        }
        tracing::info!(model = %self.model, before, granted, code, why, "pool resized");
        let direction = if granted > before { "up" } else { "down" };
        let model = self.model.to_string();
        counter!("forebay_scale_actions_total", "model" => model, "direction" => direction)
            .increment(1);
        self.decisions.truncate(DECISIONS_REPORTED_MAX - 1);
        let at_ms = look.seen.now_ms;
        let code = code.to_owned();
        // The report's `wanted` is the granted size: the name is part of the contract.
        self.decisions.push_front(DecisionReport { at_ms, before, wanted: granted, code, why });
    }

    /// The status of this pool.
    pub fn status(&self, launcher: &str, look: &PoolLook, decision: &Decision) -> PoolStatus {
        let granted = decision.granted;
        let backlog = look.seen.backlog;
        let workers = &look.seen.workers;
        let why = &decision.why;
        let ready = count(workers, Phase::Ready);
        let jobs = backlog.map(|backlog| (backlog.ready + backlog.unacknowledged) as f64);
        // What is known in tokens is known better.
        let (work, rate) = match why.backlog_tokens.zip(why.tokens_per_s) {
            Some((tokens, per_s)) => (Some(tokens), per_s),
            None => (jobs, why.jobs_per_s),
        };
        let capacity = f64::from(ready) * rate;
        let mut problems = look.problems.clone();
        if look.seen.acting {
            problems.push(format!("its launcher ({launcher}) is still at what was decided before"));
        }
        if granted < decision.wanted {
            problems.push(format!(
                "wants {} workers, and there are device slots for {granted}",
                decision.wanted
            ));
        }
        PoolStatus {
            model: self.model.to_string(),
            launcher: launcher.to_owned(),
            workers_min: self.config.min,
            workers_max: self.config.max,
            wanted: granted,
            starting: count(workers, Phase::Starting),
            ready,
            draining: count(workers, Phase::Draining),
            jobs_ready: backlog.map(|backlog| backlog.ready),
            jobs_ready_interactive: look.interactive,
            // A zero that rests on a part of what there is to see is none.
            jobs_unacknowledged: backlog
                .map(|backlog| backlog.unacknowledged)
                .filter(|jobs| *jobs > 0 || !look.seen.partial),
            arrivals_per_s: why.arrivals_per_s,
            worker_jobs_per_s: why.jobs_per_s,
            backlog_tokens: why.backlog_tokens,
            job_tokens: why.tokens_per_job,
            worker_tokens_per_s: why.tokens_per_s,
            cold_start_s: why.cold_start_s,
            drain_time_s: work.filter(|_| capacity > 0.0).map(|work| work / capacity),
            circuits_open: look.circuits_open,
            problems,
            decisions: self.decisions.iter().cloned().collect(),
        }
    }
}

/// Whether a worker is ready and does not call the endpoint of its model.
fn is_away(record: &WorkerRecord) -> bool {
    // Half open it takes jobs, and the first one tries whether the endpoint is back.
    let is_open = record.remote.is_some_and(|remote| remote.circuit == CircuitState::Open);
    is_open && record.state == WorkerState::Ready
}

fn policy(config: &PoolConfig) -> PoolPolicy {
    PoolPolicy {
        workers_min: config.min,
        workers_max: config.max,
        priority: config.priority,
        target_wait_s: config.target_wait_s,
        idle_s: config.idle_s,
        activation_jobs: config.activation_jobs,
        jobs_per_s_prior: config.jobs_per_s_prior,
        cold_start_s_prior: config.cold_start_s_prior,
    }
}
