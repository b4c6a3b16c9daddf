//! The history that this command has observed: rates come from two heartbeats of a worker, bars from many samples.

use std::collections::{BTreeMap, VecDeque};

use forebay_schemas::WorkerRecord;

use super::source::Seen;

/// Samples kept of each pool.
const SAMPLES_MAX: usize = 60;
/// Heartbeats kept of each worker: rates are taken over some six seconds.
const HEARTBEATS_MAX: usize = 4;

/// The history of the pools and workers that exist; it forgets those that are gone.
#[derive(Debug, Default)]
pub(super) struct Past {
    pools: BTreeMap<String, VecDeque<Sample>>,
    workers: BTreeMap<String, Heartbeats>,
}

/// A pool at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Jobs that waited; `None` when that is unknown.
    pub(super) waiting: Option<u64>,
    /// Workers that existed.
    pub(super) workers: u64,
}

/// The last heartbeats of one worker, the oldest first.
#[derive(Debug, Default)]
struct Heartbeats {
    records: VecDeque<WorkerRecord>,
    /// The time of the first heartbeat since which it has been idle, by its own clock.
    idle_since_ms: Option<u64>,
}

/// The rates of a worker over its last heartbeats.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Pace {
    pub(super) jobs_per_s: f64,
    pub(super) tokens_per_s: f64,
    /// The share of the time that it computed, 0 to 1.
    pub(super) busy: f64,
}

impl Past {
    /// Adds what was seen, and a sample of each model's pool.
    pub(super) fn add(&mut self, seen: &Seen, pools: impl IntoIterator<Item = (String, Sample)>) {
        let workers = seen.workers.value.as_deref().unwrap_or_default();
        let mut kept = std::mem::take(&mut self.workers);
        for worker in workers {
            let mut heartbeats = kept.remove(&worker.id).unwrap_or_default();
            heartbeats.add(worker);
            self.workers.insert(worker.id.clone(), heartbeats);
        }
        let mut kept = std::mem::take(&mut self.pools);
        for (model, sample) in pools {
            let mut samples = kept.remove(&model).unwrap_or_default();
            if samples.len() >= SAMPLES_MAX {
                samples.pop_front();
            }
            samples.push_back(sample);
            self.pools.insert(model, samples);
        }
    }

    /// The samples of a pool, the oldest first.
    pub(super) fn samples(&self, model: &str) -> impl Iterator<Item = Sample> {
        self.pools.get(model).into_iter().flatten().copied()
    }

    /// The rates of a worker; `None` before its second heartbeat.
    pub(super) fn pace(&self, worker: &str) -> Option<Pace> {
        self.workers.get(worker)?.pace()
    }

    /// For how long a worker has been idle, as far as was observed.
    pub(super) fn idle_ms(&self, worker: &str) -> Option<u64> {
        let heartbeats = self.workers.get(worker)?;
        Some(heartbeats.records.back()?.beat_at_ms.saturating_sub(heartbeats.idle_since_ms?))
    }
}

impl Heartbeats {
    fn add(&mut self, record: &WorkerRecord) {
        if let Some(last) = self.records.back() {
            if last.started_at_ms != record.started_at_ms || last.beat_at_ms > record.beat_at_ms {
                *self = Self::default(); // another worker under the same name
            } else if last.beat_at_ms == record.beat_at_ms {
                return;
            }
        }
        let idle = record.in_flight == 0;
        let did_nothing = self.records.back().is_none_or(|last| last.jobs_done == record.jobs_done);
        if !idle {
            self.idle_since_ms = None;
        } else if self.idle_since_ms.is_none() || !did_nothing {
            self.idle_since_ms = Some(record.beat_at_ms);
        }
        if self.records.len() >= HEARTBEATS_MAX {
            self.records.pop_front();
        }
        self.records.push_back(record.clone());
    }

    /// Both times are the worker's own, so that this machine's clock does not matter.
    fn pace(&self) -> Option<Pace> {
        let first = self.records.front()?;
        let last = self.records.back()?;
        let ms = last.beat_at_ms.checked_sub(first.beat_at_ms).filter(|ms| *ms > 0)? as f64;
        let per_s = |now: u64, then: u64| now.saturating_sub(then) as f64 * 1_000.0 / ms;
        Some(Pace {
            jobs_per_s: per_s(last.jobs_done, first.jobs_done),
            tokens_per_s: per_s(last.tokens_done, first.tokens_done),
            busy: (last.busy_ms.saturating_sub(first.busy_ms) as f64 / ms).min(1.0),
        })
    }
}
