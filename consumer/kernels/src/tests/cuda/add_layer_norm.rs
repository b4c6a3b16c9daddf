//! `add_layer_norm` on the executor.

use proptest::prelude::*;

use super::super::{doubles, layer_norm, noisy, values};
use super::{
    CASES, Memory, assert_agrees, assert_near, halves, offsets, operand, rounding, run, widths,
};
use crate::AddLayerNorm;
use crate::cuda::launch::{self, HIDDEN_MAX, Half};

/// One case of `add_layer_norm`, with the sum kept or not.
pub(super) fn check(
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
    let out = memory.output(half, rows * hidden);
    let scale = memory.floats(&values(&op.norm.scale));
    let shift = memory.floats(&values(&op.norm.shift));
    let bias = with_bias.then(|| memory.floats(&bias_values));
    let launch = launch::AddLayerNorm {
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
    let [x_values, residual_values] = [x_values, residual_values].map(|values| doubles(&values));
    let sums = op.reference_sum(&x_values, &residual_values);
    // A row of two nearly equal values has a small variance, which magnifies the rounding of its sums.
    let tolerance = rounding(half) + 2e-4;
    if keep {
        let kept = memory.read(half, residual_at);
        assert_near(&kept, &sums, rounding(half), "sum");
        let normalised = op.norm.reference(&doubles(&kept));
        assert_near(&memory.read(half, out), &normalised, tolerance, "exact");
    } else {
        let on_cpu = op.forward(&x, &residual).unwrap();
        let normalised = op.norm.reference(&sums);
        assert_agrees(&memory.read(half, out), &normalised, &on_cpu, tolerance);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn sums_are_normalised(
        half in halves(), rows in 0..40_usize, hidden in widths(), keep: bool, with_bias: bool, past in offsets(),
        seed in 0..u64::MAX / 2,
    ) {
        check(half, [rows, hidden], keep, with_bias, past, seed);
    }
}

#[test]
fn rows_of_every_size_of_registers_are_normalised() {
    for hidden in [256, 512, 768, 1024, HIDDEN_MAX as usize] {
        check(Half::Bf16, [3, hidden], false, true, 0, 7);
    }
}
