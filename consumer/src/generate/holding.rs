//! How many jobs of the batch lane are worth holding: those that run, and behind them as much work as the device does
//! in some seconds, measured in tokens. The order of the backlog needs some of it to choose from, and another worker
//! needs what this one does not get to.

use forebay_schemas::Lane;
use tokio::{
    sync::watch,
    time::{Duration, Instant},
};

use crate::{generate::schedule::Schedule, pace::Hold, peers::Peers};

/// Seconds of work that wait while no other worker lacks any: enough to bring together what begins alike.
const BACKLOG_S: f64 = 30.0;
/// Seconds of it while it is not known whether one does.
const BACKLOG_UNKNOWN_S: f64 = 3.0;
/// How soon the rate forgets.
const MEMORY_S: f64 = 10.0;
/// A surplus goes back so long after it was found: by then no more of it is asked for.
const GIVES_BACK_AFTER: Duration = Duration::from_secs(1);

/// How many jobs of the batch lane are held.
#[derive(Debug)]
pub struct Holding {
    /// Sequences that run at once.
    together: usize,
    /// Tokens, and the seconds that they took; the older, the less they count.
    tokens: f64,
    busy_s: f64,
    peers: watch::Receiver<Peers>,
    hold: watch::Sender<Hold>,
    /// Since when others lack work.
    lacking_since: Option<Instant>,
}

impl Holding {
    /// Nothing is measured yet. The receiver has the number at each moment.
    pub fn new(together: usize, peers: watch::Receiver<Peers>) -> (Self, watch::Receiver<Hold>) {
        let (hold, published) = watch::channel(Hold::at_least(together));
        let holding = Self { together, tokens: 0.0, busy_s: 0.0, peers, hold, lacking_since: None };
        (holding, published)
    }

    /// Jobs came so many tokens further in this time, those of their prompts that were cached included.
    pub fn progressed(&mut self, tokens: usize, took: Duration) {
        let took_s = took.as_secs_f64();
        let keep = (-took_s / MEMORY_S).exp();
        self.tokens = self.tokens * keep + tokens as f64;
        self.busy_s = self.busy_s * keep + took_s;
    }

    /// Publishes what is right now. Returns how many jobs of the batch lane that wait are to go back to their queue, if
    /// the stage has so many deliveries of that lane.
    pub fn look(&mut self, schedule: &Schedule, deliveries: usize, now: Instant) -> usize {
        let peers = *self.peers.borrow();
        let Peers::Lack { share } = peers else {
            self.lacking_since = None;
            let seconds = if peers == Peers::Served { BACKLOG_S } else { BACKLOG_UNKNOWN_S };
            self.publish(Hold::at_least(self.worth(schedule, seconds)));
            return 0;
        };
        let share = usize::try_from(share).unwrap_or(usize::MAX).max(1);
        self.publish(Hold::at_most(share));
        let since = *self.lacking_since.get_or_insert(now);
        if now.saturating_duration_since(since) < GIVES_BACK_AFTER {
            return 0;
        }
        deliveries.saturating_sub(share).min(schedule.work(Lane::Batch).jobs)
    }

    fn publish(&self, hold: Hold) {
        self.hold.send_if_modified(|now| std::mem::replace(now, hold) != hold);
    }

    /// As many jobs as run, and as many as take so many seconds.
    fn worth(&self, schedule: &Schedule, seconds: f64) -> usize {
        let waiting = schedule.work(Lane::Batch);
        let running = schedule.running_work();
        let jobs = waiting.jobs + running.jobs;
        let tokens = waiting.tokens + running.tokens;
        if jobs == 0 || tokens == 0 || self.busy_s <= 0.0 {
            return self.together;
        }
        let jobs_per_s = self.tokens / self.busy_s * jobs as f64 / tokens as f64;
        self.together.saturating_add((jobs_per_s * seconds).round() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fair::Weights,
        generate::{
            prefix::Prefix,
            schedule::{Bounds, Waiting},
        },
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// A schedule with so many waiting jobs of 100 tokens each.
    fn schedule(jobs: usize) -> Schedule {
        let bounds = Bounds { step_tokens: 64, sequences_max: 64, page_tokens: 4, pages: 1_000 };
        let mut schedule = Schedule::new(bounds, &Weights::default());
        for key in 0..jobs as u64 {
            let prefix = Prefix::default();
            let output_expected = None;
            let job =
                Waiting { key, tokens: 60, output_max: 40, output_expected, prefix, expires: None };
            schedule.push(Lane::Batch, None, job, Instant::now());
        }
        schedule
    }

    fn holding(peers: Peers) -> (Holding, watch::Receiver<Hold>, watch::Sender<Peers>) {
        let (sender, receiver) = watch::channel(peers);
        let (holding, hold) = Holding::new(64, receiver);
        (holding, hold, sender)
    }

    #[test]
    fn as_much_work_waits_as_is_done_in_half_a_minute_whatever_the_size_of_jobs() {
        let (mut holding, hold, _peers) = holding(Peers::Served);
        let schedule = schedule(10);
        holding.look(&schedule, 10, Instant::now());
        assert_eq!(*hold.borrow(), Hold::at_least(64), "nothing is measured yet");
        (0..100).for_each(|_| holding.progressed(1_000, SECOND));
        holding.look(&schedule, 10, Instant::now());
        assert_eq!(*hold.borrow(), Hold::at_least(64 + 300), "10 jobs a second");
        (0..100).for_each(|_| holding.progressed(10, SECOND));
        holding.look(&schedule, 10, Instant::now());
        let held = hold.borrow().least;
        assert!((64 + 3..=64 + 4).contains(&held), "one job takes ten seconds: {held}");
    }

    #[test]
    fn little_is_held_while_others_are_unknown_and_no_more_than_the_share_while_one_lacks_work() {
        let (mut holding, hold, peers) = holding(Peers::Unknown);
        let schedule = schedule(200);
        (0..100).for_each(|_| holding.progressed(1_000, SECOND));
        let now = Instant::now();
        assert_eq!(holding.look(&schedule, 200, now), 0);
        assert_eq!(*hold.borrow(), Hold::at_least(64 + 30));
        peers.send_replace(Peers::Lack { share: 100 });
        assert_eq!(holding.look(&schedule, 200, now), 0);
        assert_eq!(*hold.borrow(), Hold::at_most(100), "first it asks for no more");
        assert_eq!(holding.look(&schedule, 200, now + GIVES_BACK_AFTER), 100);
        assert_eq!(holding.look(&schedule, 100, now + GIVES_BACK_AFTER), 0);
        peers.send_replace(Peers::Lack { share: 0 });
        assert_eq!(holding.look(&schedule, 300, now + SECOND), 200, "what runs stays");
        peers.send_replace(Peers::Served);
        assert_eq!(holding.look(&schedule, 100, now + SECOND), 0);
        assert_eq!(*hold.borrow(), Hold::at_least(64 + 300));
    }
}
