//! The launch of `embed_layer_norm`.

use super::description::{Argument, Half, Launch, WARP};
use super::rows::{THREADS, row_kernel};

/// `embed_layer_norm`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EmbedLayerNorm<P> {
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
    /// At most [`super::HIDDEN_MAX`].
    pub(crate) hidden: u32,
    pub(crate) first_position: u32,
    pub(crate) eps: f32,
}

impl<P> EmbedLayerNorm<P> {
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
