//! `pool_normalize` on the processor.

use proptest::prelude::*;

use super::super::{DTYPES, assert_close, cu_seqlens, doubles, lengths, noisy_in, tensor, values};
use crate::cpu::simd::Isa;
use crate::{Finish, PoolNormalize, Pooling};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn each_sequence_gets_its_own_finish(
        lengths in lengths(),
        hidden in 1..140_usize,
        pooling in prop::sample::select(&[Pooling::Mean, Pooling::Cls, Pooling::Last, Pooling::Max][..]),
        finishes in prop::collection::vec((any::<bool>(), prop::option::of(0.0..1.0_f64)), 5),
        seed: u64,
    ) {
        let finish = |&(normalize, share): &(bool, Option<f64>)| {
            Finish { normalize, dimensions: share.map(|share| 1 + (share * hidden as f64) as usize) }
        };
        let finishes: Vec<Finish> = finishes.iter().map(finish).take(lengths.len()).collect();
        let cu_seqlens = cu_seqlens(&lengths);
        let op = PoolNormalize { cu_seqlens: &cu_seqlens, pooling, finishes: &finishes };
        // Vectors are f32 for both.
        for (dtype, _) in DTYPES {
            let (x, x_values) = noisy_in(dtype, seed, &[cu_seqlens.tokens(), hidden]);
            let expected = op.reference(&doubles(&x_values), hidden);
            Isa::each(|| assert_close(&op.forward(&x).unwrap(), &expected, 1e-5));
        }
    }
}

#[test]
fn a_nan_is_the_largest_value_wherever_it_stands() {
    let finishes = [Finish { normalize: false, dimensions: None }];
    for at in 0..3 {
        let mut x = [1.0, 2.0, 3.0];
        x[at] = f32::NAN;
        let op = PoolNormalize {
            cu_seqlens: &cu_seqlens(&[3]),
            pooling: Pooling::Max,
            finishes: &finishes,
        };
        assert!(values(&op.forward(&tensor(&x, &[3, 1])).unwrap())[0].is_nan(), "{at}");
    }
}

#[test]
fn a_zero_vector_is_not_scaled_up() {
    let finishes = [Finish::default()];
    let op = PoolNormalize {
        cu_seqlens: &cu_seqlens(&[2]),
        pooling: Pooling::Mean,
        finishes: &finishes,
    };
    let y = op.forward(&tensor(&[1.0, 2.0, -1.0, -2.0], &[2, 2])).unwrap();
    assert_eq!(values(&y), [0.0, 0.0]);
}
