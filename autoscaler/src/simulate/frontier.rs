//! Frontiers: what a policy reaches over its whole knob, 95th percentile of waits against worker-seconds.

use serde::Serialize;

/// One run of a sweep.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// The policy and its knob.
    pub policy: String,
    /// From launch to stop, summed.
    pub worker_s: f64,
    /// 95th percentile of the waits.
    pub wait_s_p95: f64,
    /// Moments at which the size wanted changed.
    pub actions: u64,
}

/// The points that no other point is better than in both respects, in order of worker-seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Frontier(pub Vec<Point>);

impl Frontier {
    /// Keeps the points that no other point is better than in both respects.
    pub fn of(points: impl IntoIterator<Item = Point>) -> Self {
        let mut points: Vec<Point> = points.into_iter().collect();
        points.sort_by(|a, b| {
            a.worker_s.total_cmp(&b.worker_s).then(a.wait_s_p95.total_cmp(&b.wait_s_p95))
        });
        let mut kept: Vec<Point> = Vec::new();
        for point in points {
            if kept.last().is_none_or(|last| point.wait_s_p95 < last.wait_s_p95) {
                kept.push(point);
            }
        }
        Self(kept)
    }

    /// The wait and the actions at `worker_s`, between its neighbours in proportion; nothing if all cost more.
    pub fn at_worker_s(&self, worker_s: f64) -> Option<(f64, f64)> {
        let after = self.0.partition_point(|point| point.worker_s <= worker_s);
        let before = self.0.get(after.checked_sub(1)?)?;
        let next = self.0.get(after).unwrap_or(before);
        let span_s = next.worker_s - before.worker_s;
        let share = if span_s > 0.0 { (worker_s - before.worker_s) / span_s } else { 0.0 };
        let between = |from: f64, to: f64| from + share * (to - from);
        Some((
            between(before.wait_s_p95, next.wait_s_p95),
            between(before.actions as f64, next.actions as f64),
        ))
    }

    /// The worker-seconds at a wait of `wait_s`, between its neighbours in proportion; nothing if it never gets there.
    pub fn at_wait_s(&self, wait_s: f64) -> Option<f64> {
        let after = self.0.partition_point(|point| point.wait_s_p95 > wait_s);
        let next = self.0.get(after)?;
        let Some(before) = after.checked_sub(1).and_then(|before| self.0.get(before)) else {
            return Some(next.worker_s);
        };
        let share = (before.wait_s_p95 - wait_s) / (before.wait_s_p95 - next.wait_s_p95);
        Some(before.worker_s + share * (next.worker_s - before.worker_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frontier(points: &[(f64, f64)]) -> Frontier {
        Frontier::of(points.iter().map(|&(worker_s, wait_s_p95)| Point {
            policy: String::new(),
            worker_s,
            wait_s_p95,
            actions: worker_s as u64,
        }))
    }

    #[test]
    fn points_that_another_is_better_than_are_dropped() {
        let kept = frontier(&[(30.0, 1.0), (10.0, 9.0), (20.0, 9.5), (20.0, 5.0)]).0;
        let kept: Vec<f64> = kept.iter().map(|point| point.worker_s).collect();
        assert_eq!(kept, [10.0, 20.0, 30.0]);
    }

    #[test]
    fn between_two_points_it_is_in_proportion() {
        let frontier = frontier(&[(10.0, 9.0), (20.0, 5.0)]);
        assert_eq!(frontier.at_worker_s(15.0), Some((7.0, 15.0)));
        assert_eq!(frontier.at_worker_s(9.0), None);
        assert_eq!(frontier.at_worker_s(99.0), Some((5.0, 20.0)));
        assert_eq!(frontier.at_wait_s(7.0), Some(15.0));
        assert_eq!(frontier.at_wait_s(4.0), None);
        assert_eq!(frontier.at_wait_s(99.0), Some(10.0));
    }
}
