//! The launch of `add_layer_norm`, and of `layer_norm`, which has no addend.

use super::description::{Argument, Half, Launch, WARP};
use super::rows::{THREADS, row_kernel};

/// `layer_norm` and `add_layer_norm`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddLayerNorm<P> {
    pub(crate) out: P,
    /// Becomes the sum, which is what is normalised.
    pub(crate) sum: Option<P>,
    pub(crate) x: P,
    pub(crate) residual: Option<P>,
    pub(crate) bias: Option<P>,
    pub(crate) scale: P,
    pub(crate) shift: P,
    pub(crate) rows: u32,
    /// At most [`super::HIDDEN_MAX`].
    pub(crate) hidden: u32,
    pub(crate) eps: f32,
}

impl<P> AddLayerNorm<P> {
    pub(crate) fn launch(self, half: Half) -> Option<Launch<P>> {
        use Argument::{F32, Pointer, U32};
        let kernel = row_kernel("add_layer_norm", half, self.hidden);
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
