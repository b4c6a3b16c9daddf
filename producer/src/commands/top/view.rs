//! The data of a frame: rendered as a page, or printed as it is with `--json`.

use std::collections::{BTreeMap, BTreeSet};

use forebay_client::QueueInfo;
use forebay_schemas::{DecisionReport, FleetStatus, PoolStatus, WorkerRecord, WorkerState};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    past::{Past, Sample},
    source::{Latest, Seen},
};
use crate::{output::span, queue_status::QueueStatus};

/// The fleet at one moment, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct View {
    /// When this was assembled, in Unix milliseconds.
    pub(super) at_ms: u64,
    /// The leading autoscaler; absent when there is none, or when that is unknown.
    pub(super) leader: Option<Leader>,
    /// The servers that have not answered yet.
    pub(super) waits_for: Vec<&'static str>,
    /// Problems of the fleet or of the sources.
    pub(super) problems: Vec<String>,
    /// Ordered by model.
    pub(super) pools: Vec<PoolView>,
    /// Ordered by model, then id.
    pub(super) workers: Vec<WorkerView>,
    /// Queues that belong to no model and are not known to be empty.
    pub(super) other_queues: Vec<QueueStatus>,
    /// The decisions of all pools, newest first.
    pub(super) decisions: Vec<DecisionView>,
}

/// The autoscaler that leads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Leader {
    pub(super) id: String,
    pub(super) token: u64,
    /// The age of its status.
    pub(super) age_ms: u64,
    /// The time since it read its configuration.
    pub(super) config_age_ms: u64,
}

/// One model and its workers. Fields that only an autoscaler knows are absent without one.
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
    /// Jobs that workers hold, not yet acknowledged.
    pub(super) in_hand: Option<u64>,
    pub(super) arrivals_per_s: Option<f64>,
    /// Jobs per second of all workers, as observed by this command.
    pub(super) done_per_s: Option<f64>,
    /// Jobs per second that the autoscaler expects of one worker.
    pub(super) worker_jobs_per_s: Option<f64>,
    /// Tokens that the jobs of a model that generates text are expected to need yet, by the autoscaler.
    pub(super) backlog_tokens: Option<f64>,
    pub(super) drain_time_s: Option<f64>,
    /// Waiting jobs at each sample of this command, the oldest first.
    pub(super) waiting_before: Vec<Option<u64>>,
    /// Workers at each sample, the oldest first.
    pub(super) workers_before: Vec<u64>,
}

/// A worker and its rates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct WorkerView {
    #[serde(flatten)]
    pub(super) record: WorkerRecord,
    /// This and the next two are over its last heartbeats; absent before the second.
    pub(super) jobs_per_s: Option<f64>,
    pub(super) tokens_per_s: Option<f64>,
    pub(super) busy: Option<f64>,
    /// For how long it has been idle; absent while it is not.
    pub(super) idle_ms: Option<u64>,
    /// For how long none of its jobs has been completed; absent while it is idle.
    pub(super) no_progress_ms: Option<u64>,
}

/// A decision of the autoscaler about one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DecisionView {
    pub(super) model: String,
    #[serde(flatten)]
    pub(super) report: DecisionReport,
}

/// Adds what was seen to the history.
pub(super) fn remember(past: &mut Past, seen: &Seen) {
    let sample = |pool: PoolView| {
        let workers = u64::from(pool.starting) + u64::from(pool.ready) + u64::from(pool.draining);
        (pool.model, Sample { waiting: pool.waiting, workers })
    };
    let samples: Vec<(String, Sample)> = pools(seen, past).into_iter().map(sample).collect();
    past.add(seen, samples);
}

impl View {
    /// Assembles the view of what was seen last.
    pub(super) fn of(seen: &Seen, past: &Past, now_ms: u64) -> Self {
        let status = status(seen);
        let reported = status.map_or(&[][..], |status| &status.pools);
        let pools = pools(seen, past).into_iter().map(|mut pool| {
            let samples: Vec<Sample> = past.samples(&pool.model).collect();
            pool.waiting_before = samples.iter().map(|sample| sample.waiting).collect();
            pool.workers_before = samples.iter().map(|sample| sample.workers).collect();
            pool
        });
        let queues = seen.queues.value.iter().flat_map(|seen| &seen.queues);
        let other =
            queues.filter(|queue| queue.info.model.is_none() && queue.info.ready != Some(0));
        let decisions = reported.iter().flat_map(|pool| {
            let model = &pool.model;
            pool.decisions
                .iter()
                .map(|report| DecisionView { model: model.clone(), report: report.clone() })
        });
        let mut decisions: Vec<DecisionView> = decisions.collect();
        decisions.sort_by_key(|decision| std::cmp::Reverse(decision.report.at_ms));
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
    let redis = unanswered(&seen.status) || unanswered(&seen.workers);
    let asked = [("Redis", redis), ("RabbitMQ", unanswered(&seen.queues))];
    asked.into_iter().filter_map(|(name, waits)| waits.then_some(name)).collect()
}

fn unanswered<T>(latest: &Latest<T>) -> bool {
    latest.at.is_none() && latest.error.is_none()
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
            add("no autoscaler has published a status: start `forebay-autoscaler`".to_owned());
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

fn failure<T>(latest: &Latest<T>) -> Option<String> {
    let error = latest.error.as_ref()?;
    // In steps of ten seconds, so that two sources that failed together have one message.
    let age_ms = latest.at.map(|at| Instant::now().duration_since(at).as_millis() as u64 / 10_000);
    Some(match age_ms {
        Some(tens @ 1..) => format!("{error} (what is shown is {} old)", span(tens * 10_000)),
        _ => error.clone(),
    })
}

/// The pool of every model that a source knows.
fn pools(seen: &Seen, past: &Past) -> Vec<PoolView> {
    let reported: BTreeMap<&str, &PoolStatus> = status(seen)
        .iter()
        .flat_map(|status| &status.pools)
        .map(|pool| (pool.model.as_str(), pool))
        .collect();
    let mut queues: BTreeMap<&str, Vec<&QueueStatus>> = BTreeMap::new();
    for queue in seen.queues.value.iter().flat_map(|seen| &seen.queues) {
        if let Some(model) = &queue.info.model {
            queues.entry(model.as_str()).or_default().push(queue);
        }
    }
    let mut workers: BTreeMap<&str, Vec<&WorkerRecord>> = BTreeMap::new();
    for worker in records(seen) {
        workers.entry(&worker.model).or_default().push(worker);
    }
    let models = reported.keys().chain(queues.keys()).chain(workers.keys());
    let models: BTreeSet<&str> = models.copied().collect();
    let workers_known = seen.workers.value.is_some();
    let pool = |model: &str| {
        let queues = queues.get(model).map(Vec::as_slice);
        let workers = workers.get(model).map_or(&[][..], Vec::as_slice);
        let mut pool = observed_pool(model, queues, workers, past);
        if !workers_known {
            pool.in_hand = queues.and_then(unacknowledged);
        }
        if let Some(reported) = reported.get(model) {
            add_reported(&mut pool, reported);
        }
        pool
    };
    models.into_iter().map(pool).collect()
}

/// A pool as this command observes it itself.
fn observed_pool(
    model: &str,
    queues: Option<&[&QueueStatus]>,
    workers: &[&WorkerRecord],
    past: &Past,
) -> PoolView {
    let count = |state| workers.iter().filter(|worker| worker.state == state).count() as u32;
    let paces: Vec<f64> =
        workers.iter().filter_map(|it| Some(past.pace(&it.id)?.jobs_per_s)).collect();
    let held = workers.iter().map(|worker| worker.in_flight).fold(0, u64::saturating_add);
    // A consumer without a record, or a queue that can't be asked for its consumers: what is held is unknown.
    let mut seen = queues.into_iter().flatten();
    let is_idle = |queue: &QueueInfo| queue.ready.is_some() && queue.consumers == 0;
    let is_known = !workers.is_empty() || seen.all(|queue| is_idle(&queue.info));
    PoolView {
        model: model.to_owned(),
        starting: count(WorkerState::Starting),
        ready: count(WorkerState::Ready),
        draining: count(WorkerState::Draining),
        waiting: queues.and_then(|queues| queues.iter().map(|queue| queue.info.ready).sum()),
        in_hand: queues.and_then(unacknowledged).or(is_known.then_some(held)),
        done_per_s: (!paces.is_empty()).then(|| paces.iter().sum()),
        ..PoolView::default()
    }
}

/// The count of the management API, if it is known for all of them.
fn unacknowledged(queues: &[&QueueStatus]) -> Option<u64> {
    queues.iter().map(|queue| queue.unacknowledged).sum()
}

/// Adds what only the autoscaler knows. Its counts include workers that have no record yet.
fn add_reported(pool: &mut PoolView, reported: &PoolStatus) {
    *pool = PoolView {
        launcher: Some(reported.launcher.clone()),
        wanted: Some(reported.wanted),
        workers_min: Some(reported.workers_min),
        workers_max: Some(reported.workers_max),
        starting: reported.starting,
        ready: reported.ready,
        draining: reported.draining,
        waiting: pool.waiting.or(reported.jobs_ready),
        in_hand: reported.jobs_unacknowledged.or(pool.in_hand),
        arrivals_per_s: Some(reported.arrivals_per_s),
        worker_jobs_per_s: Some(reported.worker_jobs_per_s),
        backlog_tokens: reported.backlog_tokens,
        drain_time_s: reported.drain_time_s,
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
