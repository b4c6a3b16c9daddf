//! How many tokens a batch may have: as many as fit the device's memory, and as many as it computes in
//! [`BATCH_TIME`].
//!
//! The stage that computes owns the budget and publishes it; the stage that packs reads it. This is one of
//! the three signals that travel against the jobs; the crate's root lists them.

use std::time::Duration;

use tokio::sync::watch;

/// The time that a batch aims at. An urgent job waits for the rest of the batch that runs, and then for its own, which
/// has urgent inputs alone: twice this at most, where batches can be so short. All-MiniLM-L6-v2 computes 300 to 900
/// tokens in it on two cores, so each thread has a group of at least 128: as fast as larger ones (docs/performance.md).
pub const BATCH_TIME: Duration = Duration::from_millis(25);
/// Batches are not made smaller than this for the sake of time. Fewer tokens than this pay for reading all weights once
/// more, on a slow device above all: there a batch takes longer instead.
const TOKENS_FOR_TIME_MIN: usize = 256;
/// So many batches in a row without a shortage of memory make that budget grow by a quarter: slow enough not to
/// fail again at once, fast enough to be back after some hundred batches.
const GROW_AFTER: u32 = 32;

/// The token budget of a worker's batches.
#[derive(Debug)]
pub struct Budget {
    tokens_max: usize,
    /// As many as memory suffices for.
    in_memory: usize,
    /// As many as take [`BATCH_TIME`].
    in_time: usize,
    /// The smaller of the two.
    tokens: watch::Sender<usize>,
    /// Batches since the last shortage or growth.
    clean: u32,
}

impl Budget {
    /// A budget of `tokens_max` tokens, which is also the most that it grows to. The receiver has the budget at each
    /// moment.
    pub fn new(tokens_max: usize) -> (Self, watch::Receiver<usize>) {
        let (tokens, published) = watch::channel(tokens_max);
        let budget =
            Self { tokens_max, in_memory: tokens_max, in_time: tokens_max, tokens, clean: 0 };
        report(tokens_max);
        (budget, published)
    }

    /// A batch of this many tokens did not fit.
    pub fn short(&mut self, tokens: usize) {
        self.clean = 0;
        let now = *self.tokens.borrow();
        self.in_memory = (tokens / 2).clamp(1, now.max(1));
        self.publish();
        tracing::warn!(tokens = self.in_memory, "memory is short: batches are made smaller");
    }

    /// A batch of this many tokens was computed, and took so long.
    pub fn computed(&mut self, tokens: usize, took: Duration) {
        self.grow_in_memory();
        self.adapt_in_time(tokens, took);
        self.publish();
    }

    fn grow_in_memory(&mut self) {
        if self.in_memory == self.tokens_max {
            return;
        }
        self.clean += 1;
        if self.clean >= GROW_AFTER {
            self.clean = 0;
            self.in_memory = quarter_more(self.in_memory).min(self.tokens_max);
        }
    }

    /// One batch changes the budget by half or by a quarter at most: it may have been slow for another reason.
    fn adapt_in_time(&mut self, tokens: usize, took: Duration) {
        let ideal = tokens as f64 * BATCH_TIME.as_secs_f64() / took.as_secs_f64().max(1e-9);
        let ideal = ideal as usize;
        let now = self.in_time;
        if took > BATCH_TIME {
            let smaller = ideal.clamp(now / 2, now).max(TOKENS_FOR_TIME_MIN);
            self.in_time = smaller.min(now);
        } else if tokens >= now - now / 4 {
            // A batch with room left says little about a full one.
            self.in_time = ideal.clamp(now, quarter_more(now)).min(self.tokens_max);
        }
    }

    fn publish(&self) {
        let tokens = self.in_memory.min(self.in_time);
        let changed = self.tokens.send_if_modified(|now| std::mem::replace(now, tokens) != tokens);
        if changed {
            report(tokens);
        }
    }
}

fn report(tokens: usize) {
    metrics::gauge!("forebay_batch_tokens_budget").set(tokens as f64);
}

fn quarter_more(tokens: usize) -> usize {
    tokens + (tokens / 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(1);

    #[test]
    fn batches_come_to_take_the_time_that_they_aim_at_however_fast_the_device_is() {
        for tokens_a_ms in [20, 33, 150] {
            let (mut budget, tokens) = Budget::new(4_096);
            for _ in 0..50 {
                let batch = *tokens.borrow();
                budget.computed(batch, Duration::from_millis(batch as u64) / tokens_a_ms);
            }
            let tokens = *tokens.borrow();
            let fitting = 25 * tokens_a_ms as usize;
            let wanted = fitting.clamp(TOKENS_FOR_TIME_MIN, 4_096);
            assert!(tokens.abs_diff(wanted) <= wanted / 50, "{tokens} tokens instead of {wanted}");
        }
    }

    #[test]
    fn a_slow_device_keeps_batches_that_are_worth_its_while() {
        let (mut budget, tokens) = Budget::new(4_096);
        for _ in 0..50 {
            let full = *tokens.borrow();
            budget.computed(full, Duration::from_secs(1));
        }
        assert_eq!(*tokens.borrow(), TOKENS_FOR_TIME_MIN);
        let (mut budget, tokens) = Budget::new(100);
        (0..50).for_each(|_| budget.computed(100, Duration::from_secs(1)));
        assert_eq!(*tokens.borrow(), 100, "a smaller limit is the configuration's own");
    }

    #[test]
    fn one_slow_batch_changes_little_and_small_ones_say_nothing() {
        let (mut budget, tokens) = Budget::new(4_096);
        budget.computed(4_000, Duration::from_secs(60));
        assert_eq!(*tokens.borrow(), 2_048);
        (0..50).for_each(|_| budget.computed(100, FAST));
        assert_eq!(*tokens.borrow(), 2_048, "a small batch is no measure of a full one");
        for _ in 0..4 {
            let full = *tokens.borrow();
            budget.computed(full, FAST);
        }
        assert_eq!(*tokens.borrow(), 4_096);
    }

    #[test]
    fn a_shortage_halves_the_budget_and_clean_batches_bring_it_back() {
        let (mut budget, tokens) = Budget::new(4_096);
        budget.short(4_000);
        assert_eq!(*tokens.borrow(), 2_000);
        budget.short(10_000);
        assert_eq!(*tokens.borrow(), 2_000, "an input over the budget does not make it grow");
        budget.short(2_000);
        assert_eq!(*tokens.borrow(), 1_000);
        for _ in 0..GROW_AFTER {
            assert_eq!(*tokens.borrow(), 1_000);
            budget.computed(10, FAST);
        }
        assert_eq!(*tokens.borrow(), 1_250);
        for _ in 0..100 * GROW_AFTER {
            budget.computed(10, FAST);
        }
        assert_eq!(*tokens.borrow(), 4_096, "and no further");
    }

    #[test]
    fn the_budget_is_never_zero() {
        let (mut budget, published) = Budget::new(8);
        for tokens in [8, 4, 2, 1, 0] {
            budget.short(tokens);
        }
        assert_eq!(*published.borrow(), 1);
        (0..GROW_AFTER).for_each(|_| budget.computed(1, FAST));
        assert_eq!(*published.borrow(), 2);
    }
}
