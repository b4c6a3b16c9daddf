//! The faults of a run with their times, drawn from the seed.

use std::fmt;
use std::time::Duration;

use super::random::Random;
use crate::relay::Mode;

/// How many workers there are.
pub const WORKERS: usize = 4;

/// How many of them generate text: the last ones. The others embed.
pub const DECODERS: usize = 2;

/// `RabbitMQ` writes to the disk which quorum queues there are a second or so after they are declared. A node
/// that is killed sooner forgets the last of them, with all that is in it.
const DECLARED_FOR_GOOD_MS: u64 = 3_000;

/// The jobs that are published in a second, at most.
const JOBS_A_SECOND: usize = 200;

/// Where a worker can be made to die. Only one that generates text passes the last one.
const POINTS: [&str; 6] = [
    "after_delivery",
    "after_compute",
    "after_result_write",
    "before_ack",
    "during_drain",
    AFTER_STEP,
];
const AFTER_STEP: &str = "after_step";

/// One thing that is done to the fleet or its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The link to the broker changes.
    BrokerLink(Mode),
    /// The link to the store changes.
    StoreLink(Mode),
    /// The broker cuts every connection.
    CutConnections,
    /// The broker is killed and boots again.
    RestartBroker,
    /// The store stops to answer.
    FreezeStore,
    /// It goes on.
    ThawStore,
    /// The store is killed and started again with what it held.
    RestartStore,
    /// The store has no memory left: it refuses writes, and answers reads.
    FillStore,
    /// It has memory again.
    RelieveStore,
    /// The broker stops to answer, and with it the leaders of all its queues.
    FreezeBroker,
    /// It goes on.
    ThawBroker,
    /// A worker is killed.
    KillWorker(usize),
    /// A worker is asked to stop.
    StopWorker(usize),
    /// A worker is replaced by one that dies at a fail point, at its n-th passage.
    ArmWorker(usize, &'static str, u64),
    /// The autoscaler is killed.
    KillAutoscaler,
    /// The autoscaler is asked to stop.
    StopAutoscaler,
}

/// All of it, in the order of time from the start of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(pub Vec<(Duration, Action)>);

impl Schedule {
    /// Six to twelve faults over `span`, each with its end.
    pub fn draw(seed: u64, span: Duration) -> Self {
        let mut random = Random::new(seed, 1);
        let mut actions = Vec::new();
        let span_ms = span.as_millis() as u64;
        // One run in six loses its broker: that takes seconds.
        if random.below(6) == 0 {
            let at = DECLARED_FOR_GOOD_MS + random.below(span_ms / 2);
            actions.push((at, Action::RestartBroker));
        }
        for _ in 0..random.between(6, 12) {
            let at = random.between(span_ms / 20, span_ms);
            draw_fault(&mut random, at, &mut actions);
        }
        actions.sort_by_key(|(at, _)| *at);
        Self(actions.into_iter().map(|(at, action)| (Duration::from_millis(at), action)).collect())
    }
}

/// How long publishing takes, and with it the disturbance.
pub fn span(jobs: usize) -> Duration {
    Duration::from_millis((jobs * 1_000 / JOBS_A_SECOND) as u64).max(Duration::from_secs(4))
}

fn draw_fault(random: &mut Random, at: u64, actions: &mut Vec<(u64, Action)>) {
    // Some shorter, some longer than the time-outs and heartbeats of the fleet.
    let end = at + random.between(100, 3_000);
    let worker = random.below(WORKERS as u64) as usize;
    match random.below(18) {
        0 | 1 => {
            actions.push((at, Action::BrokerLink(draw_mode(random))));
            actions.push((end, Action::BrokerLink(Mode::Pass)));
        }
        2 | 3 => {
            actions.push((at, Action::StoreLink(draw_mode(random))));
            actions.push((end, Action::StoreLink(Mode::Pass)));
        }
        4 => actions.push((at, Action::CutConnections)),
        5 => {
            actions.push((at, Action::FreezeStore));
            actions.push((end, Action::ThawStore));
        }
        6 => actions.push((at, Action::RestartStore)),
        7 => actions.push((at, Action::KillWorker(worker))),
        8 => actions.push((at, Action::StopWorker(worker))),
        9 | 10 => {
            let decodes = worker >= WORKERS - DECODERS;
            let point = random.one_of(&POINTS[..POINTS.len() - usize::from(!decodes)]);
            let turn = match point {
                "during_drain" => 1,
                AFTER_STEP => random.between(1, 400),
                _ => random.between(1, 40),
            };
            actions.push((at, Action::ArmWorker(worker, point, turn)));
            if point == "during_drain" {
                actions.push((end, Action::StopWorker(worker)));
            }
        }
        11 | 12 => {
            actions.push((at, Action::FillStore));
            actions.push((end, Action::RelieveStore));
        }
        13 | 14 => {
            actions.push((at, Action::FreezeBroker));
            actions.push((end, Action::ThawBroker));
        }
        15 => draw_flapping(random, at, Action::BrokerLink, actions),
        16 => draw_flapping(random, at, Action::StoreLink, actions),
        _ => {
            let end_it = random.one_of(&[Action::KillAutoscaler, Action::StopAutoscaler]);
            actions.push((at, end_it));
        }
    }
}

/// A link that is cut and comes back, again and again: some times too short for anything to be set up over it.
fn draw_flapping(
    random: &mut Random,
    from: u64,
    link: fn(Mode) -> Action,
    actions: &mut Vec<(u64, Action)>,
) {
    let mut at = from;
    for _ in 0..random.between(4, 12) {
        actions.push((at, link(Mode::Cut)));
        at += random.between(20, 200);
        actions.push((at, link(Mode::Pass)));
        at += random.between(20, 300);
    }
}

fn draw_mode(random: &mut Random) -> Mode {
    let delay = Duration::from_millis(random.between(5, 300));
    random.one_of(&[
        Mode::Cut,
        Mode::Stall,
        Mode::Delay(delay),
        Mode::LoseRequests,
        Mode::LoseReplies,
    ])
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, action) in &self.0 {
            writeln!(f, "  {:>6} ms  {action:?}", at.as_millis())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_that_begins_ends() {
        for seed in 0..200 {
            let actions = Schedule::draw(seed, Duration::from_secs(8)).0;
            let count = |wanted: Action| actions.iter().filter(|(_, one)| *one == wanted).count();
            assert_eq!(count(Action::FreezeStore), count(Action::ThawStore));
            assert_eq!(count(Action::FillStore), count(Action::RelieveStore));
            assert_eq!(count(Action::FreezeBroker), count(Action::ThawBroker));
        }
    }

    #[test]
    fn a_seed_draws_one_schedule_in_the_order_of_time() {
        let span = Duration::from_secs(8);
        for seed in 0..200 {
            let schedule = Schedule::draw(seed, span);
            assert_eq!(schedule, Schedule::draw(seed, span));
            assert!(schedule.0.len() >= 6 && schedule.0.is_sorted_by_key(|(at, _)| *at));
        }
        assert_ne!(Schedule::draw(1, span), Schedule::draw(2, span));
    }
}
