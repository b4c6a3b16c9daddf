//! What this command has seen so far: rates come from two beats of a worker, bars from many looks.

use std::collections::{BTreeMap, VecDeque};

use forebay_schemas::WorkerRecord;

use super::{source::Seen, view};

/// Looks that are kept of each pool.
const SAMPLES_MAX: usize = 60;
/// Beats that are kept of each worker: rates are taken over some six seconds.
const BEATS_MAX: usize = 4;

/// What was seen; of pools and workers that are gone, nothing.
#[derive(Debug, Default)]
pub(super) struct Past {
    pools: BTreeMap<String, VecDeque<Sample>>,
    workers: BTreeMap<String, Beats>,
}

/// One look at a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Jobs that waited; `None` when nobody could tell.
    pub(super) waiting: Option<u64>,
    /// Workers that were there.
    pub(super) workers: u64,
}

/// The last beats of one worker, the oldest first.
#[derive(Debug, Default)]
struct Beats {
    records: VecDeque<WorkerRecord>,
    /// The first beat since which it has had nothing to do, by its own clock.
    idle_since_ms: Option<u64>,
}

/// How a worker has fared over its last beats.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Pace {
    pub(super) jobs_per_s: f64,
    pub(super) tokens_per_s: f64,
    /// The share of the time that it computed, 0 to 1.
    pub(super) busy: f64,
}

impl Past {
    /// Adds one look.
    pub(super) fn note(&mut self, seen: &Seen) {
        let workers = seen.workers.value.as_deref().unwrap_or_default();
        let mut kept = std::mem::take(&mut self.workers);
        for worker in workers {
            let mut beats = kept.remove(&worker.id).unwrap_or_default();
            beats.add(worker);
            self.workers.insert(worker.id.clone(), beats);
        }
        let mut kept = std::mem::take(&mut self.pools);
        for pool in view::pools(seen, self) {
            let mut samples = kept.remove(&pool.model).unwrap_or_default();
            if samples.len() >= SAMPLES_MAX {
                samples.pop_front();
            }
            let workers =
                u64::from(pool.starting) + u64::from(pool.ready) + u64::from(pool.draining);
            samples.push_back(Sample { waiting: pool.waiting, workers });
            self.pools.insert(pool.model, samples);
        }
    }

    /// The looks at a pool, the oldest first.
    pub(super) fn samples(&self, model: &str) -> impl Iterator<Item = Sample> {
        self.pools.get(model).into_iter().flatten().copied()
    }

    /// How a worker fares; `None` before its second beat.
    pub(super) fn pace(&self, worker: &str) -> Option<Pace> {
        self.workers.get(worker)?.pace()
    }

    /// For how long a worker has had nothing to do, as far as was seen.
    pub(super) fn idle_ms(&self, worker: &str) -> Option<u64> {
        let beats = self.workers.get(worker)?;
        Some(beats.records.back()?.beat_at_ms.saturating_sub(beats.idle_since_ms?))
    }
}

impl Beats {
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
        if self.records.len() >= BEATS_MAX {
            self.records.pop_front();
        }
        self.records.push_back(record.clone());
    }

    /// Both times are the worker's own, so that it does not matter what this machine's clock says.
    fn pace(&self) -> Option<Pace> {
        let (first, last) = (self.records.front()?, self.records.back()?);
        let ms = last.beat_at_ms.checked_sub(first.beat_at_ms).filter(|ms| *ms > 0)? as f64;
        let per_s = |now: u64, then: u64| now.saturating_sub(then) as f64 * 1_000.0 / ms;
        Some(Pace {
            jobs_per_s: per_s(last.jobs_done, first.jobs_done),
            tokens_per_s: per_s(last.tokens_done, first.tokens_done),
            busy: (last.busy_ms.saturating_sub(first.busy_ms) as f64 / ms).min(1.0),
        })
    }
}
