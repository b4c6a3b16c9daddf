//! Learns from bursts: the gaps between them, and the workers that each needed when it began.
//!
//! A gap is a time without a job. Only gaps that a cold start could matter in are kept, and of those the last
//! [`KEPT`]: enough to see a pattern, few enough to follow when it changes.

use std::collections::VecDeque;

/// Gaps and beginnings that are remembered.
const KEPT: usize = 32;
/// Fewer show no pattern.
const KNOWN_MIN: usize = 4;
/// Shorter pauses are not counted as gaps.
const GAP_S_MIN: f64 = 5.0;
/// A learned idle time replaces break-even only if it would have saved nearly a third: else it is likely chance.
const SAVING: f64 = 0.7;
/// A burst is due when this share of the gaps that lasted as long as this one ended within a cold start from here.
const DUE_SHARE: f64 = 0.6;
/// A cold start and a quarter is looked ahead, since a start is a little slower now and then.
const DUE_COLD_STARTS: f64 = 1.25;
/// Below this, starting ahead of time saves too little to matter.
const COLD_START_S_MIN: f64 = 5.0;

/// Gaps between bursts and the beginnings of bursts. Bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct Bursts {
    gaps_s: VecDeque<f64>,
    /// Workers that the bursts needed at their beginnings.
    beginnings: VecDeque<f64>,
    active_ms: Option<u64>,
    /// A burst whose beginning is still being measured: since when, and the arrivals before it.
    begun: Option<(u64, u64)>,
    /// When workers were launched ahead of time, in the present gap.
    warmed_ms: Option<u64>,
}

/// The arrivals at one look.
pub(super) struct BurstSample {
    pub now_ms: u64,
    /// Whether there is anything to do, or came since the last look.
    pub active: bool,
    /// Arrivals before those of this look, and with them.
    pub before: u64,
    pub total: u64,
}

impl Bursts {
    pub(super) fn observe(
        &mut self,
        look: &BurstSample,
        jobs_per_s: f64,
        cold_start_s: f64,
        target_wait_s: f64,
    ) {
        // As long as it takes until workers that are launched at its beginning have worked.
        let beginning_s = cold_start_s + target_wait_s.clamp(5.0, 60.0);
        if let Some((begun_ms, before)) = self.begun
            && look.now_ms.saturating_sub(begun_ms) as f64 >= beginning_s * 1e3
        {
            self.begun = None;
            let work_s = look.total.saturating_sub(before) as f64 / jobs_per_s;
            keep(&mut self.beginnings, work_s / beginning_s.max(target_wait_s));
        }
        if look.active {
            let gap_s = self.quiet_s(look.now_ms);
            if gap_s >= GAP_S_MIN.max(cold_start_s / 2.0) {
                keep(&mut self.gaps_s, gap_s);
                self.begun = Some((look.now_ms, look.before));
            }
            self.active_ms = Some(look.now_ms);
            self.warmed_ms = None;
        }
    }

    /// For how long there was nothing to do.
    pub(super) fn quiet_s(&self, now_ms: u64) -> f64 {
        self.active_ms.map_or(0.0, |at_ms| now_ms.saturating_sub(at_ms) as f64 / 1e3)
    }

    /// For how long idle workers are worth keeping, at most `break_even_s`.
    ///
    /// A gap shorter than the time costs itself, a longer one costs that time and a cold start (which is what
    /// `break_even_s` says). The cheapest time over the remembered gaps is taken, if it is clearly cheaper.
    pub(super) fn idle_s(&self, break_even_s: f64) -> f64 {
        if self.gaps_s.len() < KNOWN_MIN {
            return break_even_s;
        }
        let cost = |idle_s: f64| -> f64 {
            self.gaps_s
                .iter()
                .map(|gap_s| if *gap_s <= idle_s { *gap_s } else { idle_s + break_even_s })
                .sum()
        };
        // A tenth and a second more than the gap seen, since the next will be a little different.
        let candidates = self.gaps_s.iter().map(|gap_s| gap_s * 1.1 + 1.0);
        let candidates = candidates.filter(|idle_s| *idle_s <= break_even_s).chain([0.0]);
        let best = candidates.min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(break_even_s);
        if cost(best) < SAVING * cost(break_even_s) { best } else { break_even_s }
    }

    /// Workers that half of the last bursts needed at once.
    pub(super) fn usual(&self) -> Option<u32> {
        if self.beginnings.len() < KNOWN_MIN {
            return None;
        }
        let mut sorted: Vec<f64> = self.beginnings.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        Some(sorted[sorted.len() / 2].ceil() as u32)
    }

    /// Workers to launch now, because a burst is due in about a cold start.
    pub(super) fn due(&self, now_ms: u64, cold_start_s: f64, target_wait_s: f64) -> Option<u32> {
        // A target that allows the wait for a cold start pays nothing to avoid it.
        if cold_start_s < COLD_START_S_MIN.max(target_wait_s) || self.gaps_s.len() < KNOWN_MIN {
            return None;
        }
        let quiet_s = self.quiet_s(now_ms);
        let until_s = quiet_s + DUE_COLD_STARTS * cold_start_s;
        let as_long = self.gaps_s.iter().filter(|gap_s| **gap_s > quiet_s);
        let (due, all) = as_long
            .fold((0, 0), |(due, all), gap_s| (due + usize::from(*gap_s <= until_s), all + 1));
        let is_due = all >= KNOWN_MIN - 1 && due as f64 >= DUE_SHARE * all as f64;
        self.usual().filter(|_| is_due && quiet_s > 0.0)
    }

    /// Remembers that workers were launched ahead of time; once a gap is enough.
    pub(super) fn warmed(&mut self, now_ms: u64) {
        self.warmed_ms = Some(now_ms);
    }

    /// When workers were launched ahead of time in this gap.
    pub(super) fn warmed_ms(&self) -> Option<u64> {
        self.warmed_ms
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.gaps_s.len().max(self.beginnings.len())
    }
}

fn keep(values: &mut VecDeque<f64>, value: f64) {
    if values.len() == KEPT {
        values.pop_front();
    }
    values.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bursts of `jobs` jobs at one look, with these gaps before them.
    fn learned(gaps_s: &[u64], jobs: u64, cold_start_s: f64) -> (Bursts, u64) {
        let mut bursts = Bursts::default();
        let mut now_ms = 0;
        let mut total = 0;
        let look = |bursts: &mut Bursts, now_ms, active, before, total| {
            let arrivals = BurstSample { now_ms, active, before, total };
            bursts.observe(&arrivals, 1.0, cold_start_s, 10.0);
        };
        look(&mut bursts, now_ms, true, 0, 0);
        for gap_s in gaps_s {
            now_ms += gap_s * 1_000;
            look(&mut bursts, now_ms, true, total, total + jobs);
            total += jobs;
            look(&mut bursts, now_ms + (cold_start_s as u64 + 10) * 1_000, false, total, total);
        }
        (bursts, now_ms)
    }

    #[test]
    fn too_few_gaps_give_break_even() {
        assert!((learned(&[100, 100, 100], 5, 20.0).0.idle_s(20.0) - 20.0).abs() < 1e-9);
    }

    #[test]
    fn short_gaps_are_waited_for_and_long_ones_are_not() {
        let (short, _) = learned(&[15; 6], 5, 20.0);
        assert!(short.idle_s(60.0) >= 15.0);
        let (long, _) = learned(&[3_000; 6], 5, 20.0);
        assert!(long.idle_s(60.0).abs() < 1e-9);
    }

    #[test]
    fn a_burst_is_due_when_gaps_are_regular() {
        let (bursts, last_ms) = learned(&[600; 8], 300, 20.0);
        assert_eq!(bursts.due(last_ms + 300_000, 20.0, 10.0), None, "too early");
        assert_eq!(bursts.due(last_ms + 580_000, 20.0, 10.0), Some(10));
        assert_eq!(bursts.due(last_ms + 580_000, 20.0, 60.0), None, "the target allows the wait");
        assert_eq!(bursts.due(last_ms + 700_000, 20.0, 10.0), None, "it did not come");
    }

    #[test]
    fn a_burst_is_not_due_when_gaps_are_anything() {
        let (bursts, last_ms) = learned(&[60, 200, 600, 1_500, 3_000, 5_000, 7_000], 300, 20.0);
        let due = (0..7_000).filter(|s| bursts.due(last_ms + s * 1_000, 20.0, 10.0).is_some());
        assert_eq!(due.count(), 0);
    }

    #[test]
    fn the_history_of_bursts_is_bounded() {
        assert_eq!(learned(&[100; 1_000], 5, 20.0).0.len(), KEPT);
    }
}
