//! `pool_normalize` against means and norms in f64.

use proptest::prelude::*;

use super::{assert_close, cu_seqlens, lengths, noisy, tensor, values};
use crate::simd::Isa;
use crate::{Finish, PoolNormalize, Pooling};

fn reference(
    x: &[f32],
    lengths: &[usize],
    hidden: usize,
    pooling: Pooling,
    finishes: &[Finish],
) -> Vec<f64> {
    let mut rows = x.chunks_exact(hidden);
    let mut out = Vec::new();
    for (&tokens, finish) in lengths.iter().zip(finishes) {
        let sequence: Vec<&[f32]> = rows.by_ref().take(tokens).collect();
        let used = match pooling {
            Pooling::Mean => sequence.as_slice(),
            Pooling::Cls => &sequence[..tokens.min(1)],
        };
        let mut pooled = vec![0.0; hidden];
        for column in 0..finish.dimensions.unwrap_or(hidden) {
            let sum: f64 = used.iter().map(|row| f64::from(row[column])).sum();
            pooled[column] = sum / used.len().max(1) as f64;
        }
        let norm = pooled.iter().map(|value| value * value).sum::<f64>().sqrt().max(1e-12);
        out.extend(pooled.iter().map(|value| if finish.normalize { value / norm } else { *value }));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn each_sequence_gets_its_own_finish(
        lengths in lengths(),
        hidden in 1..140_usize,
        cls: bool,
        finishes in prop::collection::vec((any::<bool>(), prop::option::of(0.0..1.0_f64)), 5),
        seed: u64,
    ) {
        let finish = |&(normalize, share): &(bool, Option<f64>)| {
            Finish { normalize, dimensions: share.map(|share| 1 + (share * hidden as f64) as usize) }
        };
        let finishes: Vec<Finish> = finishes.iter().map(finish).take(lengths.len()).collect();
        let cu_seqlens = cu_seqlens(&lengths);
        let pooling = if cls { Pooling::Cls } else { Pooling::Mean };
        let (x, x_values) = noisy(seed, &[cu_seqlens.tokens(), hidden]);
        let expected = reference(&x_values, &lengths, hidden, pooling, &finishes);
        let op = PoolNormalize { cu_seqlens: &cu_seqlens, pooling, finishes: &finishes };
        Isa::each(|| assert_close(&op.forward(&x).unwrap(), &expected, 1e-5));
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
