//! `weight_rows`, and `linear` with its sums as they are: what heads of language models need.

use candle_core::{DType, Device, Tensor};
use half::f16;

use super::super::{DTYPES, noise, noisy_in, tensor, values};
use crate::cpu::simd::Isa;
use crate::{Activation, BLOCK, Fp4Block, KernelError, Linear, Q4Block, Q8Block};

const OUTPUTS: usize = 75;
const INPUTS: usize = 96;

/// Layers of every packing, each with its weight in f32.
fn layers(dtype: DType) -> Vec<(Linear, Vec<f32>)> {
    let none = Activation::None;
    let (weight, plain) = noisy_in(dtype, 1, &[OUTPUTS, INPUTS]);
    let mut layers = vec![(Linear::new(&weight, None, none, dtype).unwrap(), plain)];
    let factors = noise(2, OUTPUTS * INPUTS / BLOCK);
    let quants = noise(3, OUTPUTS * INPUTS);
    for wide in [false, true] {
        let factor = |value: f32| if wide { value / 3.0 } else { f16::from_f32(value).to_f32() };
        let made = factors.iter().zip(quants.as_chunks::<BLOCK>().0);
        let four = |(scale, quants): (&f32, &[f32; BLOCK])| Q4Block {
            scale: factor(*scale),
            minimum: factor(scale * -5.0),
            quants: std::array::from_fn(|at| (quants[at] * 64.0) as i8 as u8),
        };
        let blocks: Vec<Q4Block> = made.clone().map(four).collect();
        let layer = Linear::of_q4(OUTPUTS, INPUTS, &blocks, None, none, dtype).unwrap();
        layers.push((layer, blocks.iter().flat_map(Q4Block::weights).collect()));
        let table = |(scale, quants): (&f32, &[f32; BLOCK])| Fp4Block {
            scale: factor(*scale),
            quants: std::array::from_fn(|at| (quants[at] * 64.0) as i8 as u8),
        };
        let blocks: Vec<Fp4Block> = made.clone().map(table).collect();
        let layer = Linear::of_fp4(OUTPUTS, INPUTS, &blocks, None, none, dtype).unwrap();
        layers.push((layer, blocks.iter().flat_map(Fp4Block::weights).collect()));
        for halves in [false, true] {
            let eight = |(scale, quants): (&f32, &[f32; BLOCK])| Q8Block {
                scales: [factor(*scale), factor(if halves { scale * 2.0 } else { *scale })],
                minimum: if halves { factor(scale + 1.0) } else { 0.0 },
                quants: quants.map(|quant| (quant * 64.0) as i8),
            };
            let blocks: Vec<Q8Block> = made.clone().map(eight).collect();
            let layer = Linear::of_q8(OUTPUTS, INPUTS, &blocks, None, none, dtype).unwrap();
            layers.push((layer, blocks.iter().flat_map(Q8Block::weights).collect()));
        }
    }
    layers
}

#[test]
fn rows_are_those_of_the_checkpoint_rounded_once() {
    let wanted: Vec<u32> = (0..40).map(|index| index * 31 % OUTPUTS as u32).collect();
    for (of_layer, _) in DTYPES {
        for (layer, weight) in layers(of_layer) {
            for (of_rows, _) in DTYPES {
                let out = Tensor::zeros((wanted.len(), INPUTS), of_rows, &Device::Cpu).unwrap();
                layer.weight_rows_into(&wanted, &out).unwrap();
                let weight = tensor(&weight, &[OUTPUTS, INPUTS]).to_dtype(of_rows).unwrap();
                let ids = Tensor::new(&wanted[..], &Device::Cpu).unwrap();
                assert_eq!(values(&out), values(&weight.index_select(&ids, 0).unwrap()));
            }
        }
    }
}

#[test]
fn sums_that_are_kept_in_f32_are_those_that_would_have_been_rounded() {
    for (dtype, _) in DTYPES {
        let (x, _) = noisy_in(dtype, 4, &[9, INPUTS]);
        let bias = tensor(&noise(5, OUTPUTS), &[OUTPUTS]);
        let (weight, _) = noisy_in(dtype, 6, &[OUTPUTS, INPUTS]);
        let int8 = Linear::int8(&weight, Some(&bias), Activation::None, dtype).unwrap();
        let plain = Linear::new(&weight, Some(&bias), Activation::None, dtype).unwrap();
        let layers = layers(dtype).into_iter().map(|(layer, _)| layer);
        for layer in layers.chain([int8, plain]) {
            Isa::each(|| {
                let mut sums = vec![f32::NAN; 9 * OUTPUTS];
                layer.forward_f32_into(&x, &mut sums).unwrap();
                let rounded = tensor(&sums, &[9, OUTPUTS]).to_dtype(dtype).unwrap();
                assert_eq!(values(&rounded), values(&layer.forward(&x).unwrap()));
            });
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let (weight, _) = noisy_in(DType::F32, 1, &[8, 32]);
    let layer = Linear::new(&weight, None, Activation::None, DType::F32).unwrap();
    let out = Tensor::zeros((2, 32), DType::F32, &Device::Cpu).unwrap();
    layer.weight_rows_into(&[7, 0], &out).unwrap();
    let error = layer.weight_rows_into(&[7, 8], &out).unwrap_err();
    assert!(matches!(error, KernelError::OutsideTable { value: 8, rows: 8, .. }), "{error}");
    let error = layer.weight_rows_into(&[7], &out).unwrap_err();
    assert!(matches!(error, KernelError::Shape { operand: "out", .. }), "{error}");
    let int8 = Linear::int8(&weight, None, Activation::None, DType::F32).unwrap();
    assert!(!int8.keeps_weight() && layer.keeps_weight());
    let error = int8.weight_rows_into(&[7, 0], &out).unwrap_err();
    assert!(matches!(error, KernelError::DType { operand: "weight", .. }), "{error}");
    let error = layer.forward_f32_into(&weight, &mut [0.0; 63]).unwrap_err();
    assert!(matches!(error, KernelError::Shape { operand: "out", .. }), "{error}");
    let error =
        layer.forward_f32_into(&out.t().unwrap().contiguous().unwrap(), &mut []).unwrap_err();
    assert!(matches!(error, KernelError::Shape { operand: "x", .. }), "{error}");
}
