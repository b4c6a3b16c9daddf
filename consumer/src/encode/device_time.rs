//! The device's time, counted in whole microseconds and shared out to the jobs of each batch by their tokens.
//!
//! Nothing is lost to rounding: a batch's shares add up to its time, and the times of all batches to what was measured,
//! less a part of the last microsecond.

use std::time::Duration;

const NANOS_PER_MICRO: u64 = 1_000;

/// Counts a device's time in whole microseconds. What a batch leaves over counts with the next.
#[derive(Debug, Default)]
pub struct DeviceTime {
    /// Nanoseconds that are not counted yet: less than a microsecond.
    left_ns: u64,
}

impl DeviceTime {
    /// The microseconds that a batch adds.
    pub fn add(&mut self, took: Duration) -> u64 {
        // A batch of centuries counts as one of centuries.
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX - NANOS_PER_MICRO);
        let ns = ns.saturating_add(self.left_ns);
        self.left_ns = ns % NANOS_PER_MICRO;
        ns / NANOS_PER_MICRO
    }
}

/// Shares a batch's time out to its pieces, by the tokens of each.
pub fn share(total_us: u64, tokens: &[usize]) -> Vec<u64> {
    let all: u128 = tokens.iter().map(|&tokens| tokens as u128).sum();
    let mut until_now: u128 = 0;
    let mut given = 0;
    let share = |&tokens: &usize| {
        until_now += tokens as u128;
        // By the running total, so that the last piece brings the sum to the whole. Inputs have tokens; if none had,
        // the first would have it all.
        let due = match all {
            0 => total_us,
            all => (u128::from(total_us) * until_now / all) as u64,
        };
        let share = due - given;
        given = due;
        share
    };
    tokens.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_piece_gets_time_by_its_tokens() {
        assert_eq!(share(100, &[1, 3]), [25, 75]);
        assert_eq!(share(10, &[1, 1, 1]), [3, 3, 4]);
        assert_eq!(share(1, &[5, 5]), [0, 1]);
        assert_eq!(share(7, &[0, 0]), [7, 0]);
        assert_eq!(share(7, &[]), [0; 0]);
    }

    #[test]
    fn parts_of_a_microsecond_are_counted_once_they_are_whole() {
        let mut time = DeviceTime::default();
        let added: Vec<u64> = (0..5).map(|_| time.add(Duration::from_nanos(1_400))).collect();
        assert_eq!(added, [1, 1, 2, 1, 2]);
    }

    proptest! {
        #[test]
        fn shares_add_up_to_the_whole_and_none_is_a_microsecond_off(
            total_us in 0..u64::MAX / 2,
            tokens in prop::collection::vec(0..1_000_000_usize, 1..50),
        ) {
            let shares = share(total_us, &tokens);
            prop_assert_eq!(shares.iter().sum::<u64>(), total_us);
            let all: u128 = tokens.iter().map(|&n| n as u128).sum();
            for (share, n) in shares.iter().zip(&tokens) {
                let Some(exact) = (u128::from(total_us) * *n as u128).checked_div(all) else { break };
                prop_assert!(u128::from(*share).abs_diff(exact) <= 1);
            }
        }
    }
}
