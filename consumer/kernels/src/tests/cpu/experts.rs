//! `experts` on the processor.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

use super::super::{DTYPES, assert_close, doubles, noise, noisy_in, tensor, values};
use super::weight;
use crate::cpu::simd::Isa;
use crate::ops::experts::reference;
use crate::ops::{blocks, linear};
use crate::{
    Activation, AnyGate, BLOCK, ClampedGate, ExpertRows, Experts, Gate, KernelError, Linear,
    Q4Block, Q8Block, Routes, alone,
};

/// How experts' weights are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Int8,
    /// Blocks of four and of eight bits, from expert to expert.
    Blocks,
}

const KINDS: [Kind; 3] = [Kind::Plain, Kind::Int8, Kind::Blocks];

const CLAMPED: ClampedGate = ClampedGate { alpha: 1.702, limit: 1.25, plus: 1.0 };
const GATES: [AnyGate; 2] =
    [AnyGate::Plain(Gate { activation: Activation::Silu }), AnyGate::Clamped(CLAMPED)];

/// A layer with its weights.
struct Made {
    layer: Linear,
    weights: Vec<f64>,
    bias: Vec<f64>,
}

fn make(kind: Kind, dtype: DType, seed: u64, sizes: [usize; 2]) -> Made {
    let [outputs, inputs] = sizes;
    let bias = noise(seed, outputs);
    let bias_tensor = tensor(&bias, &[outputs]);
    let with = Some(&bias_tensor);
    let none = Activation::None;
    let (tensor, mut weights) = weight(dtype, seed + 1, sizes);
    let layer = match kind {
        Kind::Plain => Linear::new(&tensor, with, none, dtype),
        Kind::Int8 => Linear::int8(&tensor, with, none, dtype),
        Kind::Blocks => {
            let quants = noise(seed + 2, outputs * inputs);
            let blocks = quants.as_chunks::<BLOCK>().0;
            let scale = 0.02 / (inputs as f32).sqrt();
            if seed.is_multiple_of(2) {
                let four = |quants: &[f32; BLOCK]| Q4Block {
                    scale: 10.0 * scale,
                    minimum: -80.0 * scale,
                    quants: std::array::from_fn(|at| (quants[at] * 64.0) as i8 as u8),
                };
                let blocks: Vec<Q4Block> = blocks.iter().map(four).collect();
                weights = blocks.iter().flat_map(Q4Block::weights).collect();
                Linear::of_q4(outputs, inputs, &blocks, with, none, dtype)
            } else {
                let eight = |quants: &[f32; BLOCK]| Q8Block {
                    scales: [scale; 2],
                    minimum: 0.0,
                    quants: quants.map(|quant| (quant * 64.0) as i8),
                };
                let blocks: Vec<Q8Block> = blocks.iter().map(eight).collect();
                weights = blocks.iter().flat_map(Q8Block::weights).collect();
                Linear::of_q8(outputs, inputs, &blocks, with, none, dtype)
            }
        }
    };
    Made { layer: layer.unwrap(), weights: doubles(&weights), bias: doubles(&bias) }
}

/// Experts, with the layers that they are made of.
struct All {
    op: Experts,
    up: Vec<Made>,
    down: Vec<Made>,
    kind: Kind,
}

fn all(kind: Kind, dtype: DType, gate: AnyGate, [count, hidden, inner]: [usize; 3]) -> All {
    let layers = |seed, sizes| -> Vec<Made> {
        (0..count).map(|expert| make(kind, dtype, seed + expert as u64, sizes)).collect()
    };
    let [up, down] = [layers(10, [2 * inner, hidden]), layers(1000, [hidden, inner])];
    let of = |made: &[Made]| made.iter().map(|made| made.layer.clone()).collect();
    All { op: Experts::new(of(&up), gate, of(&down)).unwrap(), up, down, kind }
}

impl All {
    /// An expert's result for a row, in float64, each state rounded as `round` does.
    fn apply(&self, expert: usize, x: &[f64], round: impl Fn(f64) -> f64) -> Vec<f64> {
        let seen = |x: &[f64]| match self.kind {
            Kind::Blocks => {
                blocks::quantized(&x.iter().map(|value| *value as f32).collect::<Vec<_>>())
            }
            Kind::Plain | Kind::Int8 => x.to_vec(),
        };
        let through = |made: &Made, x: &[f64]| {
            linear::reference(&seen(x), &made.weights, &made.bias, x.len(), Activation::None)
        };
        let up: Vec<f64> = through(&self.up[expert], x).into_iter().map(&round).collect();
        let inner = up.len() / 2;
        let gated = match self.op.gate {
            AnyGate::Plain(gate) => gate.reference(&up, inner),
            AnyGate::Clamped(gate) => gate.reference(&up, inner),
        };
        let gated: Vec<f64> = gated.into_iter().map(&round).collect();
        through(&self.down[expert], &gated).into_iter().map(&round).collect()
    }
}

fn forward(op: &Experts, x: &Tensor, routes: &Routes) -> Tensor {
    let zeros = |width| Tensor::zeros((routes.rows(), width), x.dtype(), &Device::Cpu).unwrap();
    let [states, up, gated] = [op.hidden(), 2 * op.inner(), op.inner()].map(zeros);
    let rows = ExpertRows { states: &states, up: &up, gated: &gated };
    let out = x.zeros_like().unwrap();
    op.forward_into(x, routes, rows, &out).unwrap();
    out
}

/// Random routes; an expert may be a token's twice, which no router does and nothing forbids.
fn routes(experts: usize, top_k: usize, tokens: usize, seed: u64) -> Routes {
    let chosen = noise(seed, tokens * top_k);
    let chosen: Vec<u32> =
        chosen.iter().map(|value| ((value + 2.0) / 4.0 * experts as f32) as u32).collect();
    Routes::new(experts, top_k, &chosen, &noise(seed + 1, tokens * top_k)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn each_token_gets_the_weighted_sum_of_its_experts(
        tokens in 0..24_usize,
        [count, top_k] in [1..8_usize, 1..5_usize],
        [hidden, inner] in [1..3_usize, 1..4_usize],
        gate in 0..2_usize,
        seed in 0..u64::MAX / 2,
    ) {
        for (dtype, rounding) in DTYPES {
            for kind in [Kind::Plain, Kind::Blocks] {
                let sizes = [count, hidden * BLOCK, inner * BLOCK];
                let all = all(kind, dtype, GATES[gate], sizes);
                let (x, x_values) = noisy_in(dtype, seed, &[tokens, sizes[1]]);
                let routes = routes(count, top_k, tokens, seed + 1);
                let round = |value: f64| match dtype {
                    DType::BF16 => f64::from(half::bf16::from_f64(value).to_f32()),
                    _ => value,
                };
                let expected = reference(&doubles(&x_values), sizes[1], &routes, |expert, x| {
                    all.apply(expert, x, round)
                });
                // Sums of roundings; what is quantized may round to the next step by them.
                let steps = if kind == Kind::Blocks { 0.05 } else { 0.0 };
                let tolerance = 12.0 * rounding + steps + 1e-4;
                Isa::each(|| assert_close(&forward(&all.op, &x, &routes), &expected, tolerance));
            }
        }
    }
}

#[test]
fn rows_have_the_bits_of_their_layers_by_themselves() {
    for (dtype, _) in DTYPES {
        for kind in KINDS {
            let all = all(kind, dtype, GATES[0], [5, 64, 96]);
            let (x, _) = noisy_in(dtype, 2, &[30, 64]);
            let chosen: Vec<u32> = (0..30).map(|token| token % 4).collect();
            let routes = Routes::new(5, 1, &chosen, &[1.0; 30]).unwrap();
            Isa::each(|| {
                let together = values(&forward(&all.op, &x, &routes));
                for (token, expert) in chosen.iter().enumerate() {
                    let up =
                        all.up[*expert as usize].layer.forward(&x.narrow(0, token, 1).unwrap());
                    let gated =
                        Gate { activation: Activation::Silu }.forward(&up.unwrap()).unwrap();
                    let alone = all.down[*expert as usize].layer.forward(&gated).unwrap();
                    assert_eq!(together[token * 64..][..64], values(&alone), "{kind:?} {token}");
                }
            });
        }
    }
}

#[test]
fn a_token_has_the_same_bits_beside_any_others_and_on_any_number_of_threads() {
    for (dtype, _) in DTYPES {
        for kind in KINDS {
            for gate in GATES {
                let all = all(kind, dtype, gate, [7, 64, 64]);
                let (x, _) = noisy_in(dtype, 2, &[40, 64]);
                let whole_routes = routes(7, 3, 40, 5);
                let part = |first: usize, count: usize| {
                    let these = first * 3..(first + count) * 3;
                    let experts = &whole_routes.experts()[these.clone()];
                    let part = Routes::new(7, 3, experts, &whole_routes.weights()[these]).unwrap();
                    values(&forward(&all.op, &x.narrow(0, first, count).unwrap(), &part))
                };
                Isa::each(|| {
                    let whole = values(&forward(&all.op, &x, &whole_routes));
                    for (first, count) in [(0, 1), (3, 2), (7, 12), (20, 20), (39, 1)] {
                        let expected = &whole[first * 64..(first + count) * 64];
                        assert_eq!(part(first, count), expected, "{kind:?} from {first}");
                    }
                });
                let whole = values(&forward(&all.op, &x, &whole_routes));
                for threads in 1..=4 {
                    let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let shared = pool.install(|| values(&forward(&all.op, &x, &whole_routes)));
                    assert_eq!(shared, whole, "{threads} threads");
                }
                assert_eq!(alone(|| values(&forward(&all.op, &x, &whole_routes))), whole);
            }
        }
    }
}

#[test]
fn sums_begin_at_what_a_shared_expert_gave() {
    for (dtype, rounding) in DTYPES {
        let all = all(Kind::Plain, dtype, GATES[0], [3, 64, 32]);
        let (x, _) = noisy_in(dtype, 2, &[9, 64]);
        let routes = routes(3, 2, 9, 4);
        let (start, start_values) = noisy_in(dtype, 5, &[9, 64]);
        Isa::each(|| {
            let alone = values(&forward(&all.op, &x, &routes));
            let zeros = |width| Tensor::zeros((18, width), dtype, &Device::Cpu).unwrap();
            let [states, up, gated] = [64, 64, 32].map(zeros);
            let rows = ExpertRows { states: &states, up: &up, gated: &gated };
            let out = start.copy().unwrap();
            all.op.forward_onto(&x, &routes, rows, &out).unwrap();
            let sum = |(one, other): (&f32, &f32)| f64::from(*one) + f64::from(*other);
            let expected: Vec<f64> = start_values.iter().zip(&alone).map(sum).collect();
            assert_close(&out, &expected, 6.0 * rounding + 1e-6);
        });
    }
}

#[test]
fn bounds_hold_for_both_halves_and_no_number_passes_them() {
    let x = [9.0, -9.0, 1.0, f32::NAN, 9.0, -9.0, f32::NAN, 1.0];
    let gate = ClampedGate { alpha: 1.702, limit: 7.0, plus: 1.0 };
    Isa::each(|| {
        let out = Tensor::zeros((1, 4), DType::F32, &Device::Cpu).unwrap();
        gate.forward_into(&tensor(&x, &[1, 8]), &out).unwrap();
        let out = values(&out);
        assert!((out[0] - 7.0 * 8.0).abs() < 1e-3 && out[1].abs() < 1e-4, "{out:?}");
        assert!(out[2].is_nan() && out[3].is_nan(), "{out:?}");
    });
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let layer = |outputs, inputs| {
        let weight = weight(DType::F32, 1, [outputs, inputs]).0;
        Linear::new(&weight, None, Activation::None, DType::F32).unwrap()
    };
    let named = |up, down, name: &str| match Experts::new(up, GATES[0], down).unwrap_err() {
        KernelError::Shape { op: "experts", operand, .. } => assert_eq!(operand, name),
        other => panic!("{name}: {other}"),
    };
    named(vec![], vec![], "up");
    named(vec![layer(8, 6)], vec![], "up");
    named(vec![layer(8, 6)], vec![layer(6, 4), layer(6, 4)], "down");
    named(vec![layer(8, 6), layer(10, 6)], vec![layer(6, 4), layer(6, 4)], "up");
    named(vec![layer(8, 6)], vec![layer(5, 4)], "down");
    let op = Experts::new(vec![layer(8, 6)], GATES[0], vec![layer(6, 4)]).unwrap();
    let zeros = |rows, width| Tensor::zeros((rows, width), DType::F32, &Device::Cpu).unwrap();
    let [x, out] = [zeros(2, 6), zeros(2, 6)];
    let [states, up, gated] = [zeros(2, 6), zeros(2, 8), zeros(2, 4)];
    let rows = ExpertRows { states: &states, up: &up, gated: &gated };
    let to =
        |experts, tokens| Routes::new(experts, 1, &vec![0; tokens], &vec![1.0; tokens]).unwrap();
    op.forward_into(&x, &to(1, 2), rows, &out).unwrap();
    let named = |result: Result<(), KernelError>, name: &str| match result.unwrap_err() {
        KernelError::Shape { operand, .. } | KernelError::SharedMemory { operand, .. } => {
            assert_eq!(operand, name);
        }
        other => panic!("{name}: {other}"),
    };
    named(op.forward_into(&x, &to(1, 3), rows, &out), "routes");
    named(op.forward_into(&x, &to(2, 2), rows, &out), "routes");
    named(op.forward_into(&zeros(2, 7), &to(1, 2), rows, &out), "x");
    named(op.forward_into(&x, &to(1, 2), rows, &zeros(3, 6)), "out");
    named(op.forward_into(&x, &to(1, 2), ExpertRows { up: &gated, ..rows }, &out), "up");
    named(op.forward_into(&x, &to(1, 2), ExpertRows { states: &x, ..rows }, &out), "x");
    let broken = ClampedGate { alpha: 0.0, ..CLAMPED }.forward_into(&up, &gated).unwrap_err();
    assert!(matches!(broken, KernelError::Factor { name: "alpha", .. }), "{broken}");
}
