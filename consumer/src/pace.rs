//! How many deliveries a lane of this worker may hold: a few seconds of work, and no more bytes than its window has.
//!
//! Too few, and the device waits for the broker. Too many, and other workers idle beside a backlog that this one holds;
//! with slow jobs its last delivery would outlast the broker's time-out (half an hour). The right number depends on how
//! long jobs take, which is measured: so a worker starts with few, and takes more while it settles them quickly.
//!
//! A model that generates text works on many jobs at once, and for seconds. How many of those are worth holding its
//! stage says, in a [`Hold`].

use std::{sync::Arc, time::Duration};

use forebay_fabric::broker::{Load, Window, bytes_held};
use forebay_schemas::Lane;
use metrics::gauge;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

/// Deliveries at first, while it is not known how long they take.
const FIRST: u16 = 16;
/// Seconds of work that a lane holds. Several batches, each of which is well under a second at the size that is best
/// for a device; a worker that joins a fleet waits no longer for its share of a backlog.
const WORK_S: f64 = 3.0;
/// One that is computed and one that is prepared meanwhile, however slow they are.
const LEAST: u64 = 2;
/// The most that a window grows at once: what is measured with few deliveries may not hold for many.
const GROWTH_MAX: u64 = 4;
/// A window shrinks at most so often, because what it held too much goes back to the queue.
const SHRINK_EVERY: Duration = Duration::from_secs(1);
/// After so long without a delivery, what was measured counts no more.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How soon the rate forgets: the work of that time and a while before counts.
const MEMORY_S: f64 = 2.0;
/// How often a lane is looked at: full speed is reached within a few looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The prefetch to begin with. Until a first body has come, the longest is expected.
pub fn first(most: u16, bytes_max: u64, body_bytes_max: usize) -> u16 {
    let fit = bytes_max / bytes_held(body_bytes_max);
    FIRST.min(most).min(u16::try_from(fit).unwrap_or(u16::MAX)).max(1)
}

/// Bounds on how many jobs are worth holding, by what is known beside the rate at which they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// No fewer, if their bytes fit.
    pub least: usize,
    /// No more: another worker lacks work.
    pub most: usize,
}

impl Hold {
    /// No fewer than so many.
    pub fn at_least(least: usize) -> Self {
        Self { least, most: usize::MAX }
    }

    /// No more than so many.
    pub fn at_most(most: usize) -> Self {
        Self { least: 0, most }
    }
}

/// Keeps the window of a lane right, for ever: within `hold`, and `most` deliveries at most.
pub async fn keep(window: Arc<Window>, lane: Lane, hold: watch::Receiver<Hold>, most: u16) {
    let mut pace = Pace::new(window.wanted(), most, window.bytes_max());
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked_at = Instant::now();
    loop {
        look.tick().await;
        let load = window.look();
        let passed = looked_at.elapsed();
        looked_at = Instant::now();
        pace.hold = *hold.borrow();
        let wanted = pace.next(&load, passed);
        window.want(wanted);
        gauge!("forebay_worker_prefetch", "lane" => lane.as_str()).set(wanted);
        gauge!("forebay_worker_held_bytes", "lane" => lane.as_str()).set(load.bytes as f64);
        if pace.rests() {
            window.used().await;
            looked_at = Instant::now();
            look.reset();
        }
    }
}

/// The prefetch of one lane, from what its window holds at each look.
#[derive(Debug)]
pub struct Pace {
    first: u16,
    most: u16,
    hold: Hold,
    bytes_max: u64,
    asked: u16,
    rate: Rate,
    idle_for: Duration,
    since_shrunk: Duration,
}

impl Pace {
    /// A lane that begins with `first` deliveries and has `most` at most, which take `bytes_max` bytes together.
    pub fn new(first: u16, most: u16, bytes_max: u64) -> Self {
        Self {
            first,
            most,
            hold: Hold::at_least(0),
            bytes_max,
            asked: first,
            rate: Rate::default(),
            idle_for: Duration::ZERO,
            since_shrunk: SHRINK_EVERY,
        }
    }

    /// The prefetch that is right after another look, so long after the one before.
    pub fn next(&mut self, load: &Load, passed: Duration) -> u16 {
        self.since_shrunk = self.since_shrunk.saturating_add(passed);
        let is_busy = load.deliveries > 0 || load.deliveries_peak > 0;
        self.rate.look(load.settled, is_busy, passed.as_secs_f64());
        self.idle_for = if is_busy { Duration::ZERO } else { self.idle_for + passed };
        // A smaller prefetch counts from when it is asked for, a larger one from when the broker has it.
        let now = u64::from(self.asked.min(load.prefetch.max(1)));
        let next = if load.prefetch == 0 {
            self.asked.into()
        } else if self.idle_for >= IDLE_MAX {
            self.rate.forget();
            now.min(self.first.into())
        } else {
            self.adjusted(now, load)
        };
        if next < now {
            self.since_shrunk = Duration::ZERO;
        }
        self.asked = u16::try_from(next).unwrap_or(u16::MAX).clamp(1, self.most);
        self.asked
    }

    fn adjusted(&self, now: u64, load: &Load) -> u64 {
        let fit = self.bytes_max.checked_div(load.bytes_mean).unwrap_or(u64::MAX).max(1);
        let most = fit.min(self.most.into());
        let target = self.rate.jobs_in(WORK_S).map_or(now, |jobs| jobs.max(LEAST));
        let target = target.max(self.hold.least as u64).min(self.hold.most as u64).min(most).max(1);
        let is_limit = load.deliveries_peak * 4 >= now * 3;
        let is_far_above = target * 2 >= now * 3 || (target == most && target > now);
        // A window that is not used needs no change: it costs a pause in which nothing is settled.
        let holds_too_many = target * 2 <= now && load.deliveries_peak > target;
        let is_over = target < now && (load.refused > 0 || now > self.hold.most as u64);
        let is_far_below = holds_too_many || is_over;
        if is_limit && is_far_above {
            target.min(now * GROWTH_MAX)
        } else if is_far_below && self.since_shrunk >= SHRINK_EVERY {
            target
        } else {
            now
        }
    }

    /// Whether nothing changes until the next delivery.
    fn rests(&self) -> bool {
        self.idle_for >= IDLE_MAX
    }
}

/// How many jobs a lane settles in a second in which it has any.
#[derive(Debug, Default)]
struct Rate {
    seen: u64,
    /// Jobs, and the seconds that they took; the older, the less they count.
    jobs: f64,
    busy_s: f64,
    /// Seconds since jobs were settled last, and between the last two such looks.
    since_s: f64,
    gap_s: f64,
}

impl Rate {
    fn look(&mut self, settled: u64, is_busy: bool, passed_s: f64) {
        let jobs = settled.saturating_sub(self.seen);
        self.seen = settled;
        if is_busy || jobs > 0 {
            self.since_s += passed_s;
        }
        if jobs > 0 {
            let keep = (-self.since_s / MEMORY_S).exp();
            self.jobs = self.jobs * keep + jobs as f64;
            self.busy_s = self.busy_s * keep + self.since_s;
            self.gap_s = self.since_s;
            self.since_s = 0.0;
        }
    }

    fn forget(&mut self) {
        *self = Self { seen: self.seen, ..Self::default() };
    }

    /// Jobs that are done in so many seconds of work; `None` before the first is done. Jobs that take far longer than
    /// those before count before they are done: each look at which none is settled lowers the rate.
    fn jobs_in(&self, seconds: f64) -> Option<u64> {
        if self.jobs <= 0.0 || self.busy_s <= 0.0 {
            return None;
        }
        let stalled_s = (self.since_s - 2.0 * self.gap_s).max(0.0);
        let keep = (-stalled_s / MEMORY_S).exp();
        let per_s = self.jobs * keep / (self.busy_s * keep + stalled_s);
        Some((per_s * seconds).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOOK_S: f64 = 0.1;

    #[test]
    fn a_lane_whose_jobs_run_together_for_long_holds_as_many_as_run() {
        let mut pace = Pace::new(16, 256, 1 << 30);
        pace.hold = Hold::at_least(64);
        let slow = |prefetch: u16| Load {
            prefetch,
            deliveries: u64::from(prefetch),
            deliveries_peak: u64::from(prefetch),
            ..Load::default()
        };
        let mut prefetch = 16;
        for _ in 0..100 {
            prefetch = pace.next(&slow(prefetch), Duration::from_millis(100));
        }
        assert_eq!(prefetch, 64, "none is done yet, and the device has room");
        pace.hold = Hold::at_least(1_000);
        for _ in 0..100 {
            prefetch = pace.next(&slow(prefetch), Duration::from_millis(100));
        }
        assert_eq!(prefetch, 256, "and no more than it may");
        pace.hold = Hold::at_most(200);
        for _ in 0..20 {
            prefetch = pace.next(&slow(prefetch), Duration::from_millis(100));
        }
        assert_eq!(prefetch, 200, "the rest is for another worker");
    }

    /// A lane with an endless backlog, whose worker computes `together` jobs at once.
    struct Backlog {
        pace: Pace,
        load: Load,
        together: u64,
        took_s: f64,
    }

    impl Backlog {
        fn new(most: u16, bytes_max: u64) -> Self {
            let first = first(most, bytes_max, 1_000);
            let load = Load { prefetch: first, ..Load::default() };
            Self { pace: Pace::new(first, most, bytes_max), load, together: 1, took_s: 0.0 }
        }

        /// Works for so long on jobs that take a batch so long; returns the prefetch at the end.
        fn work(&mut self, seconds: f64, batch_s: f64) -> u16 {
            for _ in 0..(seconds / LOOK_S).round() as u64 {
                self.load.deliveries = self.load.prefetch.into();
                self.load.deliveries_peak = self.load.deliveries;
                self.took_s += LOOK_S;
                while self.took_s >= batch_s {
                    self.took_s -= batch_s;
                    self.load.settled += self.together.min(self.load.deliveries);
                }
                self.load.prefetch = self.pace.next(&self.load, Duration::from_secs_f64(LOOK_S));
            }
            self.load.prefetch
        }
    }

    #[test]
    fn quick_jobs_have_the_full_prefetch_within_half_a_second() {
        let mut lane = Backlog::new(256, u64::MAX);
        assert_eq!(lane.load.prefetch, FIRST);
        assert_eq!(lane.work(0.5, 0.001), 256);
    }

    #[test]
    fn slow_jobs_are_held_for_some_seconds_of_work_and_never_more_than_at_first() {
        let mut lane = Backlog::new(256, u64::MAX);
        for _ in 0..100 {
            assert!(lane.work(LOOK_S, 0.87) <= FIRST);
        }
        let after = lane.work(20.0, 0.87);
        assert!((2..=6).contains(&after), "{after} jobs of 0.87 s");
    }

    #[test]
    fn jobs_that_become_slow_shrink_the_window_before_the_first_of_them_is_done() {
        let mut lane = Backlog::new(256, u64::MAX);
        assert_eq!(lane.work(5.0, 0.001), 256);
        assert!(lane.work(30.0, 60.0) <= 4);
    }

    #[test]
    fn batches_that_take_long_keep_a_window_that_suits_them() {
        let mut lane = Backlog::new(256, u64::MAX);
        lane.together = 20;
        lane.work(30.0, 2.0);
        for _ in 0..100 {
            let now = lane.work(LOOK_S, 2.0);
            assert!((16..=64).contains(&now), "{now} jobs, 10 of which are done in a second");
        }
    }

    #[test]
    fn large_bodies_bound_the_window_and_those_that_did_not_fit_shrink_it() {
        let mut lane = Backlog::new(256, 100_000);
        assert_eq!(lane.work(1.0, 0.001), 256, "nothing has come, or only small ones");
        lane.load.bytes_mean = 20_000;
        lane.load.refused = 30;
        assert_eq!(lane.work(1.0, 0.001), 5);
        lane.load.bytes_mean = 1_000_000;
        assert_eq!(lane.work(2.0, 0.001), 1);
    }

    #[test]
    fn an_idle_lane_begins_again_with_few() {
        let mut lane = Backlog::new(256, u64::MAX);
        assert_eq!(lane.work(2.0, 0.001), 256);
        let idle = Load { deliveries: 0, deliveries_peak: 0, ..lane.load };
        assert_eq!(lane.pace.next(&idle, IDLE_MAX / 2), 256);
        assert_eq!(lane.pace.next(&idle, IDLE_MAX / 2), FIRST);
        assert!(lane.pace.rests());
    }

    #[test]
    fn the_first_deliveries_fit_also_if_they_are_as_long_as_allowed() {
        assert_eq!(first(256, u64::MAX, 8 << 20), FIRST);
        assert_eq!(first(8, u64::MAX, 8 << 20), 8);
        assert_eq!(first(256, 80 << 20, 8 << 20), 3);
        assert_eq!(first(256, 0, 8 << 20), 1);
    }

    proptest! {
        #[test]
        fn a_window_stays_within_its_limits_and_grows_fourfold_at_most(
            most in 1_u16..1_000,
            bytes_max in 0_u64..1_000_000,
            looks in prop::collection::vec(
                (0_u64..300, 0_u64..50, 0_u64..100_000, 0_u64..20, any::<bool>(), 0_u64..5_000),
                1..60,
            ),
        ) {
            let first = first(most, bytes_max, 10_000);
            let mut pace = Pace::new(first, most, bytes_max);
            let mut load = Load { prefetch: first, ..Load::default() };
            let mut before = first;
            for (peak, settled, bytes_mean, refused, follows, passed_ms) in looks {
                load.deliveries_peak = peak;
                load.deliveries = peak / 2;
                load.settled += settled;
                load.bytes_mean = bytes_mean;
                load.refused = refused;
                let next = pace.next(&load, Duration::from_millis(passed_ms));
                prop_assert!((1..=most).contains(&next));
                prop_assert!(next <= load.prefetch.max(before).saturating_mul(4));
                if next > before && bytes_mean > 0 && next > load.prefetch {
                    prop_assert!(u64::from(next) <= (bytes_max / bytes_mean).max(1));
                }
                if follows {
                    load.prefetch = next;
                }
                before = next;
            }
        }
    }
}
