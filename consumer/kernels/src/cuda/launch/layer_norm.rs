//! Launches of what takes a warp or a block for each row: norms, embeddings and pooling.

use super::{Argument, Half, Launch, VECTOR, WARP, shared_bytes};
use crate::{Finish, Pooling};

/// Threads of a block that takes a row a warp.
const THREADS: u32 = 256;
/// Threads of a block that pools one sequence.
const POOL_THREADS: u32 = 128;
/// The most values of a row that a warp holds in registers.
pub(crate) const HIDDEN_MAX: u32 = ROW_VECTORS[3] * WARP * VECTOR;

/// Vectors a lane, of a row that a warp holds: what there are kernels for.
const ROW_VECTORS: [u32; 4] = [1, 2, 4, 6];

/// The kernel of a family for rows of so many values: the smallest that holds them.
fn row_kernel(name: &str, half: Half, hidden: u32) -> String {
    let needed = hidden.div_ceil(WARP * VECTOR);
    let vectors = ROW_VECTORS.into_iter().find(|vectors| *vectors >= needed);
    format!("{name}_{half}_{}", vectors.unwrap_or(needed))
}

/// `layer_norm` and `add_layer_norm`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Normalized<P> {
    pub(crate) out: P,
    /// Becomes the sum, which is what is normalised.
    pub(crate) sum: Option<P>,
    pub(crate) x: P,
    pub(crate) residual: Option<P>,
    pub(crate) bias: Option<P>,
    pub(crate) scale: P,
    pub(crate) shift: P,
    pub(crate) rows: u32,
    /// At most [`HIDDEN_MAX`].
    pub(crate) hidden: u32,
    pub(crate) eps: f32,
}

impl<P> Normalized<P> {
    pub(crate) fn launch(self, half: Half) -> Option<Launch<P>> {
        use Argument::{F32, Pointer, U32};
        let kernel = row_kernel("layer_norm", half, self.hidden);
        let arguments = vec![
            Pointer(self.out),
            self.sum.into(),
            Pointer(self.x),
            self.residual.into(),
            self.bias.into(),
            Pointer(self.scale),
            Pointer(self.shift),
            U32(self.rows),
            U32(self.hidden),
            F32(self.eps),
        ];
        Launch::new(kernel, self.rows.div_ceil(THREADS / WARP), THREADS, 0, arguments)
    }
}

/// `embed_layer_norm`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Embedding<P> {
    pub(crate) out: P,
    pub(crate) words: P,
    pub(crate) positions: Option<P>,
    pub(crate) types: Option<P>,
    pub(crate) token_ids: P,
    pub(crate) type_ids: Option<P>,
    pub(crate) token_positions: P,
    pub(crate) scale: P,
    pub(crate) shift: P,
    pub(crate) tokens: u32,
    /// At most [`HIDDEN_MAX`].
    pub(crate) hidden: u32,
    pub(crate) first_position: u32,
    pub(crate) eps: f32,
}

impl<P> Embedding<P> {
    pub(crate) fn launch(self, half: Half) -> Option<Launch<P>> {
        use Argument::{F32, Pointer, U32};
        let kernel = row_kernel("embed_layer_norm", half, self.hidden);
        let arguments = vec![
            Pointer(self.out),
            Pointer(self.words),
            self.positions.into(),
            self.types.into(),
            Pointer(self.token_ids),
            self.type_ids.into(),
            Pointer(self.token_positions),
            Pointer(self.scale),
            Pointer(self.shift),
            U32(self.tokens),
            U32(self.hidden),
            U32(self.first_position),
            F32(self.eps),
        ];
        Launch::new(kernel, self.tokens.div_ceil(THREADS / WARP), THREADS, 0, arguments)
    }
}

/// `pool_normalize`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pooled<P> {
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

impl<P> Pooled<P> {
    pub(crate) fn launch(self, half: Half) -> Option<Launch<P>> {
        use Argument::{Pointer, U32};
        let pooling = match self.pooling {
            Pooling::Mean => 0,
            Pooling::Cls => 1,
            Pooling::Last => 2,
            Pooling::Max => 3,
        };
        let shared = shared_bytes(&[4 * self.hidden, 4 * POOL_THREADS / WARP]);
        let arguments = vec![
            Pointer(self.out),
            Pointer(self.x),
            Pointer(self.starts),
            Pointer(self.finishes),
            U32(self.hidden),
            U32(pooling),
        ];
        let kernel = format!("pool_normalize_{half}");
        Launch::new(kernel, self.sequences, POOL_THREADS, shared, arguments)
    }
}
