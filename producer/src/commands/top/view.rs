//! What a frame tells, as data: drawn for people, or written as it is with `--json`.

use std::collections::{BTreeMap, BTreeSet};

use forebay_producer::QueueInfo;
use forebay_schemas::{DecisionReport, FleetStatus, PoolStatus, WorkerRecord, WorkerState};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    past::{Past, Sample},
    source::{Heard, Seen},
};
use crate::output::span;

/// The fleet at one moment, as far as anybody could tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct View {
    /// When this was put together, in Unix milliseconds.
    pub(super) at_ms: u64,
    /// Who leads; absent when nobody does, or nobody could be asked.
    pub(super) leader: Option<Leader>,
    /// Who has not answered yet.
    pub(super) waits_for: Vec<&'static str>,
    /// What is wrong, with the fleet or with those who were asked.
    pub(super) problems: Vec<String>,
    /// Ordered by model.
    pub(super) pools: Vec<PoolView>,
    /// Ordered by model, then id.
    pub(super) workers: Vec<WorkerView>,
    /// Queues of no model that hold something.
    pub(super) other_queues: Vec<QueueInfo>,
    /// Of all pools, newest first.
    pub(super) decisions: Vec<DecisionView>,
}

/// The autoscaler that leads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Leader {
    pub(super) id: String,
    pub(super) token: u64,
    /// How old its status is.
    pub(super) age_ms: u64,
    /// How long ago it read its configuration.
    pub(super) config_age_ms: u64,
}

/// One model. What only an autoscaler knows is absent without one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct PoolView {
    pub(super) model: String,
    pub(super) launcher: Option<String>,
    pub(super) wanted: Option<u32>,
    pub(super) workers_min: Option<u32>,
    pub(super) workers_max: Option<u32>,
    pub(super) starting: u32,
    pub(super) ready: u32,
    pub(super) draining: u32,
    /// Jobs that wait in both lanes.
    pub(super) waiting: Option<u64>,
    /// Jobs that workers hold.
    pub(super) in_hand: Option<u64>,
    pub(super) arrivals_per_s: Option<f64>,
    /// What all workers do, as seen by this command.
    pub(super) done_per_s: Option<f64>,
    /// What the autoscaler expects of one worker.
    pub(super) worker_jobs_per_s: Option<f64>,
    pub(super) drain_time_s: Option<f64>,
    /// What waited at each look of this command, the oldest first.
    pub(super) waiting_before: Vec<Option<u64>>,
    /// Workers at each look, the oldest first.
    pub(super) workers_before: Vec<u64>,
}

/// A worker, and how it fares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct WorkerView {
    #[serde(flatten)]
    pub(super) record: WorkerRecord,
    /// These three over its last beats; absent before the second.
    pub(super) jobs_per_s: Option<f64>,
    pub(super) tokens_per_s: Option<f64>,
    pub(super) busy: Option<f64>,
    /// For how long it has had nothing to do; absent while it has.
    pub(super) idle_ms: Option<u64>,
    /// For how long nothing that it has in hand has ended; absent while it is idle.
    pub(super) no_progress_ms: Option<u64>,
}

/// A decision, and whose it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DecisionView {
    pub(super) model: String,
    #[serde(flatten)]
    pub(super) told: DecisionReport,
}

impl View {
    pub(super) fn of(seen: &Seen, past: &Past, now_ms: u64) -> Self {
        let status = status(seen);
        let told = status.map_or(&[][..], |status| &status.pools);
        let pools = pools(seen, past).into_iter().map(|mut pool| {
            let samples: Vec<Sample> = past.samples(&pool.model).collect();
            pool.waiting_before = samples.iter().map(|sample| sample.waiting).collect();
            pool.workers_before = samples.iter().map(|sample| sample.workers).collect();
            pool
        });
        let queues = seen.queues.value.iter().flat_map(|seen| &seen.queues);
        let other = queues.filter(|queue| queue.model.is_none() && queue.ready > 0);
        let decisions = told.iter().flat_map(|pool| {
            let model = &pool.model;
            let view =
                |told: &DecisionReport| DecisionView { model: model.clone(), told: told.clone() };
            pool.decisions.iter().map(view)
        });
        let mut decisions: Vec<DecisionView> = decisions.collect();
        decisions.sort_by_key(|decision| std::cmp::Reverse(decision.told.at_ms));
        let mut workers: Vec<WorkerView> =
            records(seen).iter().map(|it| worker(it, past)).collect();
        workers
            .sort_by(|a, b| (&a.record.model, &a.record.id).cmp(&(&b.record.model, &b.record.id)));
        Self {
            at_ms: now_ms,
            leader: status.filter(|status| !status.leader.is_empty()).map(|status| Leader {
                id: status.leader.clone(),
                token: status.token,
                age_ms: now_ms.saturating_sub(status.at_ms),
                config_age_ms: now_ms.saturating_sub(status.config_read_at_ms),
            }),
            waits_for: waits_for(seen),
            problems: problems(seen),
            pools: pools.collect(),
            workers,
            other_queues: other.cloned().collect(),
            decisions,
        }
    }
}

fn status(seen: &Seen) -> Option<&FleetStatus> {
    seen.status.value.as_ref()?.as_ref()
}

fn records(seen: &Seen) -> &[WorkerRecord] {
    seen.workers.value.as_deref().unwrap_or_default()
}

fn waits_for(seen: &Seen) -> Vec<&'static str> {
    let redis = unheard(&seen.status) || unheard(&seen.workers);
    let asked = [("Redis", redis), ("RabbitMQ", unheard(&seen.queues))];
    asked.into_iter().filter_map(|(name, waits)| waits.then_some(name)).collect()
}

fn unheard<T>(heard: &Heard<T>) -> bool {
    heard.at.is_none() && heard.error.is_none()
}

/// The sources' own problems first: with those, what else is shown may be old.
fn problems(seen: &Seen) -> Vec<String> {
    let mut problems = Vec::new();
    let mut add = |problem: String| {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    };
    for failure in [failure(&seen.workers), failure(&seen.status), failure(&seen.queues)] {
        failure.into_iter().for_each(&mut add);
    }
    let queues = seen.queues.value.iter();
    queues.filter_map(|queues| queues.management_error.clone()).for_each(&mut add);
    match &seen.status.value {
        Some(None) if seen.status.error.is_none() => {
            add("no autoscaler tells of the fleet: start `forebay-autoscaler`".to_owned());
        }
        Some(Some(status)) => {
            if status.leader.is_empty() {
                add("no autoscaler leads".to_owned());
            }
            status.problems.iter().cloned().for_each(&mut add);
            for pool in &status.pools {
                pool.problems.iter().for_each(|it| add(format!("{}: {it}", pool.model)));
            }
        }
        _ => {}
    }
    problems
}

fn failure<T>(heard: &Heard<T>) -> Option<String> {
    let error = heard.error.as_ref()?;
    // Whole steps of ten seconds: two sources that failed together say the same.
    let age_ms = heard.at.map(|at| Instant::now().duration_since(at).as_millis() as u64 / 10_000);
    Some(match age_ms {
        Some(tens @ 1..) => format!("{error} (what is shown is {} old)", span(tens * 10_000)),
        _ => error.clone(),
    })
}

/// Every model that anybody knows of.
pub(super) fn pools(seen: &Seen, past: &Past) -> Vec<PoolView> {
    let told: BTreeMap<&str, &PoolStatus> = status(seen)
        .iter()
        .flat_map(|status| &status.pools)
        .map(|pool| (pool.model.as_str(), pool))
        .collect();
    let mut queues: BTreeMap<&str, Vec<&QueueInfo>> = BTreeMap::new();
    for queue in seen.queues.value.iter().flat_map(|seen| &seen.queues) {
        if let Some(model) = &queue.model {
            queues.entry(model.as_str()).or_default().push(queue);
        }
    }
    let mut workers: BTreeMap<&str, Vec<&WorkerRecord>> = BTreeMap::new();
    for worker in records(seen) {
        workers.entry(&worker.model).or_default().push(worker);
    }
    let models = told.keys().chain(queues.keys()).chain(workers.keys());
    let models: BTreeSet<&str> = models.copied().collect();
    let knows = seen.workers.value.is_some();
    let pool = |model: &str| {
        let queues = queues.get(model).map(Vec::as_slice);
        let workers = workers.get(model).map_or(&[][..], Vec::as_slice);
        let mut pool = seen_pool(model, queues, workers, past);
        if !knows {
            pool.in_hand = queues.and_then(unacknowledged);
        }
        if let Some(told) = told.get(model) {
            add_told(&mut pool, told);
        }
        pool
    };
    models.into_iter().map(pool).collect()
}

/// A pool as this command itself sees it.
fn seen_pool(
    model: &str,
    queues: Option<&[&QueueInfo]>,
    workers: &[&WorkerRecord],
    past: &Past,
) -> PoolView {
    let count = |state| workers.iter().filter(|worker| worker.state == state).count() as u32;
    let paces: Vec<f64> =
        workers.iter().filter_map(|it| Some(past.pace(&it.id)?.jobs_per_s)).collect();
    let held = workers.iter().map(|worker| worker.in_flight).fold(0, u64::saturating_add);
    PoolView {
        model: model.to_owned(),
        starting: count(WorkerState::Starting),
        ready: count(WorkerState::Ready),
        draining: count(WorkerState::Draining),
        waiting: queues.map(|queues| queues.iter().map(|queue| queue.ready).sum()),
        in_hand: queues.and_then(unacknowledged).or(Some(held)),
        done_per_s: (!paces.is_empty()).then(|| paces.iter().sum()),
        ..PoolView::default()
    }
}

/// As the management API told, if it did.
fn unacknowledged(queues: &[&QueueInfo]) -> Option<u64> {
    queues.iter().map(|queue| queue.unacknowledged).sum()
}

/// Adds what only the autoscaler knows. It counts workers that have no record yet, too.
fn add_told(pool: &mut PoolView, told: &PoolStatus) {
    *pool = PoolView {
        launcher: Some(told.launcher.clone()),
        wanted: Some(told.wanted),
        workers_min: Some(told.workers_min),
        workers_max: Some(told.workers_max),
        starting: told.starting,
        ready: told.ready,
        draining: told.draining,
        waiting: pool.waiting.or(told.jobs_ready),
        in_hand: told.jobs_unacknowledged.or(pool.in_hand),
        arrivals_per_s: Some(told.arrivals_per_s),
        worker_jobs_per_s: Some(told.worker_jobs_per_s),
        drain_time_s: told.drain_time_s,
        ..std::mem::take(pool)
    };
}

fn worker(record: &WorkerRecord, past: &Past) -> WorkerView {
    let pace = past.pace(&record.id);
    let idle = record.in_flight == 0;
    WorkerView {
        jobs_per_s: pace.map(|pace| pace.jobs_per_s),
        tokens_per_s: pace.map(|pace| pace.tokens_per_s),
        busy: pace.map(|pace| pace.busy),
        idle_ms: if idle { past.idle_ms(&record.id) } else { None },
        no_progress_ms: (!idle).then(|| record.beat_at_ms.saturating_sub(record.progress_at_ms)),
        record: record.clone(),
    }
}
