//! How many tokens a batch may have: halved when the device's memory does not suffice, grown back
//! while it does.
//!
//! The stage that computes owns the budget and publishes it; the stage that packs reads it. This is one of
//! the three signals that travel against the jobs; the crate's root lists them.

use tokio::sync::watch;

/// So many batches in a row without a shortage make the budget grow by a quarter: slow enough not to
/// fail again at once, fast enough to be back after some hundred batches.
const GROW_AFTER: u32 = 32;

/// The token budget of a worker's batches.
#[derive(Debug)]
pub struct Budget {
    tokens_max: usize,
    tokens: watch::Sender<usize>,
    /// Batches since the last shortage or growth.
    clean: u32,
}

impl Budget {
    /// A budget of `tokens_max` tokens, which is also the most that it grows to. The receiver has the budget at each
    /// moment.
    pub fn new(tokens_max: usize) -> (Self, watch::Receiver<usize>) {
        let (tokens, published) = watch::channel(tokens_max);
        let budget = Self { tokens_max, tokens, clean: 0 };
        budget.set(tokens_max);
        (budget, published)
    }

    /// A batch of this many tokens did not fit.
    pub fn short(&mut self, tokens: usize) {
        self.clean = 0;
        let smaller = (tokens / 2).clamp(1, self.tokens());
        self.set(smaller);
        tracing::warn!(tokens = smaller, "memory is short: batches are made smaller");
    }

    /// A batch was computed.
    pub fn fitted(&mut self) {
        let now = self.tokens();
        if now == self.tokens_max {
            return;
        }
        self.clean += 1;
        if self.clean >= GROW_AFTER {
            self.clean = 0;
            self.set((now + (now / 4).max(1)).min(self.tokens_max));
        }
    }

    fn tokens(&self) -> usize {
        *self.tokens.borrow()
    }

    fn set(&self, tokens: usize) {
        self.tokens.send_replace(tokens);
        metrics::gauge!("forebay_batch_tokens_budget").set(tokens as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            budget.fitted();
        }
        assert_eq!(*tokens.borrow(), 1_250);
        for _ in 0..100 * GROW_AFTER {
            budget.fitted();
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
        (0..GROW_AFTER).for_each(|_| budget.fitted());
        assert_eq!(*published.borrow(), 2);
    }
}
