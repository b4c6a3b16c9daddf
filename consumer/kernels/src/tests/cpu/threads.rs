//! Results do not depend on the thread that computes them, by one bit.

use candle_core::DType;
use rayon::ThreadPoolBuilder;

use super::super::{DTYPES, cu_seqlens, noisy_in, values};
use crate::{Activation, Linear, VarlenAttention, alone};

/// In pools of one to five threads, and on one thread of the largest.
fn assert_same_everywhere(work: impl Fn() -> Vec<f32> + Sync) {
    let expected = work();
    for threads in 1..=5 {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(&work), expected, "{threads} threads");
        assert_eq!(pool.install(|| alone(&work)), expected, "alone among {threads}");
    }
}

/// A layer of each number type, and each in int8.
fn layers(shape: [usize; 2], activation: Activation) -> impl Iterator<Item = (DType, Linear)> {
    DTYPES.into_iter().flat_map(move |(dtype, _)| {
        let weight = noisy_in(dtype, 1, &shape).0;
        let kinds = [Linear::new, Linear::int8];
        kinds.map(|kind| (dtype, kind(&weight, None, activation, dtype).unwrap()))
    })
}

#[test]
fn a_linear_layer_gives_the_same_bits_on_any_number_of_threads() {
    for (dtype, layer) in layers([200, 96], Activation::Gelu) {
        for tokens in [1, 11, 25, 130] {
            let (x, _) = noisy_in(dtype, 2, &[tokens, 96]);
            assert_same_everywhere(|| values(&layer.forward(&x).unwrap()));
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_whatever_rows_are_beside_it() {
    for (dtype, layer) in layers([70, 96], Activation::Silu) {
        let (x, _) = noisy_in(dtype, 2, &[40, 96]);
        let whole = values(&layer.forward(&x).unwrap());
        for (first, count) in [(0, 1), (3, 2), (7, 12), (20, 20), (39, 1)] {
            let part = values(&layer.forward(&x.narrow(0, first, count).unwrap()).unwrap());
            assert_eq!(part, whole[first * 70..(first + count) * 70], "rows from {first}");
        }
    }
}

#[test]
fn attention_gives_the_same_bits_on_any_number_of_threads() {
    for (dtype, _) in DTYPES {
        let cu_seqlens = cu_seqlens(&[3, 40, 0, 77]);
        let (qkv, _) = noisy_in(dtype, 3, &[120, 3 * 4 * 16]);
        assert_same_everywhere(|| {
            values(&VarlenAttention::new(&cu_seqlens, 4).forward(&qkv).unwrap())
        });
    }
}

#[test]
fn being_alone_ends_with_the_work_even_if_that_panics() {
    let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| {
        let panicked =
            std::panic::catch_unwind(|| alone(|| std::panic::resume_unwind(Box::new(1))));
        assert!(panicked.is_err());
        assert_eq!(crate::cpu::parallel::threads(), 2);
        alone(|| {
            alone(|| ());
            assert_eq!(crate::cpu::parallel::threads(), 1);
        });
    });
}
