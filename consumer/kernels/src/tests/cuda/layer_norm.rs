//! `layer_norm` on the executor: the kernel of `add_layer_norm` without an addend.

use super::super::{doubles, layer_norm, values};
use super::{Memory, assert_agrees, operand, rounding, run};
use crate::LayerNorm;
use crate::cuda::launch::{self, Half};

#[test]
fn rows_are_normalised_by_themselves() {
    let half = Half::Bf16;
    let norm: LayerNorm = layer_norm(6, 100);
    let (x, x_values) = operand(half, 5, &[9, 100]);
    let mut memory = Memory::default();
    let launch = launch::AddLayerNorm {
        out: memory.output(half, 900),
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
    let exact = norm.reference(&doubles(&x_values));
    let on_cpu = norm.forward(&x).unwrap();
    assert_agrees(&memory.read(half, out), &exact, &on_cpu, rounding(half) + 2e-4);
}
