//! How many tokens an output is expected to have, by the outputs that ended lately.

use std::collections::VecDeque;

/// Outputs that are remembered: enough for a stable mean, few enough to follow a change of what is asked.
pub const REMEMBERED: usize = 128;

/// The lengths of the last outputs of one model, at most [`REMEMBERED`].
#[derive(Debug, Clone, Default)]
pub struct Lengths {
    last: VecDeque<u64>,
    /// Those lengths by size, each with the sum of itself and of all that are longer.
    sums: Vec<(u64, u64)>,
}

impl Lengths {
    /// An output ended with so many tokens.
    pub fn ended(&mut self, tokens: u64) {
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(tokens);
        let mut lengths: Vec<u64> = self.last.iter().copied().collect();
        lengths.sort_unstable();
        let mut sum = 0_u64;
        let sums = lengths.into_iter().rev().map(|length| {
            sum = sum.saturating_add(length);
            (length, sum)
        });
        self.sums = sums.collect();
        self.sums.reverse();
    }

    /// The tokens that an output will have in all which has `so_far`, and `most` at most: the mean of those that were
    /// longer. One that is longer than all is expected to become twice as long as it is. `None` while none has ended.
    pub fn expected(&self, so_far: u64, most: u64) -> Option<u64> {
        if self.sums.is_empty() {
            return None;
        }
        let shorter = self.sums.partition_point(|(length, _)| *length <= so_far);
        let longer = (self.sums.len() - shorter) as u64;
        let expected = match self.sums.get(shorter) {
            Some((_, sum)) => sum.div_ceil(longer),
            None => so_far.saturating_mul(2),
        };
        Some(expected.min(most).max(so_far))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lengths(all: impl IntoIterator<Item = u64>) -> Lengths {
        let mut lengths = Lengths::default();
        all.into_iter().for_each(|tokens| lengths.ended(tokens));
        lengths
    }

    #[test]
    fn an_output_that_goes_on_is_expected_to_be_one_of_the_longer_ones() {
        assert_eq!(Lengths::default().expected(0, 100), None);
        let known = lengths([10, 20, 60]);
        assert_eq!(known.expected(0, 100), Some(30));
        assert_eq!(known.expected(10, 100), Some(40));
        assert_eq!(known.expected(0, 25), Some(25), "its own limit counts");
        assert_eq!(known.expected(60, 1_000), Some(120), "longer than all: as long again");
        assert_eq!(known.expected(60, 100), Some(100));
    }

    #[test]
    fn old_outputs_are_forgotten() {
        let known = lengths([9_000; 5].into_iter().chain([7; REMEMBERED]));
        assert_eq!(known.expected(0, 10_000), Some(7));
    }

    proptest! {
        #[test]
        fn what_is_expected_is_no_less_than_there_is_and_no_more_than_there_may_be(
            all in prop::collection::vec(any::<u64>(), 1..300),
            so_far in any::<u64>(),
            more in any::<u64>(),
        ) {
            let most = so_far.saturating_add(more);
            let expected = lengths(all).expected(so_far, most).unwrap();
            prop_assert!((so_far..=most).contains(&expected));
        }
    }
}
