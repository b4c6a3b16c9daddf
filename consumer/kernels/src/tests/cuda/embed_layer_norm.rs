//! `embed_layer_norm` on the executor.

use proptest::prelude::*;

use super::super::{cu_seqlens, doubles, layer_norm, lengths, values};
use super::{CASES, Memory, assert_agrees, halves, offsets, operand, rounding, run, widths};
use crate::EmbedLayerNorm;
use crate::cuda::launch::{self, Half};

/// One case of `embed_layer_norm`.
pub(super) fn check(
    half: Half,
    lengths: &[usize],
    hidden: usize,
    typed: bool,
    positioned: bool,
    past: u32,
    seed: u64,
) {
    let cu_seqlens = cu_seqlens(lengths);
    let tokens = cu_seqlens.tokens();
    let first_position = 2;
    let norm = layer_norm(seed + 3, hidden);
    let token_ids: Vec<u32> = (0..tokens).map(|token| (token * 17 % 50) as u32).collect();
    let type_ids: Vec<u32> = (0..tokens).map(|token| (token % 2) as u32).collect();
    let positions_of: Vec<u32> = lengths.iter().flat_map(|&tokens| 0..tokens as u32).collect();
    let tables = [50, 75, 2].map(|rows| operand(half, seed + rows as u64, &[rows, hidden]));
    let [(words, word_values), (positions, position_values), (types, type_values)] = &tables;
    let mut memory = Memory::past(past);
    let launch = launch::EmbedLayerNorm {
        out: memory.output(half, tokens * hidden),
        words: memory.halves(half, word_values),
        positions: positioned.then(|| memory.halves(half, position_values)),
        types: positioned.then(|| memory.halves(half, type_values)),
        token_ids: memory.words(&token_ids),
        type_ids: typed.then(|| memory.words(&type_ids)),
        token_positions: memory.words(&positions_of),
        scale: memory.floats(&values(&norm.scale)),
        shift: memory.floats(&values(&norm.shift)),
        tokens: tokens as u32,
        hidden: hidden as u32,
        first_position,
        eps: norm.eps,
    };
    let out = launch.out;
    run(&mut memory, launch.launch(half));
    let op = EmbedLayerNorm {
        token_ids: &token_ids,
        type_ids: typed.then_some(&type_ids),
        cu_seqlens: &cu_seqlens,
        first_position: first_position as usize,
        norm: &norm,
    };
    let [word_values, position_values, type_values] =
        [word_values, position_values, type_values].map(|values| doubles(values));
    let exact = op.reference(
        &word_values,
        positioned.then_some(&position_values[..]),
        positioned.then_some(&type_values[..]),
    );
    let on_cpu =
        op.forward(words, positioned.then_some(positions), positioned.then_some(types)).unwrap();
    assert_agrees(&memory.read(half, out), &exact, &on_cpu, rounding(half) + 2e-4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn gathered_rows_are_normalised(
        half in halves(), lengths in lengths(), hidden in widths(), typed: bool, positioned: bool, past in offsets(),
        seed in 0..u64::MAX / 2,
    ) {
        check(half, &lengths, hidden, typed, positioned, past, seed);
    }
}
