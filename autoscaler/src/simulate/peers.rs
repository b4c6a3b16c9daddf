//! The peers, as their documentation has them, and fleets of fixed size.
//!
//! Where a documentation leaves a choice, the peer gets the better one: its metric is exact and of this very moment,
//! counts waiting jobs and those in service, and a scale-in drains idle workers first.

use std::collections::VecDeque;

use super::fleet::{Change, Scaler, SimulatedFleet};

const SECOND_US: u64 = 1_000_000;

fn backlog(fleet: &SimulatedFleet<'_>) -> u64 {
    fleet.ready() + fleet.in_service()
}

/// KEDA's queue scaler with a horizontal pod autoscaler behind it.
///
/// Every `pollingInterval` (30 s) the operator asks whether there are messages: with none running it starts one, and
/// after `cooldownPeriod` (300 s) without any it goes to zero. Between one and the maximum the pod autoscaler decides
/// every 15 s: the messages divided by the target, rounded up, and on the way down the highest of the recommendations
/// of the last 300 s. Its tolerance of a tenth and its default limit of steps upwards are left out, in its favour.
pub struct Keda {
    target: f64,
    workers_max: u32,
    next_poll_us: u64,
    next_sync_us: u64,
    last_active_us: Option<u64>,
    /// Recommendations of the last 300 s.
    recommended: VecDeque<(u64, u32)>,
}

impl Keda {
    const POLL_US: u64 = 30 * SECOND_US;
    const SYNC_US: u64 = 15 * SECOND_US;
    const COOLDOWN_US: u64 = 300 * SECOND_US;
    const STABILIZATION_US: u64 = 300 * SECOND_US;

    /// Keeps `target` messages a worker.
    pub fn new(target: f64, workers_max: u32) -> Self {
        let recommended = VecDeque::new();
        Self {
            target,
            workers_max,
            next_poll_us: 0,
            next_sync_us: 0,
            last_active_us: None,
            recommended,
        }
    }
}

impl Scaler for Keda {
    fn next_look_us(&self) -> u64 {
        self.next_poll_us.min(self.next_sync_us)
    }

    fn look(&mut self, fleet: &SimulatedFleet<'_>) -> Change {
        let now_us = fleet.now_us;
        let messages = backlog(fleet);
        let mut size = fleet.active();
        if now_us >= self.next_poll_us {
            self.next_poll_us = now_us + Self::POLL_US;
            if messages > 0 {
                self.last_active_us = Some(now_us);
                size = size.max(1);
            } else if self.last_active_us.is_none_or(|at| now_us - at >= Self::COOLDOWN_US) {
                size = 0;
                self.recommended.clear();
            }
        }
        if now_us >= self.next_sync_us {
            self.next_sync_us = now_us + Self::SYNC_US;
            if size > 0 {
                let desired = (messages as f64 / self.target).ceil() as u32;
                self.recommended.push_back((now_us, desired.clamp(1, self.workers_max)));
                let horizon_us = now_us.saturating_sub(Self::STABILIZATION_US);
                while self.recommended.front().is_some_and(|(at_us, _)| *at_us < horizon_us) {
                    self.recommended.pop_front();
                }
                let desired = desired.clamp(1, self.workers_max);
                let highest = self.recommended.iter().map(|(_, size)| *size).max();
                // The window holds only what it saw: a size from before it began is kept at most.
                size = if desired >= size { desired } else { size.min(highest.unwrap_or(desired)) };
            }
        }
        Change::Size(size)
    }
}

/// `SageMaker`'s asynchronous endpoints under target tracking of the backlog per instance.
///
/// The metrics have a period of 60 s. From zero, a step policy on `HasBacklogWithoutCapacity` starts one. Above it the
/// backlog (queued and in flight) divided by the target, rounded up, is the size; after a scale-out none follows for
/// 300 s unless it is a larger one, and none shrinks for 300 s after a scaling. The three and fifteen minutes for which
/// the alarms of target tracking wait before they act are left out, in its favour.
pub struct SageMaker {
    target: f64,
    workers_max: u32,
    next_us: u64,
    last_out: Option<(u64, u32)>,
    last_scaling_us: Option<u64>,
}

impl SageMaker {
    const PERIOD_US: u64 = 60 * SECOND_US;
    const COOLDOWN_US: u64 = 300 * SECOND_US;

    /// Keeps `target` jobs an instance.
    pub fn new(target: f64, workers_max: u32) -> Self {
        Self { target, workers_max, next_us: 0, last_out: None, last_scaling_us: None }
    }
}

impl Scaler for SageMaker {
    fn next_look_us(&self) -> u64 {
        self.next_us
    }

    fn look(&mut self, fleet: &SimulatedFleet<'_>) -> Change {
        let now_us = fleet.now_us;
        let size = fleet.active();
        let jobs = backlog(fleet);
        self.next_us = now_us + Self::PERIOD_US;
        if size == 0 {
            // A policy of its own, so the cooldowns of target tracking don't begin here.
            return Change::Size(u32::from(jobs > 0));
        }
        let desired = ((jobs as f64 / self.target).ceil() as u32).min(self.workers_max);
        let cooling = |at_us: u64| now_us - at_us < Self::COOLDOWN_US;
        if desired > size {
            let step = desired - size;
            if self.last_out.is_none_or(|(at_us, last)| !cooling(at_us) || step > last) {
                self.last_out = Some((now_us, step));
                self.last_scaling_us = Some(now_us);
                return Change::Size(desired);
            }
        } else if desired < size && self.last_scaling_us.is_none_or(|at_us| !cooling(at_us)) {
            self.last_scaling_us = Some(now_us);
            return Change::Size(desired);
        }
        Change::Hold
    }
}

/// As many workers as at the beginning, for ever.
pub struct Fixed;

impl Scaler for Fixed {
    fn next_look_us(&self) -> u64 {
        u64::MAX
    }

    fn look(&mut self, _: &SimulatedFleet<'_>) -> Change {
        Change::Hold
    }
}
