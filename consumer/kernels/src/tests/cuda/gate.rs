//! `gate` on the executor.

use proptest::prelude::*;

use super::super::doubles;
use super::{
    CASES, CPU_ACTIVATION, Memory, activations, assert_agrees, halves, operand, rounding, run,
};
use crate::cuda::launch::{self, Half};
use crate::{Activation, Gate};

/// One case of the middle of a gated layer.
pub(super) fn check(
    half: Half,
    [rows, inner]: [usize; 2],
    activation: Activation,
    past: u32,
    seed: u64,
) {
    let (x, x_values) = operand(half, seed, &[rows, 2 * inner]);
    let mut memory = Memory::past(past);
    let out = memory.output(half, rows * inner);
    let x_at = memory.halves(half, &x_values);
    run(&mut memory, launch::gate(half, out, x_at, [rows as u32, inner as u32], activation));
    let op = Gate { activation };
    let exact = op.reference(&doubles(&x_values), inner);
    let on_cpu = op.forward(&x).unwrap();
    assert_agrees(&memory.read(half, out), &exact, &on_cpu, rounding(half) + CPU_ACTIVATION);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn one_half_gates_the_other(
        half in halves(), rows in 0..40_usize, inner in 1..80_usize, activation in activations(),
        past in (0..8_u32).prop_map(|values| 2 * values), seed: u64,
    ) {
        check(half, [rows, inner], activation, past, seed);
    }
}
