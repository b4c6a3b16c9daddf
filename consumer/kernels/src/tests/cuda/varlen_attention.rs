//! `varlen_attention` on the executor.

use candle_core::{DType, Tensor};
use proptest::prelude::*;

use super::super::{Setting, cu_seqlens, doubles, lengths, masks, noise, noisy, tensor};
use super::{CASES, Memory, assert_agrees, halves, operand, rounded, rounding, run};
use crate::Mask;
use crate::cuda::launch::{self, Half, Tiles};

/// One case. For the CPU implementation and for f64 the linear layer's bias is added to `qkv` first.
pub(super) fn check(
    setting: Setting,
    half: Half,
    lengths: &[usize],
    with_bias: bool,
    past: u32,
    seed: u64,
) {
    let Setting { heads, dim, mask, scale, biased } = setting;
    let cu_seqlens = cu_seqlens(lengths);
    let width = 3 * heads * dim;
    let (_, qkv_values) = operand(half, seed, &[cu_seqlens.tokens(), width]);
    let bias_values: Vec<f32> = noise(seed + 1, width).iter().map(|value| value / 4.0).collect();
    let longest = lengths.iter().copied().max().unwrap_or_default() + 2;
    let (distance_bias, distance_values) = noisy(seed + 2, &[heads, 2 * longest - 1]);

    let mut memory = Memory::past(past);
    let tiles = Tiles::new(&cu_seqlens);
    let launch = launch::VarlenAttention {
        out: memory.output(half, cu_seqlens.tokens() * heads * dim),
        qkv: memory.halves(half, &qkv_values),
        bias: with_bias.then(|| memory.floats(&bias_values)),
        distance_bias: biased.then(|| (memory.floats(&distance_values), 2 * longest as u32 - 1)),
        tiles: memory.words(&tiles.words),
        heads: heads as u32,
        dim: dim as u32,
        mask,
        scale: scale.unwrap_or(1.0 / (dim as f32).sqrt()),
    };
    let out = launch.out;
    run(&mut memory, launch.launch(half, &tiles));

    // Queries are rounded once more with their bias, and a score sums up many of them.
    let sum = |(index, value): (usize, &f32)| {
        let sum = if with_bias { value + bias_values[index % width] } else { *value };
        if index % width < heads * dim { rounded(half, sum) } else { sum }
    };
    let sums: Vec<f32> = qkv_values.iter().enumerate().map(sum).collect();
    let op = setting.op(&cu_seqlens, &distance_bias);
    let exact = op.reference(&doubles(&sums), dim);
    let sums: Tensor = tensor(&sums, &[cu_seqlens.tokens(), width]);
    let on_cpu = op.forward(&sums.to_dtype(DType::F32).unwrap()).unwrap();
    // Probabilities are rounded, then the result. Scores of up to a hundred round before they are exponents.
    assert_agrees(&memory.read(half, out), &exact, &on_cpu, 2.0 * rounding(half) + 2e-5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn any_lengths_and_heads_agree(
        half in halves(),
        lengths in lengths(),
        heads in 1..4_usize,
        dim in prop_oneof![Just(32_usize), Just(64), 1..40_usize],
        mask in masks(),
        scale in prop::option::of(0.01..0.5_f32),
        biased: bool,
        with_bias: bool,
        past in prop_oneof![3 => Just(0), 1 => (1..8_u32).prop_map(|values| 2 * values)],
        seed in 0..u64::MAX / 2,
    ) {
        check(Setting { heads, dim, mask, scale, biased }, half, &lengths, with_bias, past, seed);
    }
}

#[test]
fn sequences_of_many_tiles_agree_under_every_mask() {
    for mask in [Mask::Bidirectional, Mask::Causal, Mask::Window(3), Mask::Window(90)] {
        check(Setting { mask, ..Setting::plain(2, 32) }, Half::F16, &[200, 1, 131], true, 0, 4);
    }
}

#[test]
fn large_heads_agree() {
    check(Setting::plain(2, 128), Half::Bf16, &[70, 33], true, 0, 5);
    check(Setting::plain(1, 100), Half::F16, &[40], false, 0, 6);
}
