//! How many jobs have arrived, from what can be counted: those that wait, those in hand, those done.
//!
//! The three are counted at different moments: a queue is looked at now, a worker sent its record up to two seconds
//! ago. A job that has just been taken is missing in the sum until its worker reports it, so the sum dips and recovers.
//! The highest sum counts as what has arrived. When the sum stays low, the difference is written off: jobs have
//! expired, or a worker is gone with the count of what it had done.

use std::collections::{BTreeMap, VecDeque};

use forebay_schemas::{WorkerRecord, worker::HEARTBEAT_INTERVAL_MS};

/// A sum that stays low for so long has lost something. Two heartbeats, and a little.
const DIP_MS_MAX: u64 = 2 * HEARTBEAT_INTERVAL_MS + 1_000;

/// Workers that went and are remembered; jobs of the others are counted again if they come back.
const GONE_MAX: usize = 1_024;

/// The jobs of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Those that have arrived since the first look, and those that were there then.
    pub arrived: u64,
    /// Those that workers hold.
    pub in_hand: u64,
}

/// Counts the arrivals of one model.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// Jobs done by the workers that are here, as last reported.
    done: BTreeMap<String, u64>,
    /// Jobs done by those that went.
    done_by_gone: u64,
    /// Those that went and may come back, since it was only their records that were gone.
    gone: BTreeMap<String, u64>,
    arrived: u64,
    /// Added to the sum; it grows with each loss.
    lost: u64,
    begun: bool,
    /// The sums of the last while, with their times; bounded by [`DIP_MS_MAX`] and the tick.
    late: VecDeque<(u64, u64)>,
}

impl Arrivals {
    /// The jobs that have arrived since the first look and those in hand, after one more look: at the jobs `waiting` in
    /// queues, and at the workers' records.
    pub fn look(&mut self, now_ms: u64, waiting: u64, workers: &[&WorkerRecord]) -> Counted {
        let here: BTreeMap<String, u64> =
            workers.iter().map(|worker| (worker.id.clone(), worker.jobs_done)).collect();
        self.follow(here);
        let in_hand: u64 = workers.iter().map(|worker| worker.in_flight).sum();
        let sum = waiting + in_hand + self.done.values().sum::<u64>() + self.done_by_gone;
        if !self.begun {
            // The arrival of what was there before was not seen.
            self.begun = true;
            self.arrived = sum;
        }
        self.arrived = self.arrived.max(sum + self.lost);
        self.find_losses(now_ms, sum);
        // Jobs missing in the sum were taken by a worker that has not reported them yet.
        let missing = self.arrived.saturating_sub(sum + self.lost);
        Counted { arrived: self.arrived, in_hand: in_hand + missing }
    }

    /// Workers come, go, come back with what they had done, and start again from zero under their name.
    fn follow(&mut self, here: BTreeMap<String, u64>) {
        for (id, done) in std::mem::take(&mut self.done) {
            match here.get(&id) {
                Some(now) if *now >= done => {}
                Some(_) => self.done_by_gone += done,
                None => {
                    self.done_by_gone += done;
                    if self.gone.len() < GONE_MAX {
                        self.gone.insert(id, done);
                    }
                }
            }
        }
        for (id, now) in &here {
            if let Some(done) = self.gone.remove(id)
                && *now >= done
            {
                self.done_by_gone -= done;
            }
        }
        self.done = here;
    }

    /// When even the highest sum of the last while is below the count, the difference is lost for good.
    fn find_losses(&mut self, now_ms: u64, sum: u64) {
        self.late.push_back((now_ms, sum));
        // One from before the while stays: it shows that the sums cover all of it.
        while self.late.get(1).is_some_and(|(at_ms, _)| at_ms + DIP_MS_MAX <= now_ms) {
            self.late.pop_front();
        }
        let covered = self.late.front().is_some_and(|(at_ms, _)| at_ms + DIP_MS_MAX <= now_ms);
        let highest = self.late.iter().map(|(_, sum)| *sum).max().unwrap_or(0);
        if covered && highest + self.lost < self.arrived {
            self.lost = self.arrived - highest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    fn worker(id: &str, in_flight: u64, jobs_done: u64) -> WorkerRecord {
        WorkerRecord { in_flight, jobs_done, ..record(id) }
    }

    #[test]
    fn a_job_counts_once_on_its_way_from_the_queue_to_its_end() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.look(0, 0, &[]).arrived, 0);
        assert_eq!(arrivals.look(500, 3, &[]).arrived, 3);
        // Two were taken, and their worker has not reported them yet.
        assert_eq!(arrivals.look(1_000, 1, &[&worker("a", 0, 0)]).arrived, 3);
        assert_eq!(arrivals.look(2_500, 1, &[&worker("a", 2, 0)]).arrived, 3);
        assert_eq!(arrivals.look(4_500, 0, &[&worker("a", 1, 2)]).arrived, 3);
        assert_eq!(arrivals.look(6_500, 2, &[&worker("a", 0, 3)]).arrived, 5);
    }

    #[test]
    fn what_was_there_at_the_first_look_did_not_arrive_then() {
        let mut arrivals = Arrivals::default();
        let begin = arrivals.look(0, 10, &[&worker("a", 5, 1_000_000)]).arrived;
        assert_eq!(arrivals.look(500, 12, &[&worker("a", 5, 1_000_000)]).arrived - begin, 2);
    }

    #[test]
    fn workers_that_go_take_nothing_with_them() {
        let mut arrivals = Arrivals::default();
        arrivals.look(0, 0, &[&worker("a", 0, 100)]);
        assert_eq!(arrivals.look(500, 4, &[]).arrived, 104);
        assert_eq!(arrivals.look(1_000, 4, &[&worker("b", 0, 0)]).arrived, 104);
        assert_eq!(arrivals.look(1_500, 5, &[&worker("b", 0, 0)]).arrived, 105);
    }

    #[test]
    fn a_worker_whose_record_was_gone_for_a_while_brings_nothing_new() {
        let mut arrivals = Arrivals::default();
        arrivals.look(0, 0, &[&worker("a", 0, 100_000)]);
        arrivals.look(500, 0, &[]);
        let back = arrivals.look(2_500, 0, &[&worker("a", 0, 100_001)]);
        assert_eq!(back, Counted { arrived: 100_001, in_hand: 0 });
    }

    #[test]
    fn a_worker_that_starts_again_under_its_name_leaves_nothing_in_hand() {
        let mut arrivals = Arrivals::default();
        arrivals.look(0, 0, &[&worker("a", 0, 100_000)]);
        let restarted = arrivals.look(500, 0, &[&worker("a", 0, 0)]);
        assert_eq!(restarted, Counted { arrived: 100_000, in_hand: 0 });
    }

    #[test]
    fn a_job_that_was_taken_is_in_hand_before_any_worker_reports_it() {
        let mut arrivals = Arrivals::default();
        arrivals.look(0, 400, &[&worker("a", 0, 7)]);
        assert_eq!(arrivals.look(500, 0, &[&worker("a", 0, 7)]).in_hand, 400);
        assert_eq!(arrivals.look(2_000, 0, &[&worker("a", 150, 100)]).in_hand, 307);
        assert_eq!(arrivals.look(4_000, 0, &[&worker("a", 0, 407)]).in_hand, 0);
    }

    #[test]
    fn after_jobs_expired_new_ones_are_seen_again() {
        let mut arrivals = Arrivals::default();
        arrivals.look(0, 0, &[]);
        assert_eq!(arrivals.look(500, 100, &[]).arrived, 100);
        // All of them expire; for as long as a dip may last, they may come back.
        for at_ms in (1_000..=7_000).step_by(500) {
            assert_eq!(arrivals.look(at_ms, 0, &[]).arrived, 100);
        }
        assert_eq!(arrivals.look(7_500, 3, &[]).arrived, 103);
        assert!(arrivals.late.len() < 20);
    }

    #[test]
    fn a_worker_that_comes_back_with_what_it_had_done_is_not_counted_twice() {
        let mut arrivals = Arrivals::default();
        arrivals.look(0, 0, &[&worker("a", 0, 100_000)]);
        arrivals.look(500, 0, &[]);
        let back = arrivals.look(1_000, 0, &[&worker("a", 0, 100_000)]);
        assert_eq!(back, Counted { arrived: 100_000, in_hand: 0 });
        assert_eq!(arrivals.look(1_500, 1, &[&worker("a", 0, 100_000)]).arrived, 100_001);
    }
}
