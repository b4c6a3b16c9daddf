//! Jobs that begin alike follow each other, none is passed over for ever, and deadlines go first.

use std::{collections::BTreeSet, time::Duration};

use proptest::{collection::vec, prelude::*};

use super::*;

const PAGE: usize = 4;

/// A job whose tokens are pages of these kinds, and one more token.
fn job(key: u64, pages: &[u32], output: usize) -> Queued {
    let mut tokens: Vec<u32> = pages.iter().flat_map(|page| [*page; PAGE]).collect();
    tokens.push(0);
    let prefix = Prefix::of(&tokens, 0, PAGE);
    let job = Waiting {
        key,
        tokens: tokens.len(),
        output_max: output,
        output_expected: None,
        prefix,
        expires: None,
    };
    Queued { job, output, due: None }
}

fn next(backlog: &mut Backlog, now: Instant) -> Option<u64> {
    let key = backlog.choose(now, false)?.job.key;
    backlog.done();
    Some(key)
}

fn all(backlog: &mut Backlog) -> Vec<u64> {
    let now = Instant::now();
    std::iter::from_fn(|| next(backlog, now)).collect()
}

fn of(passed_max: u32, jobs: impl IntoIterator<Item = Queued>) -> Backlog {
    let mut backlog = Backlog::new(passed_max);
    for job in jobs {
        backlog.push(job, Instant::now());
    }
    backlog
}

#[test]
fn groups_follow_each_other_the_largest_first_and_in_each_the_longest_output_first() {
    let jobs = [
        job(0, &[1, 1, 7], 10),
        job(1, &[2, 2, 7], 10),
        job(2, &[2, 2, 8], 30),
        job(3, &[1, 1, 9], 20),
        job(4, &[2, 2, 9], 20),
        job(5, &[3], 99),
    ];
    assert_eq!(all(&mut of(PASSED_MAX, jobs.clone())), [2, 4, 1, 3, 0, 5]);
    assert_eq!(all(&mut of(0, jobs)), [0, 1, 2, 3, 4, 5], "passed over by none: as they came");
}

#[test]
fn parts_of_a_group_that_share_more_are_finished_before_the_rest_of_it() {
    let jobs = [
        job(0, &[1, 5, 1], 10),
        job(1, &[1, 6, 2], 90),
        job(2, &[1, 5, 3], 10),
        job(3, &[1, 6, 4], 10),
        job(4, &[1, 5, 5], 10),
        job(5, &[2, 2], 10),
        job(6, &[2, 2], 10),
    ];
    assert_eq!(all(&mut of(PASSED_MAX, jobs)), [0, 2, 4, 1, 3, 5, 6]);
}

#[test]
fn a_group_goes_on_with_those_that_come_meanwhile() {
    let mut backlog =
        of(PASSED_MAX, [job(0, &[1], 9), job(1, &[1], 8), job(2, &[2], 7), job(3, &[2], 6)]);
    let now = Instant::now();
    assert_eq!(next(&mut backlog, now), Some(0));
    (10..15).for_each(|key| backlog.push(job(key, &[2], 1), now));
    backlog.push(job(20, &[1], 1), now);
    assert_eq!(next(&mut backlog, now), Some(1));
    assert_eq!(next(&mut backlog, now), Some(20));
    assert_eq!(next(&mut backlog, now), Some(2), "now the other");
}

#[test]
fn a_job_that_must_be_begun_goes_first_and_its_group_waits_no_longer_than_before() {
    let now = Instant::now();
    let due =
        |job: Queued, seconds| Queued { due: Some(now + Duration::from_secs(seconds)), ..job };
    let jobs = [
        job(0, &[1, 1], 10),
        job(1, &[1, 2], 9),
        job(2, &[1, 3], 8),
        due(job(3, &[5, 1], 1), 10),
        due(job(4, &[6, 1], 1), 5),
    ];
    let mut backlog = of(PASSED_MAX, jobs);
    assert_eq!(next(&mut backlog, now), Some(0));
    let later = now + Duration::from_secs(20);
    let rest: Vec<u64> = std::iter::from_fn(|| next(&mut backlog, later)).collect();
    assert_eq!(rest, [4, 3, 1, 2]);
}

#[test]
fn a_job_that_is_taken_out_counts_for_nothing() {
    let mut backlog =
        of(PASSED_MAX, [job(0, &[1], 1), job(1, &[1], 1), job(2, &[2], 1), job(3, &[2], 1)]);
    assert_eq!(backlog.remove(0).map(|queued| queued.job.key), Some(0));
    assert!(backlog.remove(0).is_none());
    assert_eq!(all(&mut backlog), [2, 3, 1]);
    assert!(backlog.with_page.is_empty() && backlog.oldest().is_none());
}

proptest! {
    #[test]
    fn no_job_is_passed_over_by_more_later_ones_than_allowed_and_none_is_lost(
        passed_max in 0_u32..20,
        window in 1_usize..40,
        // Mostly of one group, so that the others would wait for ever.
        groups in vec(prop_oneof![4 => Just(1_u32), 1 => 2_u32..6], 1..200),
    ) {
        let now = Instant::now();
        let mut backlog = Backlog::new(passed_max);
        let mut waiting: BTreeSet<u64> = BTreeSet::new();
        let mut passed = vec![0; groups.len()];
        let mut coming = groups.iter().enumerate();
        loop {
            while waiting.len() < window && let Some((key, group)) = coming.next() {
                backlog.push(job(key as u64, &[*group, key as u32], key % 7), now);
                waiting.insert(key as u64);
            }
            let Some(key) = next(&mut backlog, now) else { break };
            prop_assert!(waiting.remove(&key));
            for earlier in waiting.range(..key) {
                passed[*earlier as usize] += 1;
            }
        }
        prop_assert!(waiting.is_empty());
        prop_assert!(passed.iter().all(|passed| *passed <= passed_max), "{:?}", passed);
    }

    #[test]
    fn a_group_that_was_begun_is_finished_before_another_where_nothing_comes(
        groups in vec(1_u32..6, 1..60),
    ) {
        let jobs = groups.iter().enumerate();
        let jobs = jobs.map(|(key, group)| job(key as u64, &[*group, key as u32], 1));
        let order = all(&mut of(u32::MAX, jobs));
        let mut order: Vec<u32> = order.iter().map(|key| groups[*key as usize]).collect();
        order.dedup();
        let count = order.len();
        let different: BTreeSet<u32> = order.into_iter().collect();
        prop_assert_eq!(count, different.len());
    }
}
