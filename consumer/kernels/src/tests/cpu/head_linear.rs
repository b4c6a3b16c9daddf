//! `head_linear` on the processor.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::super::{DTYPES, assert_close, doubles, noisy_in, values};
use super::weight;
use crate::HeadLinear;
use crate::cpu::simd::Isa;
use crate::ops::head_linear::reference;

/// The layer and its weight's values.
fn layer(dtype: DType, seed: u64, sizes: [usize; 3]) -> (HeadLinear, Vec<f32>) {
    let [heads, outputs, inputs] = sizes;
    let (weight, plain) = weight(dtype, seed, [heads * outputs, inputs]);
    (HeadLinear::new(&weight.reshape(&sizes[..]).unwrap(), dtype).unwrap(), plain)
}

/// The first `count` values of each head of rows.
fn firsts(values: &[f32], width: usize, count: usize) -> Vec<f32> {
    values.chunks_exact(width).flat_map(|head| head[..count].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_sizes_agree_and_values_beyond_stay(
        rows in 0..120_usize,
        heads in 1..5_usize,
        outputs in prop_oneof![Just(64_usize), 1..80_usize],
        half in 1..50_usize,
        more in 0..9_usize,
        seed in 0..u64::MAX / 2,
    ) {
        let inputs = 2 * half;
        for (dtype, rounding) in DTYPES {
            let (layer, weight) = layer(dtype, seed, [heads, outputs, inputs]);
            let (x, plain) = noisy_in(dtype, seed + 1, &[rows, heads * (inputs + more)]);
            let x_used = doubles(&firsts(&plain, inputs + more, inputs));
            let expected = reference(&x_used, &doubles(&weight), [heads, outputs, inputs]);
            Isa::each(|| {
                let (out, before) = noisy_in(dtype, seed + 2, &[rows, heads * (outputs + more)]);
                layer.forward_into(&x, &out).unwrap();
                let after = values(&out);
                let pairs = after.chunks_exact(outputs + more).zip(before.chunks_exact(outputs + more));
                for (after, before) in pairs {
                    assert_eq!(after[outputs..], before[outputs..]);
                }
                let made = firsts(&after, outputs + more, outputs);
                let made = Tensor::from_slice(&made, made.len(), &Device::Cpu).unwrap();
                assert_close(&made, &expected, rounding + 1e-5);
            });
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_whatever_rows_are_beside_it() {
    for (dtype, _) in DTYPES {
        let (layer, _) = layer(dtype, 3, [3, 40, 96]);
        let (x, _) = noisy_in(dtype, 4, &[200, 3 * 96]);
        Isa::each(|| {
            let of = |first: usize, count: usize| {
                let x = x.narrow(0, first, count).unwrap();
                let out = Tensor::zeros((count, 3 * 40), dtype, &Device::Cpu).unwrap();
                layer.forward_into(&x, &out).unwrap();
                values(&out)
            };
            let whole = of(0, 200);
            for (first, count) in [(0, 1), (17, 5), (95, 1), (96, 104), (199, 1)] {
                assert_eq!(of(first, count), whole[first * 120..(first + count) * 120]);
            }
        });
    }
}
