//! The demand of the last minutes, as the highest number of workers needed in each piece of time.

use std::collections::VecDeque;

/// Pieces that are kept at most, whatever the window: demands within one piece are not distinguished.
const PIECES_MAX: u64 = 256;

/// Highest demands, the oldest first. Bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct Demand {
    pieces: VecDeque<(u64, f64)>,
}

impl Demand {
    /// Records that `workers` are needed now, and forgets what is older than `horizon_ms`.
    pub(super) fn record(&mut self, now_ms: u64, workers: f64, horizon_ms: u64) {
        let piece_ms = horizon_ms / PIECES_MAX;
        match self.pieces.back_mut() {
            Some((at_ms, most)) if now_ms.saturating_sub(*at_ms) <= piece_ms => {
                *most = most.max(workers);
            }
            _ => self.pieces.push_back((now_ms, workers)),
        }
        let oldest_ms = now_ms.saturating_sub(horizon_ms + piece_ms);
        while self.pieces.front().is_some_and(|(at_ms, _)| *at_ms < oldest_ms)
            || self.pieces.len() as u64 > PIECES_MAX + 2
        {
            self.pieces.pop_front();
        }
    }

    /// The highest demand of the last `window_ms`.
    pub(super) fn highest(&self, now_ms: u64, window_ms: u64) -> f64 {
        let from_ms = now_ms.saturating_sub(window_ms);
        let last = self.pieces.back().map(|(_, most)| *most);
        let within = self.pieces.iter().rev().take_while(|(at_ms, _)| *at_ms >= from_ms);
        within.map(|(_, most)| *most).chain(last).fold(0.0, f64::max)
    }

    /// Whether the whole of the last `window_ms` was seen, give or take two looks.
    pub(super) fn covers(&self, now_ms: u64, window_ms: u64) -> bool {
        self.pieces.front().is_some_and(|(at_ms, _)| at_ms + window_ms <= now_ms + 1_500)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_of_a_window_is_forgotten_after_it() {
        let mut demand = Demand::default();
        for second in 0..100 {
            let workers = if second == 50 { 7.0 } else { 1.0 };
            demand.record(second * 1_000, workers, 60_000);
        }
        let highest = |window_ms| demand.highest(99_000, window_ms);
        assert!((highest(30_000) - 1.0).abs() < 1e-9 && (highest(55_000) - 7.0).abs() < 1e-9);
        assert!(demand.covers(99_000, 50_000) && !demand.covers(99_000, 90_000));
    }

    #[test]
    fn the_demand_kept_is_bounded_however_often_it_is_recorded() {
        let mut demand = Demand::default();
        for look in 0..100_000 {
            demand.record(look * 10, 1.0, 600_000);
        }
        assert!(demand.len() <= PIECES_MAX as usize + 2, "{}", demand.len());
    }
}
