//! `layer_norm`, `add_layer_norm`, `embed_layer_norm` and `pool_normalize` on the executor.

use proptest::prelude::*;

use super::super::{cu_seqlens, layer_norm, layer_norm_reference, lengths, noisy, pool, values};
use super::{CASES, Memory, assert_agrees, assert_near, halves, operand, rounding, run};
use crate::launch::{Embedding, HIDDEN_MAX, Half, Normalized, Pooled, finish_word};
use crate::{AddLayerNorm, EmbedLayerNorm, Finish, LayerNorm, PoolNormalize, Pooling};

/// Rows of a few values, of whole vectors, and of more than a warp has in one.
fn widths() -> impl Strategy<Value = usize> {
    prop_oneof![2..40_usize, (1..48_usize).prop_map(|vectors| 8 * vectors), 250..530_usize]
}

/// Bytes past a multiple of 256 at which operands begin: any whole value, most often none.
fn offsets() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 1 => (1..8_u32).prop_map(|values| 2 * values)]
}

fn doubles(values: &[f32]) -> impl Iterator<Item = f64> + '_ {
    values.iter().map(|value| f64::from(*value))
}

/// One case of `add_layer_norm`, with the sum kept or not.
pub(super) fn check_add(
    half: Half,
    [rows, hidden]: [usize; 2],
    keep: bool,
    with_bias: bool,
    past: u32,
    seed: u64,
) {
    let (x, x_values) = operand(half, seed, &[rows, hidden]);
    let (residual, residual_values) = operand(half, seed + 1, &[rows, hidden]);
    let (bias, bias_values) = noisy(seed + 2, &[hidden]);
    let op = AddLayerNorm { bias: with_bias.then_some(bias), norm: layer_norm(seed + 3, hidden) };
    let mut memory = Memory::past(past);
    let x_at = memory.halves(half, &x_values);
    let residual_at = memory.halves(half, &residual_values);
    let out = memory.room(half, rows * hidden);
    let (scale, shift) =
        (memory.floats(&values(&op.norm.scale)), memory.floats(&values(&op.norm.shift)));
    let bias = with_bias.then(|| memory.floats(&bias_values));
    let launch = Normalized {
        out,
        sum: keep.then_some(residual_at),
        x: x_at,
        residual: Some(residual_at),
        bias,
        scale,
        shift,
        rows: rows as u32,
        hidden: hidden as u32,
        eps: op.norm.eps,
    };
    run(&mut memory, launch.launch(half));
    let addends = bias_values.iter().map(|bias| if with_bias { *bias } else { 0.0 }).cycle();
    let sums: Vec<f64> = doubles(&x_values)
        .zip(doubles(&residual_values))
        .zip(addends)
        .map(|((a, b), c)| a + b + f64::from(c))
        .collect();
    let normalised = |sums: &[f64]| -> Vec<f64> {
        sums.chunks_exact(hidden).flat_map(|row| layer_norm_reference(row, &op.norm)).collect()
    };
    // A row of two nearly equal values has a small variance, which magnifies the rounding of its sums.
    let tolerance = rounding(half) + 2e-4;
    if keep {
        let (sum, twin) = (residual.copy().unwrap(), residual.zeros_like().unwrap());
        op.forward_both_into(&x, &sum, &twin).unwrap();
        let kept = memory.read(half, residual_at);
        assert_near(&kept, sums.iter().copied(), rounding(half), "sum");
        let kept: Vec<f64> = doubles(&kept).collect();
        assert_near(&memory.read(half, out), normalised(&kept).into_iter(), tolerance, "exact");
    } else {
        let twin = op.forward(&x, &residual).unwrap();
        assert_agrees(&memory.read(half, out), &normalised(&sums), &twin, tolerance);
    }
}

/// One case of `embed_layer_norm`.
pub(super) fn check_embed(
    half: Half,
    lengths: &[usize],
    hidden: usize,
    typed: bool,
    placed: bool,
    past: u32,
    seed: u64,
) {
    let cu_seqlens = cu_seqlens(lengths);
    let tokens = cu_seqlens.tokens();
    let (first_position, norm) = (2, layer_norm(seed + 3, hidden));
    let token_ids: Vec<u32> = (0..tokens).map(|token| (token * 17 % 50) as u32).collect();
    let type_ids: Vec<u32> = (0..tokens).map(|token| (token % 2) as u32).collect();
    let places: Vec<u32> = lengths.iter().flat_map(|&tokens| 0..tokens as u32).collect();
    let tables = [50, 75, 2].map(|rows| operand(half, seed + rows as u64, &[rows, hidden]));
    let [(words, word_values), (positions, position_values), (types, type_values)] = &tables;
    let mut memory = Memory::past(past);
    let launch = Embedding {
        out: memory.room(half, tokens * hidden),
        words: memory.halves(half, word_values),
        positions: placed.then(|| memory.halves(half, position_values)),
        types: placed.then(|| memory.halves(half, type_values)),
        token_ids: memory.words(&token_ids),
        type_ids: typed.then(|| memory.words(&type_ids)),
        token_positions: memory.words(&places),
        scale: memory.floats(&values(&norm.scale)),
        shift: memory.floats(&values(&norm.shift)),
        tokens: tokens as u32,
        hidden: hidden as u32,
        first_position,
        eps: norm.eps,
    };
    let out = launch.out;
    run(&mut memory, launch.launch(half));
    let row = |token: usize| {
        let at = |table: &[f32], row: usize, column: usize| f64::from(table[row * hidden + column]);
        let kind = if typed { token % 2 } else { 0 };
        let place = places[token] as usize + first_position as usize;
        let sum = |column: usize| {
            let places = at(position_values, place, column) + at(type_values, kind, column);
            at(word_values, token_ids[token] as usize, column) + if placed { places } else { 0.0 }
        };
        layer_norm_reference(&(0..hidden).map(sum).collect::<Vec<_>>(), &norm)
    };
    let exact: Vec<f64> = (0..tokens).flat_map(row).collect();
    let op = EmbedLayerNorm {
        token_ids: &token_ids,
        type_ids: typed.then_some(&type_ids),
        cu_seqlens: &cu_seqlens,
        first_position: first_position as usize,
        norm: &norm,
    };
    let twin = op.forward(words, placed.then_some(positions), placed.then_some(types)).unwrap();
    assert_agrees(&memory.read(half, out), &exact, &twin, rounding(half) + 2e-4);
}

/// One case of `pool_normalize`.
pub(super) fn check_pool(
    half: Half,
    lengths: &[usize],
    hidden: usize,
    pooling: Pooling,
    finishes: &[Finish],
    seed: u64,
) {
    let cu_seqlens = cu_seqlens(lengths);
    let (x, x_values) = operand(half, seed, &[cu_seqlens.tokens(), hidden]);
    let starts: Vec<u32> = cu_seqlens.as_slice().iter().map(|&start| start as u32).collect();
    let words: Vec<u32> =
        finishes.iter().map(|finish| finish_word(*finish, hidden as u32)).collect();
    let mut memory = Memory::default();
    let launch = Pooled {
        out: memory.room_for_floats(lengths.len() * hidden),
        x: memory.halves(half, &x_values),
        starts: memory.words(&starts),
        finishes: memory.words(&words),
        sequences: lengths.len() as u32,
        hidden: hidden as u32,
        pooling,
    };
    let out = launch.out;
    run(&mut memory, launch.launch(half));
    let exact = pool::reference(&x_values, lengths, hidden, pooling, finishes);
    let twin = PoolNormalize { cu_seqlens: &cu_seqlens, pooling, finishes }.forward(&x).unwrap();
    assert_agrees(&memory.read_floats(out), &exact, &twin, 1e-5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn sums_are_normalised(
        half in halves(), rows in 0..40_usize, hidden in widths(), keep: bool, with_bias: bool, past in offsets(),
        seed in 0..u64::MAX / 2,
    ) {
        check_add(half, [rows, hidden], keep, with_bias, past, seed);
    }

    #[test]
    fn gathered_rows_are_normalised(
        half in halves(), lengths in lengths(), hidden in widths(), typed: bool, placed: bool, past in offsets(),
        seed in 0..u64::MAX / 2,
    ) {
        check_embed(half, &lengths, hidden, typed, placed, past, seed);
    }

    #[test]
    fn each_sequence_is_pooled_and_finished(
        half in halves(),
        lengths in lengths(),
        hidden in widths(),
        pooling in prop::sample::select(&[Pooling::Mean, Pooling::Cls, Pooling::Last, Pooling::Max][..]),
        finishes in prop::collection::vec((any::<bool>(), prop::option::of(0.0..1.0_f64)), 5),
        seed: u64,
    ) {
        let finish = |&(normalize, share): &(bool, Option<f64>)| {
            Finish { normalize, dimensions: share.map(|share| 1 + (share * hidden as f64) as usize) }
        };
        let finishes: Vec<Finish> = finishes.iter().map(finish).take(lengths.len()).collect();
        check_pool(half, &lengths, hidden, pooling, &finishes, seed);
    }
}

#[test]
fn rows_of_every_size_of_registers_are_normalised() {
    for hidden in [256, 512, 768, 1024, HIDDEN_MAX as usize] {
        check_add(Half::Bf16, [3, hidden], false, true, 0, 7);
    }
}

#[test]
fn rows_are_normalised_by_themselves() {
    let (half, norm): (_, LayerNorm) = (Half::Bf16, layer_norm(6, 100));
    let (x, x_values) = operand(half, 5, &[9, 100]);
    let mut memory = Memory::default();
    let launch = Normalized {
        out: memory.room(half, 900),
        sum: None,
        x: memory.halves(half, &x_values),
        residual: None,
        bias: None,
        scale: memory.floats(&values(&norm.scale)),
        shift: memory.floats(&values(&norm.shift)),
        rows: 9,
        hidden: 100,
        eps: norm.eps,
    };
    let out = launch.out;
    run(&mut memory, launch.launch(half));
    let exact: Vec<f64> = doubles(&x_values).collect();
    let exact: Vec<f64> =
        exact.chunks_exact(100).flat_map(|row| layer_norm_reference(row, &norm)).collect();
    assert_agrees(
        &memory.read(half, out),
        &exact,
        &norm.forward(&x).unwrap(),
        rounding(half) + 2e-4,
    );
}
