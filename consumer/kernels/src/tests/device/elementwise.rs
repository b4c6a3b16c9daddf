//! `bias_activation`, `gate` and `rotary` on the executor.

use candle_core::Tensor;
use proptest::prelude::*;

use super::super::linear::ACTIVATIONS;
use super::super::math::activation_reference;
use super::super::{cu_seqlens, lengths, noisy, tensor, values};
use super::{CASES, Memory, assert_agrees, assert_near, halves, operand, rounding, run};
use crate::launch::{self, Half};
use crate::{Activation, Gate, Linear, Rotary};

fn activations() -> impl Strategy<Value = Activation> {
    prop::sample::select(&ACTIVATIONS[..])
}

/// What an activation of the processor's side may be off besides rounding: 2e-4 of what goes in, and more of the halves.
const TWIN: f64 = 1e-3;

/// One case of what closes a linear layer. Its twin is a whole layer whose weight changes nothing.
pub(super) fn check_bias(
    half: Half,
    [rows, width]: [usize; 2],
    with_bias: bool,
    activation: Activation,
    past: u32,
    seed: u64,
) {
    // The twin computes in f32: a layer in bf16 takes an even number of inputs.
    let (_, x_values) = operand(half, seed, &[rows, width]);
    let x = tensor(&x_values, &[rows, width]);
    let (bias, bias_values) = noisy(seed + 1, &[width]);
    let mut memory = Memory::past(past);
    let x_at = memory.halves(half, &x_values);
    let bias_at = with_bias.then(|| memory.floats(&bias_values));
    run(
        &mut memory,
        launch::bias_activation(half, x_at, bias_at, [rows as u32, width as u32], activation),
    );
    let exact = x_values.iter().zip(bias_values.iter().cycle()).map(|(x, bias)| {
        activation_reference(
            activation,
            f64::from(*x) + if with_bias { f64::from(*bias) } else { 0.0 },
        )
    });
    let exact: Vec<f64> = exact.collect();
    let same: Vec<f32> =
        (0..width * width).map(|at| f32::from(u8::from(at / width == at % width))).collect();
    let same: Tensor = tensor(&same, &[width, width]);
    let twin = Linear::new(&same, with_bias.then_some(&bias), activation, x.dtype())
        .unwrap()
        .forward(&x)
        .unwrap();
    assert_agrees(&memory.read(half, x_at), &exact, &twin, rounding(half) + TWIN);
}

/// One case of the middle of a gated layer.
pub(super) fn check_gate(
    half: Half,
    [rows, inner]: [usize; 2],
    activation: Activation,
    past: u32,
    seed: u64,
) {
    let (x, x_values) = operand(half, seed, &[rows, 2 * inner]);
    let mut memory = Memory::past(past);
    let (out, x_at) = (memory.room(half, rows * inner), memory.halves(half, &x_values));
    run(&mut memory, launch::gate(half, out, x_at, [rows as u32, inner as u32], activation));
    let gated = |row: &[f32]| -> Vec<f64> {
        let (left, right) = row.split_at(inner);
        let pairs = left.iter().zip(right);
        pairs
            .map(|(a, b)| activation_reference(activation, f64::from(*a)) * f64::from(*b))
            .collect()
    };
    let exact: Vec<f64> = x_values.chunks_exact(2 * inner).flat_map(gated).collect();
    assert_agrees(
        &memory.read(half, out),
        &exact,
        &Gate { activation }.forward(&x).unwrap(),
        rounding(half) + TWIN,
    );
}

/// One case of `rotary`.
pub(super) fn check_rotary(half: Half, lengths: &[usize], heads: usize, pairs: usize, seed: u64) {
    let cu_seqlens = cu_seqlens(lengths);
    let (tokens, dim) = (cu_seqlens.tokens(), 2 * pairs);
    let rotary = Rotary::new(dim, 10_000.0, 70).unwrap();
    let (qkv, qkv_values) = operand(half, seed, &[tokens, 3 * heads * dim]);
    let places: Vec<u32> = lengths.iter().flat_map(|&tokens| 0..tokens as u32).collect();
    let mut memory = Memory::default();
    let qkv_at = memory.halves(half, &qkv_values);
    let table = memory.floats(&values(rotary.table()));
    let places = memory.words(&places);
    run(
        &mut memory,
        launch::rotary(half, qkv_at, table, places, [tokens as u32, heads as u32, dim as u32]),
    );
    rotary.apply(&qkv, &cu_seqlens, heads).unwrap();
    let twin = values(&qkv);
    assert_near(
        &memory.read(half, qkv_at),
        twin.iter().map(|value| f64::from(*value)),
        rounding(half),
        "twin",
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn a_bias_is_added_and_the_sum_activated(
        half in halves(), rows in 0..40_usize, width in 1..80_usize, with_bias: bool, activation in activations(),
        past in (0..8_u32).prop_map(|values| 2 * values), seed in 0..u64::MAX / 2,
    ) {
        check_bias(half, [rows, width], with_bias, activation, past, seed);
    }

    #[test]
    fn one_half_gates_the_other(
        half in halves(), rows in 0..40_usize, inner in 1..80_usize, activation in activations(),
        past in (0..8_u32).prop_map(|values| 2 * values), seed: u64,
    ) {
        check_gate(half, [rows, inner], activation, past, seed);
    }

    #[test]
    fn queries_and_keys_turn(half in halves(), lengths in lengths(), heads in 1..4_usize, pairs in 1..20_usize, seed: u64) {
        check_rotary(half, &lengths, heads, pairs, seed);
    }
}
