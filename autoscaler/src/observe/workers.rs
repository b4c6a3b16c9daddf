//! The workers of one model and launcher: what the launcher lists and what the workers report, put together.

use std::collections::BTreeMap;

use forebay_fabric::store::Registered;
use forebay_schemas::{WorkerRecord, WorkerState};

use crate::{
    act::launcher::{Instance, InstanceState},
    decide::{Answer, Generating, Phase, WorkerSeen},
};

#[cfg(test)]
mod tests;

/// A worker that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub how: String,
    /// Whether it ended as it should.
    pub well: bool,
    /// For how long it had been ready; `None` if it never was.
    pub ready_for_ms: Option<u64>,
    /// Whether it had been asked to end, or was there before the first look.
    pub expected: bool,
}

/// A worker between two looks. All times are by our own clock and of what we saw ourselves: the times that workers and
/// launchers report are by clocks that may be set.
#[derive(Debug, Clone, Default)]
struct Known {
    since_ms: u64,
    ready_at_ms: Option<u64>,
    heartbeat_at_ms: Option<u64>,
    draining_since_ms: Option<u64>,
    cold_start_ms: Option<u64>,
    /// While it holds jobs: the time of its last progress as it reported it, and when we first saw that report.
    progress: Option<(u64, u64)>,
}

/// Follows the workers of one model and launcher from look to look.
#[derive(Debug, Default)]
pub struct ObservedWorkers {
    known: BTreeMap<String, Known>,
    /// The time of the look before; what is there at the first look was launched by an earlier autoscaler.
    looked_at_ms: Option<u64>,
}

/// The workers at one look.
#[derive(Debug, Default)]
pub struct WorkersLook {
    /// Those that have not ended.
    pub workers: Vec<WorkerSeen>,
    /// Those that ended since the look before.
    pub ended: Vec<End>,
    /// Whether some worker has shown that launches work: it has settled a job, or has been ready for a while.
    pub proven: bool,
    /// How many were there before this autoscaler was.
    pub adopted: u32,
    /// How many are there whose record can't be read.
    pub unreadable: u32,
}

/// A worker that ends sooner after it was ready counts as one that failed to start.
pub const READY_MS_MIN: u64 = 30_000;

impl ObservedWorkers {
    /// Takes in what is there at `now_ms`. `registry` is `None` when it could not be read, or takes no writes: then no
    /// time-out runs on, since a worker may have reported what we could not read.
    pub fn look(
        &mut self,
        now_ms: u64,
        instances: &[Instance],
        registry: Option<&Registered>,
    ) -> WorkersLook {
        let mut look = WorkersLook::default();
        let mut known = std::mem::take(&mut self.known);
        // A pod comes before the ends of its containers, which are listed beside it.
        for instance in instances {
            if let InstanceState::Ended { how, well } = &instance.state {
                look.ended.push(self.end_of(now_ms, instance, &mut known, how, *well));
                continue;
            }
            let adopted = !known.contains_key(&instance.name) && self.looked_at_ms.is_none();
            look.adopted += u32::from(adopted);
            let since_ms = self.first_seen_ms(now_ms, instance);
            let mut this = known
                .remove(&instance.name)
                .unwrap_or_else(|| Known { since_ms, ..Known::default() });
            let record = registry.and_then(|registry| {
                registry.workers.iter().find(|record| record.id == instance.name)
            });
            let unreadable =
                registry.is_some_and(|registry| registry.unreadable.contains(&instance.name));
            look.unreadable += u32::from(unreadable);
            match registry {
                Some(_) => this.update(now_ms, instance, record, adopted),
                None => this.restart_timers(now_ms),
            }
            if unreadable {
                this.reported_unreadably(now_ms);
            }
            look.proven |= record.is_some_and(|record| record.jobs_done > 0)
                || this.ready_for_ms(now_ms).is_some_and(|ms| ms >= READY_MS_MIN);
            look.workers.push(WorkerSeen {
                // It may hold some, which is more than is known of an idle one.
                in_flight: record.map_or(u64::from(unreadable), |record| record.in_flight),
                ..this.seen(now_ms, instance, record)
            });
            self.known.insert(instance.name.clone(), this);
        }
        self.looked_at_ms = Some(now_ms);
        look
    }

    /// Records that these workers were asked to drain.
    pub fn asked_to_drain(&mut self, now_ms: u64, names: &[String]) {
        for name in names {
            if let Some(known) = self.known.get_mut(name) {
                known.draining_since_ms.get_or_insert(now_ms);
            }
        }
    }

    /// Takes in what a worker answered when it was asked: whatever it was, it is there.
    pub fn answered(&mut self, now_ms: u64, worker: &mut WorkerSeen, answer: Answer) {
        worker.answer = answer;
        let Some(known) = self.known.get_mut(&worker.id) else { return };
        match answer {
            Answer::NotAsked | Answer::Unreachable | Answer::Silent => {}
            Answer::Ready => known.heartbeat_at_ms = Some(now_ms),
            Answer::Waits => {
                // Without the server that it waits for it makes no progress.
                known.heartbeat_at_ms = Some(now_ms);
                known.progress = None;
            }
        }
    }

    /// When a worker that is seen for the first time was launched: since the look before, or, if there was none, now.
    fn first_seen_ms(&self, now_ms: u64, instance: &Instance) -> u64 {
        self.looked_at_ms
            .map_or(now_ms, |before| instance.launched_at_ms.clamp(before.min(now_ms), now_ms))
    }

    /// A pod whose container ends is started again under its name; each of its ends is listed as `<pod>#...`.
    fn end_of(
        &mut self,
        now_ms: u64,
        instance: &Instance,
        known: &mut BTreeMap<String, Known>,
        how: &str,
        well: bool,
    ) -> End {
        let pod = instance.name.split_once('#').map(|(pod, _)| pod);
        let restarted = pod.and_then(|pod| known.get_mut(pod).or(self.known.get_mut(pod)));
        let first_look = self.looked_at_ms.is_none();
        let (ready_for_ms, expected) = match restarted {
            Some(pod) => {
                let ready_for_ms = pod.ready_for_ms(now_ms);
                pod.ready_at_ms = None;
                (ready_for_ms, pod.draining_since_ms.is_some())
            }
            None => known.remove(&instance.name).map_or((None, first_look), |this| {
                (this.ready_for_ms(now_ms), this.draining_since_ms.is_some())
            }),
        };
        End { name: instance.name.clone(), how: how.to_owned(), well, ready_for_ms, expected }
    }
}

impl Known {
    fn ready_for_ms(&self, now_ms: u64) -> Option<u64> {
        self.ready_at_ms.map(|at_ms| now_ms.saturating_sub(at_ms))
    }

    /// Takes in what the launcher and the worker report now.
    fn update(
        &mut self,
        now_ms: u64,
        instance: &Instance,
        record: Option<&WorkerRecord>,
        adopted: bool,
    ) {
        let drains = record.is_some_and(|record| record.state == WorkerState::Draining)
            || instance.state == InstanceState::Draining;
        if drains {
            self.draining_since_ms.get_or_insert(now_ms);
        }
        let Some(record) = record else { return };
        self.heartbeat_at_ms = Some(now_ms);
        if record.in_flight == 0 {
            self.progress = None;
        } else if self.progress.is_none_or(|(at_ms, _)| at_ms != record.progress_at_ms) {
            self.progress = Some((record.progress_at_ms, now_ms));
        }
        if record.state == WorkerState::Ready && self.ready_at_ms.is_none() {
            self.ready_at_ms = Some(now_ms);
            // How long an adopted worker took to start was not seen.
            self.cold_start_ms = (!adopted).then(|| now_ms.saturating_sub(self.since_ms));
        }
    }

    /// A worker of another version: it is there, and as far as is known it is ready.
    fn reported_unreadably(&mut self, now_ms: u64) {
        self.heartbeat_at_ms = Some(now_ms);
        self.progress = None;
        self.ready_at_ms.get_or_insert(now_ms);
    }

    /// The registry could not be read: the time-outs of starting, stuck and silent workers begin again.
    fn restart_timers(&mut self, now_ms: u64) {
        self.heartbeat_at_ms = self.heartbeat_at_ms.map(|_| now_ms);
        self.progress = None;
        if self.ready_at_ms.is_none() {
            self.since_ms = now_ms;
        }
    }

    fn seen(&self, now_ms: u64, instance: &Instance, record: Option<&WorkerRecord>) -> WorkerSeen {
        let phase = match (self.draining_since_ms, self.ready_at_ms) {
            (Some(_), _) => Phase::Draining,
            (None, Some(_)) => Phase::Ready,
            (None, None) => Phase::Starting,
        };
        let since = |at_ms: u64| now_ms.saturating_sub(at_ms);
        WorkerSeen {
            id: instance.name.clone(),
            phase,
            age_ms: since(self.since_ms),
            jobs_done: record.map_or(0, |record| record.jobs_done),
            busy_ms: record.map_or(0, |record| record.busy_ms),
            cold_start_ms: self.cold_start_ms,
            draining_ms: self.draining_since_ms.map(since),
            stalled_ms: record.and(self.progress).map(|(_, first_seen_ms)| since(first_seen_ms)),
            silent_ms: self.heartbeat_at_ms.map(since),
            generates: record.and_then(generating),
            ..WorkerSeen::default()
        }
    }
}

/// The work of a worker in tokens; `None` where a part of it is unknown, as of one of an earlier version.
fn generating(record: &WorkerRecord) -> Option<Generating> {
    let counted = record.generate?;
    Some(Generating {
        jobs: counted.running.saturating_add(counted.waiting),
        running_tokens: counted.running_tokens?,
        waiting_tokens: counted.waiting_tokens?,
        tokens_per_job: counted.tokens_per_job,
        tokens_done: record.tokens_done,
        is_full: counted.waiting > 0 || counted.running >= counted.running_max?,
        pages_held: counted.pages_held?,
    })
}
