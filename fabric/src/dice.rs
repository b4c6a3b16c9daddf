//! Random numbers for jitter: unpredictable, or seeded where a test repeats a schedule.

use std::{cell::RefCell, ops::RangeInclusive};

use rand::{Rng, SeedableRng, rngs::StdRng};

thread_local! {
    static LOADED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// Seeds this thread's numbers: from now on they follow from `seed`.
pub fn load(seed: u64) {
    LOADED.set(Some(StdRng::seed_from_u64(seed)));
}

/// A random number, uniform in `range`.
pub fn throw(range: RangeInclusive<f64>) -> f64 {
    LOADED.with_borrow_mut(|loaded| match loaded {
        Some(dice) => dice.random_range(range),
        None => rand::rng().random_range(range),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaded_dice_fall_the_same_way_again() {
        let throws = |seed| {
            load(seed);
            [throw(0.0..=1.0), throw(0.5..=1.0), throw(0.0..=9.0)].map(f64::to_bits)
        };
        assert_eq!(throws(7), throws(7));
        assert_ne!(throws(7), throws(8));
    }
}
