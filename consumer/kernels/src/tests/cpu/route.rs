//! `route` on the processor.

use candle_core::{DType, Tensor};
use proptest::prelude::*;

use super::super::{DTYPES, doubles, noise, noisy_in, tensor};
use super::weight;
use crate::cpu::simd::Isa;
use crate::ops::linear::reference;
use crate::{Activation, Groups, KernelError, Linear, Router, Routes, Scoring};

const SCORINGS: [Scoring; 3] = [Scoring::Softmax, Scoring::SoftmaxOfChosen, Scoring::Sigmoid];

fn router(linear: Linear, scoring: Scoring, top_k: usize) -> Router {
    Router {
        linear,
        top_k,
        scoring,
        correction: None,
        groups: None,
        normalizes: scoring != Scoring::SoftmaxOfChosen,
        scale: 1.0,
    }
}

/// A router whose layer gives its input: `x` is what scores are made of.
fn plain(experts: usize, scoring: Scoring, top_k: usize) -> Router {
    let mut identity = vec![0.0; experts * experts];
    identity.iter_mut().step_by(experts + 1).for_each(|value| *value = 1.0);
    let weight = tensor(&identity, &[experts, experts]);
    router(Linear::wide(&weight, None, DType::F32).unwrap(), scoring, top_k)
}

fn routed(router: &Router, x: &Tensor) -> Routes {
    let mut routes = Routes::default();
    router.forward_into(x, &mut routes).unwrap();
    routes
}

/// The expected experts and weights, and for each token whether its experts are the same for results that are off a
/// little: where two scores are nearly alike, rounding decides.
fn expected(op: &Router, logits: &[f64]) -> (Vec<u32>, Vec<f64>, Vec<bool>) {
    let (experts, weights) = op.reference(logits);
    let mut certain = vec![true; experts.len() / op.top_k];
    for seed in 0..16 {
        let off = doubles(&noise(seed, logits.len()));
        let moved: Vec<f64> = logits.iter().zip(off).map(|(l, off)| l + 1e-5 * off).collect();
        let others = op.reference(&moved).0;
        let pairs = experts.chunks(op.top_k).zip(others.chunks(op.top_k));
        certain.iter_mut().zip(pairs).for_each(|(certain, (one, other))| *certain &= one == other);
    }
    (experts, weights, certain)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn routes_are_those_of_the_formula(
        tokens in 0..30_usize,
        half_hidden in 1..30_usize,
        (size, count) in (1..12_usize, 1..6_usize),
        (kept, top_k, best) in (0..6_usize, 0..60_usize, 0..8_usize),
        scoring in prop::sample::select(&SCORINGS[..]),
        [with_bias, corrected, grouped, normalizes] in any::<[bool; 4]>(),
        seed in 0..u64::MAX / 2,
    ) {
        let experts = size * count;
        let hidden = 2 * half_hidden;
        let kept = kept % count + 1;
        let groups = grouped.then_some(Groups { count, kept, best: best % size.min(8) + 1 });
        let top_k = top_k % if grouped { kept * size } else { experts } + 1;
        let bias = if with_bias { noise(seed, experts) } else { vec![0.0; experts] };
        let correction = tensor(&noise(seed + 1, experts), &[experts]);
        // The weight is not rounded, whatever the states are.
        let (weight, weights) = weight(DType::F32, seed + 2, [experts, hidden]);
        for (dtype, _) in DTYPES {
            let (x, x_values) = noisy_in(dtype, seed + 3, &[tokens, hidden]);
            let op = Router {
                correction: corrected.then(|| correction.clone()),
                groups,
                normalizes,
                scale: 1.5,
                ..router(Linear::wide(&weight, Some(&tensor(&bias, &[experts])), dtype).unwrap(), scoring, top_k)
            };
            let [x_values, weights, bias] = [&x_values, &weights, &bias].map(|values| doubles(values));
            let logits = reference(&x_values, &weights, &bias, hidden, Activation::None);
            let (chosen, by, certain) = expected(&op, &logits);
            Isa::each(|| {
                let routes = routed(&op, &x);
                assert_eq!(routes.experts().len(), tokens * top_k);
                for token in (0..tokens).filter(|&token| certain[token]) {
                    let these = token * top_k..(token + 1) * top_k;
                    assert_eq!(routes.experts()[these.clone()], chosen[these.clone()]);
                    for (weight, by) in routes.weights()[these.clone()].iter().zip(&by[these]) {
                        assert!((f64::from(*weight) - by).abs() < 3e-5, "{weight}, expected {by}");
                    }
                }
            });
        }
    }
}

#[test]
fn of_equal_scores_that_of_the_lower_index_is_taken() {
    let x = tensor(&[1.0, 2.0, 2.0, 0.5, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], &[2, 6]);
    for scoring in SCORINGS {
        Isa::each(|| {
            let op = plain(6, scoring, 4);
            assert_eq!(routed(&op, &x).experts(), [1, 2, 4, 0, 0, 1, 2, 3]);
            let groups = Some(Groups { count: 3, kept: 2, best: 1 });
            assert_eq!(routed(&Router { groups, ..op }, &x).experts(), [1, 2, 0, 3, 0, 1, 2, 3]);
        });
    }
}

#[test]
fn a_correction_chooses_and_does_not_weigh() {
    let x = tensor(&[0.0, 0.0, 0.0, 0.0], &[1, 4]);
    let correction = Some(tensor(&[0.0, 3.0, -1.0, 1.0], &[4]));
    let op = Router { correction, scale: 3.0, ..plain(4, Scoring::Sigmoid, 2) };
    let routes = routed(&op, &x);
    assert_eq!((routes.experts(), routes.weights()), (&[1, 3][..], &[1.5, 1.5][..]));
}

#[test]
fn scores_that_are_no_numbers_choose_some_experts_and_weigh_by_no_number() {
    for scoring in SCORINGS {
        for broken in [f32::NAN, f32::INFINITY] {
            let x = tensor(&[1.0, broken, 1.0, 1.0, 1.0, 3.0, 2.0, 1.0], &[2, 4]);
            let op = Router {
                groups: Some(Groups { count: 2, kept: 1, best: 2 }),
                ..plain(4, scoring, 2)
            };
            Isa::each(|| {
                let routes = routed(&op, &x);
                assert!(routes.experts().iter().all(|&expert| expert < 4));
                assert_eq!(routes.experts()[2..], [1, 0], "the other token goes where it went");
                // The identity of the test's layer makes no number of all results of an infinite one.
                assert!(routes.weights()[..2].iter().all(|weight| weight.is_nan()), "{scoring:?}");
            });
        }
    }
}

#[test]
fn a_token_s_route_has_the_same_bits_beside_any_others() {
    for (dtype, _) in DTYPES {
        let linear = Linear::wide(&weight(DType::F32, 1, [32, 48]).0, None, dtype).unwrap();
        let groups = Some(Groups { count: 8, kept: 3, best: 2 });
        for scoring in SCORINGS {
            let op = Router { groups, ..router(linear.clone(), scoring, 5) };
            let (x, _) = noisy_in(dtype, 2, &[40, 48]);
            Isa::each(|| {
                let whole = routed(&op, &x);
                for (first, count) in (0..40).map(|row| (row, 1)).chain([(3, 2), (7, 12), (20, 20)])
                {
                    let part = routed(&op, &x.narrow(0, first, count).unwrap());
                    let these = first * 5..(first + count) * 5;
                    assert_eq!(part.experts(), &whole.experts()[these.clone()]);
                    assert_eq!(part.weights(), &whole.weights()[these]);
                }
            });
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let x = tensor(&[0.0; 12], &[2, 6]);
    let of = |op: Router| op.forward_into(&x, &mut Routes::default()).unwrap_err();
    let plain = || plain(6, Scoring::Softmax, 2);
    let named = |op: Router, name: &str| match of(op) {
        KernelError::Shape { op: "route", operand, .. } => assert_eq!(operand, name),
        other => panic!("{name}: {other}"),
    };
    named(Router { top_k: 0, ..plain() }, "top_k");
    named(Router { top_k: 7, ..plain() }, "top_k");
    for (count, kept, best) in
        [(4, 1, 1), (0, 0, 0), (3, 0, 1), (3, 4, 1), (3, 1, 0), (3, 1, 3), (6, 1, 1)]
    {
        named(Router { groups: Some(Groups { count, kept, best }), ..plain() }, "groups");
    }
    named(Router { correction: Some(tensor(&[0.0; 5], &[5])), ..plain() }, "correction");
    for scale in [0.0, f32::NAN, -1.0] {
        let error = of(Router { scale, ..plain() });
        assert!(matches!(error, KernelError::Factor { name: "scale", .. }), "{error}");
    }
    let narrow = tensor(&[0.0; 10], &[2, 5]);
    let error = plain().forward_into(&narrow, &mut Routes::default()).unwrap_err();
    assert!(matches!(error, KernelError::Shape { operand: "x", .. }), "{error}");
}
