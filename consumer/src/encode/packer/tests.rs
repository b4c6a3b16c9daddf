//! Every input once, in order, within limits; the urgent lane first; suspects alone.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, prelude::*};

use super::*;

fn packer(tokens_max: usize, items_max: usize) -> Packer<usize> {
    Packer::new(BatchLimits { tokens_max, items_max }, &Weights::default())
}

fn tokens(ids: Vec<u32>) -> Tokens {
    Tokens { first_len: ids.len(), ids, truncated: false }
}

/// `inputs` sequences of `tokens` each.
fn texts(inputs: usize, count: usize) -> Vec<Tokens> {
    vec![tokens(vec![7; count]); inputs]
}

fn entry(job: usize, inputs: Vec<Tokens>) -> Entry<usize> {
    let arrived_at = Instant::now();
    Entry {
        job,
        first: 0,
        inputs,
        finish: Finish::default(),
        input_type: InputType::default(),
        alone: false,
        arrived_at,
    }
}

fn pieces(batch: &Batch<usize>) -> Vec<(usize, usize, usize)> {
    batch.pieces.iter().map(|piece| (piece.job, piece.first, piece.count)).collect()
}

#[test]
fn small_jobs_share_a_batch_and_a_large_one_is_split() {
    let mut packer = packer(100, 50);
    packer.push(Lane::Batch, None, entry(1, texts(1, 30)));
    packer.push(Lane::Batch, None, entry(2, texts(9, 20)));
    assert_eq!(pieces(&packer.pack(Lane::Batch, Instant::now())), [(1, 0, 1), (2, 0, 3)]);
    assert_eq!(pieces(&packer.pack(Lane::Batch, Instant::now())), [(2, 3, 5)]);
    assert_eq!(pieces(&packer.pack(Lane::Batch, Instant::now())), [(2, 8, 1)]);
    assert!(packer.is_empty() && packer.all_tokens() == 0);
}

#[test]
fn a_later_part_of_a_job_keeps_the_numbers_of_its_inputs() {
    let mut packer = packer(50, 50);
    packer.push(Lane::Batch, None, Entry { first: 40, ..entry(1, texts(3, 20)) });
    assert_eq!(pieces(&packer.pack(Lane::Batch, Instant::now())), [(1, 40, 2)]);
    assert_eq!(pieces(&packer.pack(Lane::Batch, Instant::now())), [(1, 42, 1)]);
}

#[test]
fn an_input_over_the_budget_is_computed_alone() {
    let mut packer = packer(100, 50);
    packer.push(Lane::Batch, None, entry(1, texts(2, 200)));
    assert_eq!(pieces(&packer.pack(Lane::Batch, Instant::now())), [(1, 0, 1)]);
    assert_eq!(pieces(&packer.pack(Lane::Batch, Instant::now())), [(1, 1, 1)]);
}

#[test]
fn a_batch_has_inputs_of_one_lane_alone() {
    let mut packer = packer(30, 50);
    packer.push(Lane::Batch, None, entry(0, texts(6, 10)));
    packer.push(Lane::Interactive, None, entry(1, texts(2, 10)));
    packer.push(Lane::Interactive, None, entry(2, texts(1, 5)));
    assert_eq!(pieces(&packer.pack(Lane::Batch, Instant::now())), [(0, 0, 3)]);
    assert_eq!(pieces(&packer.pack(Lane::Interactive, Instant::now())), [(1, 0, 2), (2, 0, 1)]);
    packer.push(Lane::Interactive, None, entry(3, texts(1, 10)));
    assert_eq!(pieces(&packer.pack(Lane::Interactive, Instant::now())), [(3, 0, 1)]);
    assert!(!packer.waits(Lane::Interactive) && packer.waits(Lane::Batch));
    assert_eq!((packer.tokens(Lane::Interactive), packer.tokens(Lane::Batch)), (0, 30));
}

#[test]
fn the_linger_counts_from_the_oldest_of_both_lanes() {
    let first = Instant::now();
    let later = first + Duration::from_millis(3);
    for (older, younger) in [(Lane::Batch, Lane::Interactive), (Lane::Interactive, Lane::Batch)] {
        let mut packer = packer(100, 50);
        assert_eq!(packer.oldest(), None);
        packer.push(younger, None, Entry { arrived_at: later, ..entry(1, texts(1, 10)) });
        assert_eq!(packer.oldest(), Some(later));
        packer.push(older, None, Entry { arrived_at: first, ..entry(2, texts(1, 10)) });
        assert_eq!(packer.oldest(), Some(first));
        packer.pack(older, Instant::now());
    }
}

#[test]
fn a_suspect_shares_no_batch_and_waits_for_no_batch_mates() {
    let mut packer = packer(100, 50);
    packer.push(Lane::Batch, None, entry(1, texts(1, 10)));
    assert!(!packer.is_full());
    packer.push(Lane::Batch, None, Entry { alone: true, ..entry(2, texts(3, 40)) });
    packer.push(Lane::Batch, None, entry(3, texts(2, 10)));
    packer.push(Lane::Interactive, None, entry(4, texts(1, 10)));
    assert!(packer.is_full());
    assert_eq!(pieces(&packer.pack(Lane::Interactive, Instant::now())), [(4, 0, 1)]);
    assert_eq!(pieces(&packer.pack(Lane::Batch, Instant::now())), [(1, 0, 1)]);
    assert_eq!(
        pieces(&packer.pack(Lane::Batch, Instant::now())),
        [(2, 0, 2)],
        "it may take several batches"
    );
    assert_eq!(
        pieces(&packer.pack(Lane::Batch, Instant::now())),
        [(2, 2, 1)],
        "and none of them is shared"
    );
    assert!(!packer.is_full());
    assert_eq!(pieces(&packer.pack(Lane::Batch, Instant::now())), [(3, 0, 2)]);
}

#[test]
fn tenants_that_wait_together_share_a_batch_in_turns_of_so_many_tokens() {
    let now = Instant::now();
    let mut packer = packer(1_000, 50);
    packer.push(Lane::Batch, Some("one"), entry(1, texts(40, 50)));
    packer.push(Lane::Batch, Some("two"), entry(2, texts(40, 50)));
    let turns = [(1, 0, 5), (2, 0, 5), (1, 5, 5), (2, 5, 5)];
    assert_eq!(pieces(&packer.pack(Lane::Batch, now)), turns);
    packer.push(Lane::Batch, Some("three"), entry(3, texts(1, 50)));
    let next = pieces(&packer.pack(Lane::Batch, now));
    assert!(next.contains(&(3, 0, 1)), "it waits for a turn of each and no more: {next:?}");
}

#[test]
fn a_suspect_has_a_batch_to_itself_also_beside_other_tenants() {
    let now = Instant::now();
    let mut packer = packer(1_000, 50);
    packer.push(Lane::Batch, Some("one"), Entry { alone: true, ..entry(1, texts(10, 50)) });
    packer.push(Lane::Batch, Some("two"), entry(2, texts(4, 50)));
    let batch = packer.pack(Lane::Batch, now);
    assert!(batch.alone);
    assert_eq!(pieces(&batch), [(1, 0, 10)], "a turn of it is not cut");
    let batch = packer.pack(Lane::Batch, now);
    assert!(!batch.alone);
    assert_eq!(pieces(&batch), [(2, 0, 4)]);
}

proptest! {
    #[test]
    fn every_input_is_packed_once_in_order_and_within_limits(
        jobs in vec((any::<bool>(), any::<bool>(), vec(0_usize..40, 1..12)), 1..20),
        turns in vec(any::<bool>(), 1..20),
        tokens_max in 1_usize..100,
        items_max in 1_usize..10,
    ) {
        let mut packer = packer(tokens_max, items_max);
        for (job, (urgent, alone, lengths)) in jobs.iter().enumerate() {
            let lane = if *urgent { Lane::Interactive } else { Lane::Batch };
            let inputs = lengths.iter().map(|&length| tokens(vec![job as u32; length])).collect();
            packer.push(lane, [None, Some("one"), Some("two")][job % 3], Entry { alone: *alone, ..entry(job, inputs) });
        }
        let mut packed: BTreeMap<usize, usize> = BTreeMap::new();
        let mut turns = turns.into_iter().cycle();
        while !packer.is_empty() {
            let is_urgent = turns.next().unwrap_or_default() && packer.waits(Lane::Interactive);
            let lane = if is_urgent || !packer.waits(Lane::Batch) { Lane::Interactive } else { Lane::Batch };
            let batch = packer.pack(lane, Instant::now());
            let sequences = batch.packed.sequences();
            prop_assert!(sequences > 0 && sequences <= items_max);
            prop_assert!(batch.packed.tokens() <= tokens_max || sequences == 1);
            let shared = batch.pieces.len() > 1;
            prop_assert!(!shared || batch.pieces.iter().all(|piece| !jobs[piece.job].1));
            let is_of_lane = |piece: &Piece<usize>| jobs[piece.job].0 == (lane == Lane::Interactive);
            prop_assert!(batch.pieces.iter().all(is_of_lane));
            let mut row = 0;
            for piece in &batch.pieces {
                let next = packed.entry(piece.job).or_default();
                prop_assert_eq!(piece.first, *next);
                *next += piece.count;
                for index in piece.first..piece.first + piece.count {
                    let range = batch.packed.cu_seqlens().range(row);
                    prop_assert_eq!(range.len(), jobs[piece.job].2[index]);
                    let ids = &batch.packed.token_ids()[range];
                    prop_assert!(ids.iter().all(|&id| id as usize == piece.job));
                    row += 1;
                }
            }
            prop_assert_eq!(row, sequences);
        }
        for (job, (_, _, lengths)) in jobs.iter().enumerate() {
            prop_assert_eq!(packed.get(&job), Some(&lengths.len()));
        }
    }
}
