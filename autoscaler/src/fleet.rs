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
    /// For how long it had been ready; `None` if it never was.
    pub ready_for_ms: Option<u64>,
    /// Whether it had been told to end, or was there before anybody looked.
    pub expected: bool,
}

/// What is remembered of a worker from one look to the next. All times are by our own clock, of what we saw ourselves:
/// what workers and launchers tell is by clocks that may be set.
#[derive(Debug, Clone, Default)]
struct Known {
    since_ms: u64,
    ready_at_ms: Option<u64>,
    beaten_at_ms: Option<u64>,
    draining_since_ms: Option<u64>,
    cold_start_ms: Option<u64>,
    /// When it told that it last came on, while it holds jobs, and when we first heard that.
    progress: Option<(u64, u64)>,
}

/// The workers of one pool.
#[derive(Debug, Default)]
pub struct Fleet {
    known: BTreeMap<String, Known>,
    /// When it was looked at before; what is there at the first look was launched by somebody else.
    looked_at_ms: Option<u64>,
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
    /// Whether some worker has shown that launches work: it has done something, or has been ready for a while.
    pub proven: bool,
    /// Those that were there before this autoscaler was.
    pub adopted: u32,
}

/// A worker that ends sooner after it was ready has failed to start, for all that it is worth.
pub const READY_MS_MIN: u64 = 30_000;

impl Fleet {
    /// Puts together what is known at `now_ms`. `records` is `None` when the registry could not be read: then nobody is
    /// blamed for what could not be heard.
    pub fn look(
        &mut self,
        now_ms: u64,
        instances: &[Instance],
        records: Option<&[WorkerRecord]>,
        patience: &Patience,
    ) -> Looked {
        let mut looked = Looked::default();
        let mut known = std::mem::take(&mut self.known);
        // Pods before the ends of their programs, which are told beside them.
        for instance in instances {
            if let InstanceState::Ended { how, well } = &instance.state {
                looked.ended.push(self.end_of(now_ms, instance, &mut known, how, *well));
                continue;
            }
            let adopted = !known.contains_key(&instance.name) && self.looked_at_ms.is_none();
            looked.adopted += u32::from(adopted);
            let since_ms = self.first_seen_ms(now_ms, instance);
            let mut this = known
                .remove(&instance.name)
                .unwrap_or_else(|| Known { since_ms, ..Known::default() });
            let record = records
                .and_then(|records| records.iter().find(|record| record.id == instance.name));
            match records {
                Some(_) => this.hear(now_ms, instance, record, adopted),
                None => this.hear_nothing(now_ms),
            }
            looked.proven |= record.is_some_and(|record| record.jobs_done > 0)
                || this.ready_for_ms(now_ms).is_some_and(|ms| ms >= READY_MS_MIN);
            looked.overdue.extend(this.overdue(now_ms, instance, record, patience));
            looked.workers.push(this.seen(now_ms, instance, record));
            self.known.insert(instance.name.clone(), this);
        }
        self.looked_at_ms = Some(now_ms);
        looked
    }

    /// These were told to finish.
    pub fn told_to_end(&mut self, now_ms: u64, names: &[String]) {
        for name in names {
            if let Some(known) = self.known.get_mut(name) {
                known.draining_since_ms.get_or_insert(now_ms);
            }
        }
    }

    /// When one that is seen for the first time was launched: since the last look, or, for all we know, just now.
    fn first_seen_ms(&self, now_ms: u64, instance: &Instance) -> u64 {
        self.looked_at_ms
            .map_or(now_ms, |before| instance.launched_at_ms.clamp(before.min(now_ms), now_ms))
    }

    /// A pod whose program ends is started again under its name; each of its ends is told as `<pod>#...`.
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

    /// Takes note of what is told now.
    fn hear(
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
        self.beaten_at_ms = Some(now_ms);
        if record.in_flight == 0 {
            self.progress = None;
        } else if self.progress.is_none_or(|(told_ms, _)| told_ms != record.progress_at_ms) {
            self.progress = Some((record.progress_at_ms, now_ms));
        }
        if record.state == WorkerState::Ready && self.ready_at_ms.is_none() {
            self.ready_at_ms = Some(now_ms);
            // One that was ready before we came tells nothing of cold starts.
            self.cold_start_ms = (!adopted).then(|| now_ms.saturating_sub(self.since_ms));
        }
    }

    /// Nobody could be heard: every wait for a word begins anew.
    fn hear_nothing(&mut self, now_ms: u64) {
        self.beaten_at_ms = self.beaten_at_ms.map(|_| now_ms);
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
        WorkerSeen {
            id: instance.name.clone(),
            phase,
            age_ms: now_ms.saturating_sub(self.since_ms),
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
        patience: &Patience,
    ) -> Option<Overdue> {
        let overdue = |reason, why| Some(Overdue { name: instance.name.clone(), reason, why });
        let longer = |since_ms: u64, max_ms: u64| now_ms.saturating_sub(since_ms) > max_ms;
        let s = |ms: u64| ms / 1_000;
        if let Some(since) = self.draining_since_ms {
            let why = format!("has been draining for more than {} s", s(patience.drain_ms_max));
            return longer(since, patience.drain_ms_max).then(|| overdue("drain", why)).flatten();
        }
        if let (Some(record), Some((_, heard_ms))) = (record, self.progress)
            && longer(heard_ms, patience.stuck_ms)
        {
            let (jobs, for_s) = (record.in_flight, s(now_ms - heard_ms));
            return overdue(
                "stuck",
                format!("holds {jobs} jobs and made no progress for {for_s} s"),
            );
        }
        if self.ready_at_ms.is_none() && longer(self.since_ms, patience.start_ms_max) {
            return overdue("start", format!("was not ready after {} s", s(patience.start_ms_max)));
        }
        match self.beaten_at_ms {
            Some(beaten) if longer(beaten, patience.silent_ms_max) => {
                let for_s = s(patience.silent_ms_max);
                overdue("silent", format!("has not been heard of for {for_s} s"))
            }
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
        fleet.look(500, &[], Some(&[]), &PATIENCE);
        let looked = fleet.look(1_500, &running(), Some(&[]), &PATIENCE);
        assert_eq!(looked.workers[0].phase, Phase::Starting);
        let starting = WorkerRecord { state: WorkerState::Starting, ..record("a") };
        fleet.look(2_000, &running(), Some(&[starting]), &PATIENCE);
        let looked = fleet.look(3_500, &running(), Some(&[record("a")]), &PATIENCE);
        assert_eq!(looked.workers[0].phase, Phase::Ready);
        assert_eq!(looked.workers[0].cold_start_ms, Some(2_500));
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
        let stuck = WorkerRecord { in_flight: 3, progress_at_ms: 5_000, ..record("a") };
        let mut look = |now_ms, record: &WorkerRecord| {
            fleet.look(now_ms, &running(), Some(std::slice::from_ref(record)), &PATIENCE).overdue
        };
        assert!(look(500, &stuck).is_empty());
        assert!(look(60_000, &stuck).is_empty());
        assert_eq!(look(61_000, &stuck)[0].reason, "stuck");
        let moved = WorkerRecord { progress_at_ms: 5_001, ..stuck };
        assert!(look(61_500, &moved).is_empty());
    }

    #[test]
    fn what_could_not_be_heard_is_held_against_nobody() {
        let mut fleet = Fleet::default();
        let holds = [WorkerRecord { in_flight: 3, ..record("a") }];
        fleet.look(500, &running(), Some(&holds), &PATIENCE);
        // An hour without a registry, in which nothing could be settled either; then it is back, and empty.
        for now_ms in (1_000..3_600_000).step_by(10_000) {
            assert!(fleet.look(now_ms, &running(), None, &PATIENCE).overdue.is_empty());
        }
        assert!(fleet.look(3_600_500, &running(), Some(&[]), &PATIENCE).overdue.is_empty());
        assert!(fleet.look(3_602_500, &running(), Some(&holds), &PATIENCE).overdue.is_empty());
    }

    #[test]
    fn an_old_worker_that_is_adopted_before_it_is_heard_of_is_left_alone() {
        let mut fleet = Fleet::default();
        let now_ms = 10_000_000;
        assert!(fleet.look(now_ms, &running(), Some(&[]), &PATIENCE).overdue.is_empty());
        assert!(fleet.look(now_ms + 500, &running(), None, &PATIENCE).overdue.is_empty());
        // Nor does it matter where the launcher's clock stood.
        let mut ahead = running();
        ahead[0].launched_at_ms = u64::MAX;
        ahead[0].name = "b".into();
        let looked = fleet.look(now_ms + 1_000, &ahead, Some(&[record("b")]), &PATIENCE);
        assert_eq!(looked.workers[0].cold_start_ms, Some(0));
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
    fn an_end_is_told_with_how_long_it_had_been_ready_and_whether_it_was_told_to() {
        let ended = |how: &str, well| InstanceState::Ended { how: how.into(), well };
        let mut fleet = Fleet::default();
        fleet.look(500, &[], Some(&[]), &PATIENCE);
        fleet.look(1_500, &running(), Some(&[]), &PATIENCE);
        let gone = [instance("a", ended("exit code 2", false))];
        let end = fleet.look(2_000, &gone, Some(&[]), &PATIENCE).ended.remove(0);
        assert_eq!((end.ready_for_ms, end.expected), (None, false));

        fleet.look(2_500, &running(), Some(&[record("a")]), &PATIENCE);
        fleet.told_to_end(3_000, &["a".to_owned()]);
        let gone = [instance("a", ended("exit code 0", true))];
        let end = fleet.look(4_500, &gone, Some(&[]), &PATIENCE).ended.remove(0);
        assert_eq!((end.ready_for_ms, end.expected), (Some(2_000), true));
        assert!(fleet.known.is_empty(), "nothing is kept of those that are gone");
    }

    #[test]
    fn a_pod_whose_program_ends_is_known_by_how_long_it_had_been_ready() {
        let mut fleet = Fleet::default();
        fleet.look(500, &running(), Some(&[record("a")]), &PATIENCE);
        let ended = InstanceState::Ended { how: "OOMKilled".into(), well: false };
        let both = [instance("a#7", ended), instance("a", InstanceState::Running)];
        let looked = fleet.look(100_500, &both, Some(&[]), &PATIENCE);
        assert_eq!(looked.ended[0].ready_for_ms, Some(100_000));
        assert_eq!(looked.workers[0].phase, Phase::Starting, "it begins anew");
    }

    #[test]
    fn what_ended_before_anybody_looked_is_held_against_no_launcher() {
        let gone = InstanceState::Ended { how: "exit code 0".into(), well: true };
        let end =
            Fleet::default().look(0, &[instance("a", gone)], Some(&[]), &PATIENCE).ended.remove(0);
        assert!(end.expected);
    }
}
