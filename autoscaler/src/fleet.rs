//! The workers of one pool: what its launcher knows of them, and what they tell of themselves, put together.

use std::collections::BTreeMap;

use forebay_schemas::{WorkerRecord, WorkerState};

use crate::{
    act::{Instance, InstanceState},
    policy::{Phase, WorkerSeen},
};

/// How long workers may take for what has an end, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From launch to ready.
    pub start_ms_max: u64,
    /// Jobs in hand without progress.
    pub stuck_ms: u64,
    /// From the order to drain to the end.
    pub drain_ms_max: u64,
    /// Without a beat, of one that had beaten before.
    pub silent_ms_max: u64,
}

/// A worker that has to be ended, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// Its name.
    pub name: String,
    /// The label of the metric: `start`, `stuck`, `drain` or `silent`.
    pub reason: &'static str,
    /// What to tell people.
    pub why: String,
}

/// A worker that ended, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub how: String,
    /// Whether it was meant to.
    pub well: bool,
    /// Whether it had become ready before.
    pub was_ready: bool,
}

/// What is remembered of a worker from one look to the next.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_field_names)] // they are times, and say in what
struct Known {
    ready_at_ms: Option<u64>,
    beaten_at_ms: Option<u64>,
    draining_since_ms: Option<u64>,
    cold_start_ms: Option<u64>,
}

/// The workers of one pool.
#[derive(Debug, Default)]
pub struct Fleet {
    known: BTreeMap<String, Known>,
    /// Whether it was looked at before: what is there at the first look was launched by somebody else.
    looked: bool,
}

/// What one look at the workers of a pool gave.
#[derive(Debug, Default)]
pub struct Looked {
    /// Those that are there, as the policy takes them.
    pub workers: Vec<WorkerSeen>,
    /// Those that have to be ended.
    pub overdue: Vec<Overdue>,
    /// Those that ended since the last look.
    pub ended: Vec<End>,
    /// Those that became ready since the last look.
    pub became_ready: u32,
    /// Those that were there before this autoscaler was.
    pub adopted: u32,
}

impl Fleet {
    /// Puts together what is known at `now_ms`. `records` is `None` when the registry could not be read: then nobody is
    /// blamed for being silent.
    pub fn look(
        &mut self,
        now_ms: u64,
        instances: &[Instance],
        records: Option<&[WorkerRecord]>,
        patience: &Patience,
    ) -> Looked {
        let mut looked = Looked::default();
        let mut known = std::mem::take(&mut self.known);
        for instance in instances {
            let is_new = !known.contains_key(&instance.name);
            let mut this = known.remove(&instance.name).unwrap_or_default();
            if let InstanceState::Ended { how, well } = &instance.state {
                looked.ended.push(self.end_of(instance, &this, how, *well));
                continue;
            }
            let adopted = is_new && !self.looked;
            looked.adopted += u32::from(adopted);
            if records.is_none() {
                // Nobody could be heard.
                this.beaten_at_ms = this.beaten_at_ms.map(|_| now_ms);
            }
            let record = records
                .and_then(|records| records.iter().find(|record| record.id == instance.name));
            looked.became_ready += u32::from(this.hear(now_ms, instance, record, adopted));
            looked.overdue.extend(this.overdue(
                now_ms,
                instance,
                record,
                records.is_some(),
                patience,
            ));
            looked.workers.push(this.seen(now_ms, instance, record));
            self.known.insert(instance.name.clone(), this);
        }
        self.looked = true;
        looked
    }

    /// A pod whose program ends is started again under its name; each of its ends is told as `<pod>#...`.
    fn end_of(&self, instance: &Instance, this: &Known, how: &str, well: bool) -> End {
        let restarted = instance.name.split_once('#').and_then(|(pod, _)| self.known.get(pod));
        let was_ready = restarted.unwrap_or(this).ready_at_ms.is_some();
        End { name: instance.name.clone(), how: how.to_owned(), well, was_ready }
    }
}

impl Known {
    /// Takes note of what is told now. Whether the worker has just become ready.
    fn hear(
        &mut self,
        now_ms: u64,
        instance: &Instance,
        record: Option<&WorkerRecord>,
        adopted: bool,
    ) -> bool {
        if record.is_some() {
            self.beaten_at_ms = Some(now_ms);
        }
        let drains = record.is_some_and(|record| record.state == WorkerState::Draining)
            || instance.state == InstanceState::Draining;
        if drains {
            self.draining_since_ms.get_or_insert(now_ms);
        }
        let ready = record.is_some_and(|record| record.state == WorkerState::Ready);
        if !ready || self.ready_at_ms.is_some() {
            return false;
        }
        self.ready_at_ms = Some(now_ms);
        // One that was ready before we came tells nothing of cold starts.
        let took_ms = now_ms.saturating_sub(instance.launched_at_ms);
        self.cold_start_ms = (!adopted).then_some(took_ms);
        true
    }

    fn seen(&self, now_ms: u64, instance: &Instance, record: Option<&WorkerRecord>) -> WorkerSeen {
        let phase = match (self.draining_since_ms, self.ready_at_ms) {
            (Some(_), _) => Phase::Draining,
            (None, Some(_)) => Phase::Ready,
            (None, None) => Phase::Starting,
        };
        WorkerSeen {
            id: instance.name.clone(),
            phase,
            age_ms: now_ms.saturating_sub(instance.launched_at_ms),
            in_flight: record.map_or(0, |record| record.in_flight),
            jobs_done: record.map_or(0, |record| record.jobs_done),
            busy_ms: record.map_or(0, |record| record.busy_ms),
            cold_start_ms: self.cold_start_ms,
        }
    }

    fn overdue(
        &self,
        now_ms: u64,
        instance: &Instance,
        record: Option<&WorkerRecord>,
        registry_was_read: bool,
        patience: &Patience,
    ) -> Option<Overdue> {
        let overdue = |reason, why| Some(Overdue { name: instance.name.clone(), reason, why });
        let longer = |since_ms: u64, max_ms: u64| now_ms.saturating_sub(since_ms) > max_ms;
        let s = |ms: u64| ms / 1_000;
        if let Some(since) = self.draining_since_ms {
            let why = format!("has been draining for more than {} s", s(patience.drain_ms_max));
            return longer(since, patience.drain_ms_max).then(|| overdue("drain", why)).flatten();
        }
        if let Some(record) = record {
            // Both by the worker's own clock.
            let moved_at_ms = record.progress_at_ms.max(record.started_at_ms);
            let still_ms = record.beat_at_ms.saturating_sub(moved_at_ms);
            if record.in_flight > 0 && still_ms > patience.stuck_ms {
                let (jobs, for_s) = (record.in_flight, s(still_ms));
                return overdue(
                    "stuck",
                    format!("holds {jobs} jobs and made no progress for {for_s} s"),
                );
            }
        }
        if self.ready_at_ms.is_none() && longer(instance.launched_at_ms, patience.start_ms_max) {
            return overdue("start", format!("was not ready after {} s", s(patience.start_ms_max)));
        }
        match self.beaten_at_ms {
            Some(beaten) if registry_was_read && longer(beaten, patience.silent_ms_max) => overdue(
                "silent",
                format!("has not been heard of for {} s", s(patience.silent_ms_max)),
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    const PATIENCE: Patience = Patience {
        start_ms_max: 600_000,
        stuck_ms: 60_000,
        drain_ms_max: 120_000,
        silent_ms_max: 30_000,
    };

    fn instance(name: &str, state: InstanceState) -> Instance {
        Instance {
            name: name.into(),
            model: "m".into(),
            device: None,
            launched_at_ms: 1_000,
            state,
        }
    }

    fn running() -> Vec<Instance> {
        vec![instance("a", InstanceState::Running)]
    }

    #[test]
    fn a_worker_starts_until_it_says_that_it_is_ready_and_its_cold_start_is_measured() {
        let mut fleet = Fleet::default();
        let looked = fleet.look(1_500, &running(), Some(&[]), &PATIENCE);
        assert_eq!(looked.workers[0].phase, Phase::Starting);
        let starting = WorkerRecord { state: WorkerState::Starting, ..record("a") };
        fleet.look(2_000, &running(), Some(&[starting]), &PATIENCE);
        let looked = fleet.look(3_500, &running(), Some(&[record("a")]), &PATIENCE);
        assert_eq!((looked.workers[0].phase, looked.became_ready), (Phase::Ready, 1));
        assert_eq!(looked.workers[0].cold_start_ms, Some(2_500));
        let looked = fleet.look(4_000, &running(), Some(&[record("a")]), &PATIENCE);
        assert_eq!(looked.became_ready, 0);
    }

    #[test]
    fn workers_that_are_there_at_the_first_look_are_adopted() {
        let mut fleet = Fleet::default();
        assert_eq!(fleet.look(0, &running(), Some(&[]), &PATIENCE).adopted, 1);
        let two = [running(), vec![instance("b", InstanceState::Running)]].concat();
        assert_eq!(fleet.look(500, &two, Some(&[]), &PATIENCE).adopted, 0);
    }

    #[test]
    fn one_that_holds_jobs_without_progress_is_overdue() {
        let mut fleet = Fleet::default();
        let mut stuck = WorkerRecord { in_flight: 3, beat_at_ms: 70_000, ..record("a") };
        stuck.progress_at_ms = 5_000;
        let looked = fleet.look(500, &running(), Some(&[stuck.clone()]), &PATIENCE);
        assert_eq!(looked.overdue[0].reason, "stuck");
        // By another clock than ours it is not.
        stuck.progress_at_ms = 65_000;
        let looked = fleet.look(9_000_000, &running(), Some(&[stuck]), &PATIENCE);
        assert!(looked.overdue.is_empty(), "{looked:?}");
    }

    #[test]
    fn one_that_never_becomes_ready_and_one_that_never_ends_are_overdue() {
        let mut fleet = Fleet::default();
        assert!(fleet.look(1_500, &running(), Some(&[]), &PATIENCE).overdue.is_empty());
        let looked = fleet.look(700_000, &running(), Some(&[]), &PATIENCE);
        assert_eq!(looked.overdue[0].reason, "start");
        let draining = vec![instance("a", InstanceState::Draining)];
        assert!(fleet.look(700_500, &draining, Some(&[]), &PATIENCE).overdue.is_empty());
        let looked = fleet.look(900_000, &draining, Some(&[]), &PATIENCE);
        assert_eq!(looked.overdue[0].reason, "drain");
    }

    #[test]
    fn silence_counts_only_while_the_registry_can_be_read() {
        let mut fleet = Fleet::default();
        fleet.look(1_500, &running(), Some(&[record("a")]), &PATIENCE);
        assert!(fleet.look(60_000, &running(), None, &PATIENCE).overdue.is_empty());
        // Just after the registry is back nobody can have told of itself yet.
        assert!(fleet.look(60_500, &running(), Some(&[]), &PATIENCE).overdue.is_empty());
        let looked = fleet.look(90_500, &running(), Some(&[]), &PATIENCE);
        assert_eq!(looked.overdue[0].reason, "silent");
    }

    #[test]
    fn an_end_is_told_with_whether_it_had_been_ready() {
        let mut fleet = Fleet::default();
        fleet.look(1_500, &running(), Some(&[]), &PATIENCE);
        let gone = InstanceState::Ended { how: "exit code 2".into(), well: false };
        let looked = fleet.look(2_000, &[instance("a", gone)], Some(&[]), &PATIENCE);
        assert!(looked.workers.is_empty());
        assert!(!looked.ended[0].was_ready && !looked.ended[0].well);
        assert!(fleet.known.is_empty(), "nothing is kept of those that are gone");
    }
}
