//! How long outputs are expected to be, by those that ended lately.

use std::collections::VecDeque;

/// Outputs that are remembered: enough for a stable quantile, few enough to follow a change of what is asked.
const REMEMBERED: usize = 128;
/// With fewer than these nothing is expected, and a job's own limit counts.
const LEAST: usize = 8;

/// The lengths of the last outputs.
#[derive(Debug, Default)]
pub struct Expected {
    lengths: VecDeque<usize>,
}

impl Expected {
    /// An output ended with so many tokens.
    pub fn ended(&mut self, tokens: usize) {
        if self.lengths.len() == REMEMBERED {
            self.lengths.pop_front();
        }
        self.lengths.push_back(tokens);
    }

    /// The tokens that nine of ten outputs stay within; `None` while too few are known.
    pub fn tokens(&self) -> Option<usize> {
        if self.lengths.len() < LEAST {
            return None;
        }
        let mut sorted: Vec<usize> = self.lengths.iter().copied().collect();
        let at = (sorted.len() * 9).div_ceil(10) - 1;
        Some(*sorted.select_nth_unstable(at).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_of_ten_outputs_stay_within_what_is_expected_and_old_ones_are_forgotten() {
        let mut expected = Expected::default();
        for tokens in 1..LEAST {
            expected.ended(tokens);
            assert_eq!(expected.tokens(), None);
        }
        (LEAST..=100).for_each(|tokens| expected.ended(tokens));
        assert_eq!(expected.tokens(), Some(90));
        (0..REMEMBERED).for_each(|_| expected.ended(5));
        assert_eq!(expected.tokens(), Some(5));
    }
}
