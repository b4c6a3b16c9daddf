//! Shares the device slots of a launcher among the pools that want them.
//!
//! Minimums come first, then wishes; each by priority. Among pools of one priority those that have workers keep them
//! before others get more: so two of them never take turns at taking from each other.

use std::cmp::Reverse;

/// The claim of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Higher priorities are served first.
    pub priority: i32,
    /// The fewest workers.
    pub min: u32,
    /// The workers that it wants, at least `min`.
    pub wanted: u32,
    /// The workers that it has and that are not draining.
    pub active: u32,
}

/// The number of slots that each claim gets, in their order.
pub fn share(claims: &[Claim], slots: u32) -> Vec<u32> {
    let mut granted = vec![0; claims.len()];
    let mut left = slots;
    let mut ranks: Vec<i32> = claims.iter().map(|claim| claim.priority).collect();
    ranks.sort_by_key(|priority| Reverse(*priority));
    ranks.dedup();
    for priority in &ranks {
        raise(claims, &mut granted, &mut left, *priority, |claim| claim.min);
    }
    for priority in &ranks {
        raise(claims, &mut granted, &mut left, *priority, |claim| claim.wanted.min(claim.active));
        raise(claims, &mut granted, &mut left, *priority, |claim| claim.wanted);
    }
    granted
}

/// Raises every grant of one rank up to a level, one slot a turn while there are any.
fn raise(
    claims: &[Claim],
    granted: &mut [u32],
    left: &mut u32,
    priority: i32,
    level: fn(&Claim) -> u32,
) {
    loop {
        let mut raised = false;
        for (claim, grant) in claims.iter().zip(granted.iter_mut()) {
            if claim.priority == priority && *grant < level(claim) && *left > 0 {
                *grant += 1;
                *left -= 1;
                raised = true;
            }
        }
        if !raised {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(priority: i32, min: u32, wanted: u32, active: u32) -> Claim {
        Claim { priority, min, wanted, active }
    }

    #[test]
    fn a_higher_priority_takes_what_it_wants_except_minimums() {
        let claims = [claim(0, 1, 4, 4), claim(10, 0, 9, 0)];
        assert_eq!(share(&claims, 4), [1, 3]);
    }

    #[test]
    fn among_equals_no_pool_takes_what_another_has() {
        assert_eq!(share(&[claim(0, 0, 4, 0), claim(0, 0, 3, 3)], 4), [1, 3]);
        assert_eq!(share(&[claim(0, 0, 4, 0), claim(0, 0, 4, 0)], 4), [2, 2]);
    }

    #[test]
    fn with_slots_enough_each_pool_gets_what_it_wants() {
        assert_eq!(share(&[claim(0, 0, 4, 0), claim(5, 2, 2, 0)], 100), [4, 2]);
    }

    proptest! {
        #[test]
        fn no_slot_is_given_twice_and_none_is_left_while_a_pool_waits(
            claims in prop::collection::vec((-3..3, 0..5_u32, 0..9_u32, 0..9_u32), 0..8),
            slots in 0..30_u32,
        ) {
            let claims: Vec<Claim> = claims
                .into_iter()
                .map(|(priority, min, more, active)| claim(priority, min, min + more, active))
                .collect();
            let granted = share(&claims, slots);
            let total: u32 = granted.iter().sum();
            let wanted: u32 = claims.iter().map(|claim| claim.wanted).sum();
            prop_assert_eq!(total, slots.min(wanted));
            for (claim, grant) in claims.iter().zip(&granted) {
                prop_assert!(*grant <= claim.wanted);
            }
        }

        #[test]
        fn a_pool_that_got_its_share_keeps_it(
            claims in prop::collection::vec((-3..3, 0..5_u32, 0..9_u32), 0..8),
            slots in 0..30_u32,
        ) {
            let mut claims: Vec<Claim> = claims
                .into_iter()
                .map(|(priority, min, more)| claim(priority, min, min + more, 0))
                .collect();
            let first = share(&claims, slots);
            for (claim, grant) in claims.iter_mut().zip(&first) {
                claim.active = *grant;
            }
            prop_assert_eq!(share(&claims, slots), first);
        }
    }
}
