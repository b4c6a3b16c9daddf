//! Chance, for jitter: real, or of a seed where a test wants the same schedule again.

use std::{cell::RefCell, ops::RangeInclusive};

use rand::{Rng, SeedableRng, rngs::StdRng};

thread_local! {
    static LOADED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// From now on what this thread throws follows from `seed`.
pub fn load(seed: u64) {
    LOADED.set(Some(StdRng::seed_from_u64(seed)));
}

/// A number from `range`, each as likely as the other.
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
