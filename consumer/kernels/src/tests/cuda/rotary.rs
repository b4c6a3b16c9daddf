//! `rotary` on the executor.

use proptest::prelude::*;

use super::super::{cu_seqlens, doubles, lengths, values};
use super::{CASES, Memory, assert_agrees, halves, operand, rounding, run};
use crate::Rotary;
use crate::cuda::launch::{self, Half};
use crate::ops::rotary::reference;

/// One case of `rotary`.
pub(super) fn check(half: Half, lengths: &[usize], heads: usize, pairs: usize, seed: u64) {
    let cu_seqlens = cu_seqlens(lengths);
    let tokens = cu_seqlens.tokens();
    let dim = 2 * pairs;
    let rotary = Rotary::new(dim, 10_000.0, 70).unwrap();
    let (qkv, qkv_values) = operand(half, seed, &[tokens, 3 * heads * dim]);
    let positions: Vec<u32> = lengths.iter().flat_map(|&tokens| 0..tokens as u32).collect();
    let mut memory = Memory::default();
    let qkv_at = memory.halves(half, &qkv_values);
    let table = memory.floats(&values(&rotary.table));
    let positions = memory.words(&positions);
    run(
        &mut memory,
        launch::rotary(half, qkv_at, table, positions, [tokens as u32, heads as u32, dim as u32]),
    );
    rotary.apply(&qkv, &cu_seqlens, heads).unwrap();
    let mut exact = doubles(&qkv_values);
    reference(&mut exact, &cu_seqlens, heads, dim, 10_000.0);
    assert_agrees(&memory.read(half, qkv_at), &exact, &qkv, rounding(half));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn queries_and_keys_turn(
        half in halves(), lengths in lengths(), heads in 1..4_usize, pairs in 1..20_usize, seed: u64,
    ) {
        check(half, &lengths, heads, pairs, seed);
    }
}
