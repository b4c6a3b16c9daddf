//! The launch of `pool_normalize`.

use super::description::{Argument, Half, Launch, WARP, shared_bytes};
use crate::ops::pool_normalize::{Finish, Pooling};

/// Threads of a block that pools one sequence.
const THREADS: u32 = 128;

/// `pool_normalize`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolNormalize<P> {
    pub(crate) out: P,
    pub(crate) x: P,
    pub(crate) starts: P,
    /// A [`finish_word`] a sequence.
    pub(crate) finishes: P,
    pub(crate) sequences: u32,
    pub(crate) hidden: u32,
    pub(crate) pooling: Pooling,
}

/// How a sequence's vector is finished, as the kernel reads it.
pub(crate) fn finish_word(finish: Finish, hidden: u32) -> u32 {
    let dimensions = finish.dimensions.map_or(hidden, |dimensions| dimensions as u32);
    dimensions | u32::from(finish.normalize) << 31
}

impl<P> PoolNormalize<P> {
    pub(crate) fn launch(self, half: Half) -> Option<Launch<P>> {
        use Argument::{Pointer, U32};
        let pooling = match self.pooling {
            Pooling::Mean => 0,
            Pooling::Cls => 1,
            Pooling::Last => 2,
            Pooling::Max => 3,
        };
        let shared = shared_bytes(&[4 * self.hidden, 4 * THREADS / WARP]);
        let arguments = vec![
            Pointer(self.out),
            Pointer(self.x),
            Pointer(self.starts),
            Pointer(self.finishes),
            U32(self.hidden),
            U32(pooling),
        ];
        let kernel = format!("pool_normalize_{half}");
        Launch::new(kernel, self.sequences, THREADS, shared, arguments)
    }
}
