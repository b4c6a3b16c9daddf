//! The launch of `linear_layer_norm` as one kernel.

use super::description::{Argument, Half, Launch, VECTOR, shared_bytes};
use super::whole_rows::{STEP, THREADS, block, padded};

/// `out = LayerNorm(x * transpose(weight) + bias + residual)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinearLayerNorm<P> {
    pub(crate) out: P,
    /// `[rows, depth]`
    pub(crate) x: P,
    /// `[width, depth]`
    pub(crate) weight: P,
    pub(crate) residual: P,
    pub(crate) bias: Option<P>,
    pub(crate) scale: P,
    pub(crate) shift: P,
    pub(crate) rows: u32,
    pub(crate) depth: u32,
    pub(crate) width: u32,
    pub(crate) eps: f32,
}

impl<P> LinearLayerNorm<P> {
    /// Whether there is a kernel for these sizes.
    pub(crate) fn fits(width: usize, depth: usize) -> bool {
        [384, 768].contains(&width) && depth > 0 && depth.is_multiple_of(VECTOR as usize)
    }

    /// All tensors begin at multiples of 16 bytes.
    pub(crate) fn launch(self, half: Half) -> Option<Launch<P>> {
        use Argument::{F32, Pointer, U32};
        let (column_warps, rows) = block(self.width);
        let shared = shared_bytes(&[
            2 * padded(rows, STEP),
            2 * padded(self.width, STEP),
            4 * 2 * rows * column_warps,
        ]);
        let arguments = vec![
            Pointer(self.out),
            Pointer(self.x),
            Pointer(self.weight),
            Pointer(self.residual),
            self.bias.into(),
            Pointer(self.scale),
            Pointer(self.shift),
            U32(self.rows),
            U32(self.depth),
            F32(self.eps),
        ];
        let kernel = format!("linear_layer_norm_{half}_{}", self.width);
        Launch::new(kernel, self.rows.div_ceil(rows), THREADS, shared, arguments)
    }
}
