//! Random numbers for jitter: unpredictable, or seeded where a test repeats a schedule.

use std::{cell::RefCell, ops::RangeInclusive};

use rand::{Rng, SeedableRng, rngs::StdRng};

thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// Seeds this thread's numbers: from now on they follow from `seed`.
pub fn seed(seed: u64) {
    SEEDED.set(Some(StdRng::seed_from_u64(seed)));
}

/// A random number, uniform in `range`.
pub fn uniform(range: RangeInclusive<f64>) -> f64 {
    SEEDED.with_borrow_mut(|seeded| match seeded {
        Some(rng) => rng.random_range(range),
        None => rand::rng().random_range(range),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_the_numbers() {
        let numbers = |seed| {
            super::seed(seed);
            [uniform(0.0..=1.0), uniform(0.5..=1.0), uniform(0.0..=9.0)].map(f64::to_bits)
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }
}
