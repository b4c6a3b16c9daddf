//! How many tokens a batch may have: halved when the device's memory does not suffice, grown back
//! while it does.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// So many batches in a row without a shortage make the budget grow by a quarter: slow enough not to
/// fail again at once, fast enough to be back after some hundred batches.
const GROW_AFTER: u32 = 32;

/// The token budget of a worker's batches.
#[derive(Debug)]
pub struct Budget {
    tokens_max: usize,
    tokens: AtomicUsize,
    /// Batches since the last shortage or growth.
    clean: Mutex<u32>,
}

impl Budget {
    /// Begins with all of `tokens_max`.
    pub fn new(tokens_max: usize) -> Self {
        let tokens = AtomicUsize::new(tokens_max);
        let budget = Self { tokens_max, tokens, clean: Mutex::new(0) };
        budget.set(tokens_max);
        budget
    }

    /// The budget now.
    pub fn tokens(&self) -> usize {
        self.tokens.load(Relaxed)
    }

    /// A batch of this many tokens did not fit.
    pub fn short(&self, tokens: usize) {
        *self.clean.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        let smaller = (tokens / 2).clamp(1, self.tokens());
        self.set(smaller);
        tracing::warn!(tokens = smaller, "memory is short: batches are made smaller");
    }

    /// A batch was computed.
    pub fn fitted(&self) {
        let now = self.tokens();
        if now == self.tokens_max {
            return;
        }
        let mut clean = self.clean.lock().unwrap_or_else(PoisonError::into_inner);
        *clean += 1;
        if *clean >= GROW_AFTER {
            *clean = 0;
            self.set((now + (now / 4).max(1)).min(self.tokens_max));
        }
    }

    fn set(&self, tokens: usize) {
        self.tokens.store(tokens, Relaxed);
        metrics::gauge!("forebay_batch_tokens_budget").set(tokens as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_halves_the_budget_and_clean_batches_bring_it_back() {
        let budget = Budget::new(4_096);
        budget.short(4_000);
        assert_eq!(budget.tokens(), 2_000);
        budget.short(10_000);
        assert_eq!(budget.tokens(), 2_000, "a single input over the budget does not make it grow");
        budget.short(2_000);
        assert_eq!(budget.tokens(), 1_000);
        for _ in 0..GROW_AFTER {
            assert_eq!(budget.tokens(), 1_000);
            budget.fitted();
        }
        assert_eq!(budget.tokens(), 1_250);
        for _ in 0..100 * GROW_AFTER {
            budget.fitted();
        }
        assert_eq!(budget.tokens(), 4_096, "and no further");
    }

    #[test]
    fn the_budget_is_never_nothing() {
        let budget = Budget::new(8);
        for tokens in [8, 4, 2, 1, 0] {
            budget.short(tokens);
        }
        assert_eq!(budget.tokens(), 1);
        (0..GROW_AFTER).for_each(|_| budget.fitted());
        assert_eq!(budget.tokens(), 2);
    }
}
