//! `linear` of weights in blocks, against float64 on inputs quantized as the operation says.

use candle_core::DType;
use half::f16;
use proptest::prelude::*;

use super::super::{DTYPES, assert_close, doubles, noise, noisy, noisy_in, tensor, values};
use crate::cpu::simd::{Isa, IsaKind};
use crate::ops::blocks::quantized;
use crate::ops::linear::reference;
use crate::{Activation, BLOCK, FP4_DOUBLED, Fp4Block, Linear, Q4Block, Q8Block};

/// How a checkpoint's blocks are made, each after a format of GGUF.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// 4 bits, factors in f16: `Q4_1`; `Q4_0` has its minimum at -8 scales.
    Four,
    /// 4 bits, scales that f16 can't hold: `Q4_K`.
    FourWide,
    /// 4 bits of a table, a scale in f16 and one that it can't hold: `MXFP4`.
    Table,
    TableWide,
    /// 8 bits and a scale in f16: `Q8_0`, `Q5_0`.
    Eight,
    /// 8 bits, a scale that f16 can't hold.
    EightWide,
    /// With a minimum: `Q5_1`, `Q5_K`.
    EightMinimum,
    /// With a scale a half: `Q6_K`.
    EightHalves,
    /// With all of these.
    EightAll,
}

const KINDS: [Kind; 9] = [
    Kind::Four,
    Kind::FourWide,
    Kind::Table,
    Kind::TableWide,
    Kind::Eight,
    Kind::EightWide,
    Kind::EightMinimum,
    Kind::EightHalves,
    Kind::EightAll,
];

/// A layer and its weights in float64.
struct Made {
    layer: Linear,
    weights: Vec<f64>,
}

fn scale_of(kind: Kind, noise: f32) -> f32 {
    let scale = noise / 64.0;
    match kind {
        Kind::Four | Kind::Table | Kind::Eight => f16::from_f32(scale).to_f32(),
        _ => scale,
    }
}

/// A weight in float64, where nothing is rounded.
fn exact(scale: f32, quant: impl Into<f64>, minimum: f32) -> f64 {
    f64::from(scale) * quant.into() + f64::from(minimum)
}

fn make(
    kind: Kind,
    [outputs, inputs]: [usize; 2],
    bias: &[f32],
    activation: Activation,
    dtype: DType,
    seed: u64,
) -> Made {
    let count = outputs * inputs / BLOCK;
    let factors = noise(seed, 3 * count);
    let mut bytes = noise(seed + 1, count * BLOCK).into_iter().map(|value| (value * 64.0) as i8);
    let mut weights = Vec::new();
    let bias = (!bias.is_empty()).then(|| tensor(bias, &[outputs]));
    let mut fours = Vec::new();
    let mut eights = Vec::new();
    let mut tables = Vec::new();
    for factors in factors.chunks_exact(3) {
        let scale = scale_of(kind, factors[0]);
        let minimum = scale_of(kind, factors[1] * 8.0);
        let quants: [i8; BLOCK] = std::array::from_fn(|_| bytes.next().unwrap());
        if matches!(kind, Kind::Four | Kind::FourWide) {
            let quants: [u8; 16] = std::array::from_fn(|at| quants[at].cast_unsigned());
            let block = Q4Block { scale, minimum, quants };
            weights.extend(block.quants().map(|quant| exact(scale, quant, minimum)));
            fours.push(block);
        } else if matches!(kind, Kind::Table | Kind::TableWide) {
            let quants: [u8; 16] = std::array::from_fn(|at| quants[at].cast_unsigned());
            let block = Fp4Block { scale, quants };
            weights.extend(
                block.quants().map(|quant| exact(scale, FP4_DOUBLED[usize::from(quant)], 0.0)),
            );
            tables.push(block);
        } else {
            let halves = matches!(kind, Kind::EightHalves | Kind::EightAll);
            let second = if halves { factors[2] / 64.0 } else { scale };
            let with_minimum = matches!(kind, Kind::EightMinimum | Kind::EightAll);
            let minimum = if with_minimum { minimum } else { 0.0 };
            let block = Q8Block { scales: [scale, second], minimum, quants };
            let scales = (0..BLOCK).map(|at| block.scales[at / 16]);
            weights.extend(scales.zip(quants).map(|(scale, quant)| exact(scale, quant, minimum)));
            eights.push(block);
        }
    }
    let bias = bias.as_ref();
    let layer = if !tables.is_empty() {
        Linear::of_fp4(outputs, inputs, &tables, bias, activation, dtype)
    } else if fours.is_empty() {
        Linear::of_q8(outputs, inputs, &eights, bias, activation, dtype)
    } else {
        Linear::of_q4(outputs, inputs, &fours, bias, activation, dtype)
    };
    Made { layer: layer.unwrap(), weights }
}

fn check(
    kind: Kind,
    (dtype, rounding): (DType, f64),
    [tokens, inputs, outputs]: [usize; 3],
    activation: Activation,
    with_bias: bool,
    seed: u64,
) {
    let (x, x_values) = noisy_in(dtype, seed, &[tokens, inputs]);
    let bias = if with_bias { noise(seed + 2, outputs) } else { Vec::new() };
    let Made { layer, weights } = make(kind, [outputs, inputs], &bias, activation, dtype, seed + 3);
    let bias = if with_bias { doubles(&bias) } else { vec![0.0; outputs] };
    let expected = reference(&quantized(&x_values), &weights, &bias, inputs, activation);
    let mut fused: Option<Vec<f32>> = None;
    Isa::each(|| {
        let y = layer.forward(&x).unwrap();
        assert_eq!(y.dims(), [tokens, outputs]);
        assert_close(&y, &expected, rounding + 4e-6 * (inputs as f64).sqrt());
        if activation == Activation::None && Isa::best().kind() != IsaKind::Portable {
            let y = values(&y);
            assert_eq!(*fused.get_or_insert_with(|| y.clone()), y, "sets differ");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_shape_agrees(
        kind in prop::sample::select(&KINDS[..]),
        tokens in 1..40_usize,
        depth in 1..6_usize,
        outputs in 1..100_usize,
        activation in prop::sample::select(vec![Activation::None, Activation::Silu, Activation::GeluTanh]),
        with_bias: bool,
        seed in 0..u64::MAX / 2,
    ) {
        for dtype in DTYPES {
            check(kind, dtype, [tokens, depth * BLOCK, outputs], activation, with_bias, seed);
        }
    }
}

#[test]
fn every_kind_agrees_at_every_number_of_rows_that_is_multiplied_at_once() {
    for kind in KINDS {
        for tokens in 0..14 {
            check(kind, DTYPES[0], [tokens, 96, 40], Activation::None, true, tokens as u64);
        }
        check(kind, DTYPES[1], [700, 576, 33], Activation::None, false, 1);
    }
}

/// One input that is 127 and a block of zeros beside give back the weights as they are.
#[test]
fn weights_are_exact() {
    for kind in KINDS {
        let Made { layer, weights } = make(kind, [37, 64], &[], Activation::None, DType::F32, 5);
        let mut x = vec![0.0; 64 * 64];
        for (input, row) in x.chunks_exact_mut(64).enumerate() {
            row[input] = 127.0;
        }
        Isa::each(|| {
            let y = values(&layer.forward(&tensor(&x, &[64, 64])).unwrap());
            for (input, y) in y.chunks_exact(37).enumerate() {
                for (output, y) in y.iter().enumerate() {
                    let expected = 127.0 * 127.0 * weights[output * 64 + input] / 127.0;
                    let distance = (f64::from(*y) - expected).abs();
                    // Two terms, each rounded once, and their sum.
                    assert!(distance <= 2e-7 * 127.0 * 8.0, "{kind:?}: {y}, expected {expected}");
                }
            }
        });
    }
}

#[test]
fn extreme_bytes_of_both_sides_do_not_overflow() {
    let block = Q8Block { scales: [1.0; 2], minimum: 0.0, quants: [-128; BLOCK] };
    let eight = Linear::of_q8(1, 64, &[block; 2], None, Activation::None, DType::F32).unwrap();
    let block = Q4Block { scale: 1.0, minimum: -8.0, quants: [0xFF; 16] };
    let four = Linear::of_q4(1, 64, &[block; 2], None, Activation::None, DType::F32).unwrap();
    for sign in [1.0, -1.0] {
        let x = tensor(&[sign * 127.0; 64], &[1, 64]);
        Isa::each(|| {
            assert_eq!(values(&eight.forward(&x).unwrap()), [sign * 127.0 * 64.0 * -128.0]);
            assert_eq!(values(&four.forward(&x).unwrap()), [sign * 127.0 * 64.0 * 7.0]);
        });
    }
}

#[test]
fn a_non_finite_value_stays_in_its_row_and_zeros_give_the_bias() {
    let bias = noise(2, 40);
    for kind in KINDS {
        let Made { layer, .. } = make(kind, [40, 64], &bias, Activation::None, DType::F32, 1);
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![0.0; 3 * 64];
            x[70] = broken;
            // Too small for a step of its own.
            x[0] = f32::MIN_POSITIVE;
            Isa::each(|| {
                let y = values(&layer.forward(&tensor(&x, &[3, 64])).unwrap());
                assert_eq!(y[..40], bias[..]);
                assert!(y[40..80].iter().all(|value| value.is_nan()), "{broken}");
                assert_eq!(y[80..], bias[..]);
            });
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_whatever_rows_are_beside_it_and_on_any_number_of_threads() {
    for kind in KINDS {
        let Made { layer, .. } = make(kind, [70, 96], &[], Activation::Silu, DType::F32, 1);
        let (x, _) = noisy(2, &[40, 96]);
        Isa::each(|| {
            let whole = values(&layer.forward(&x).unwrap());
            for (first, count) in (0..40).map(|row| (row, 1)).chain([(3, 2), (7, 12), (20, 20)]) {
                let part = values(&layer.forward(&x.narrow(0, first, count).unwrap()).unwrap());
                assert_eq!(part, whole[first * 70..(first + count) * 70], "rows from {first}");
            }
            for threads in 1..=4 {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let isa = Isa::best().kind();
                let shared = pool.install(|| {
                    // The pool's threads have no set of the test's choice.
                    (Isa::best().kind() == isa).then(|| values(&layer.forward(&x).unwrap()))
                });
                assert!(shared.is_none_or(|shared| shared == whole), "{threads} threads");
            }
        });
    }
}

#[test]
fn blocks_that_do_not_fit_the_sizes_are_refused() {
    let block = Q4Block { scale: 1.0, minimum: 0.0, quants: [0; 16] };
    let make = |outputs, inputs, count: usize| {
        let blocks = vec![block; count];
        Linear::of_q4(outputs, inputs, &blocks, None, Activation::None, DType::F32)
    };
    assert!(make(2, 64, 4).is_ok());
    for (outputs, inputs, count) in [(2, 64, 3), (2, 48, 3), (2, 0, 0), (usize::MAX, 64, 2)] {
        let error = make(outputs, inputs, count).unwrap_err().to_string();
        assert!(error.contains("blocks has shape"), "{error}");
    }
    let bias = tensor(&[0.0; 3], &[3]);
    let blocks = [block; 4];
    let wrong = Linear::of_q4(2, 64, &blocks, Some(&bias), Activation::None, DType::F32);
    assert!(wrong.unwrap_err().to_string().contains("bias"));
}
