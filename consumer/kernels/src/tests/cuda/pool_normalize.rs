//! `pool_normalize` on the executor.

use proptest::prelude::*;

use super::super::{cu_seqlens, doubles, lengths};
use super::{CASES, Memory, assert_agrees, halves, operand, run, widths};
use crate::cuda::launch::{self, Half};
use crate::{Finish, PoolNormalize, Pooling};

/// One case of `pool_normalize`.
pub(super) fn check(
    half: Half,
    lengths: &[usize],
    hidden: usize,
    pooling: Pooling,
    finishes: &[Finish],
    seed: u64,
) {
    let cu_seqlens = cu_seqlens(lengths);
    let (x, x_values) = operand(half, seed, &[cu_seqlens.tokens(), hidden]);
    let starts: Vec<u32> = cu_seqlens.as_slice().iter().map(|&start| start as u32).collect();
    let words: Vec<u32> =
        finishes.iter().map(|finish| launch::finish_word(*finish, hidden as u32)).collect();
    let mut memory = Memory::default();
    let launch = launch::PoolNormalize {
        out: memory.output_floats(lengths.len() * hidden),
        x: memory.halves(half, &x_values),
        starts: memory.words(&starts),
        finishes: memory.words(&words),
        sequences: lengths.len() as u32,
        hidden: hidden as u32,
        pooling,
    };
    let out = launch.out;
    run(&mut memory, launch.launch(half));
    let op = PoolNormalize { cu_seqlens: &cu_seqlens, pooling, finishes };
    let exact = op.reference(&doubles(&x_values), hidden);
    let on_cpu = op.forward(&x).unwrap();
    assert_agrees(&memory.read_floats(out), &exact, &on_cpu, 1e-5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn each_sequence_is_pooled_and_finished(
        half in halves(),
        lengths in lengths(),
        hidden in widths(),
        pooling in prop::sample::select(&[Pooling::Mean, Pooling::Cls, Pooling::Last, Pooling::Max][..]),
        finishes in prop::collection::vec((any::<bool>(), prop::option::of(0.0..1.0_f64)), 5),
        seed: u64,
    ) {
        let finish = |&(normalize, share): &(bool, Option<f64>)| {
            Finish { normalize, dimensions: share.map(|share| 1 + (share * hidden as f64) as usize) }
        };
        let finishes: Vec<Finish> = finishes.iter().map(finish).take(lengths.len()).collect();
        check(half, &lengths, hidden, pooling, &finishes, seed);
    }
}
