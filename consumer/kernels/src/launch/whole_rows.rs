//! Launches of products whose blocks hold whole rows and normalise them before they are stored.

use super::{Argument, Half, Launch, VECTOR, shared_bytes};

const THREADS: u32 = 256;
const WARPS: u32 = 8;
/// Columns of a warp's sums; it has 32 rows of them.
const WARP_COLUMNS: u32 = 96;
const WARP_ROWS: u32 = 32;
/// Depth that a block takes at a time, of either kernel.
const STEP: u32 = 32;
/// Bytes of the number types.
const BYTES: u32 = 2;
/// The hidden size of `feed_forward`.
const WIDTH: u32 = 384;

/// Warps side by side, and rows of a block, for rows of `width`.
fn block(width: u32) -> (u32, u32) {
    let column_warps = width / WARP_COLUMNS;
    (column_warps, WARPS / column_warps * WARP_ROWS)
}

/// Bytes of `rows` rows of `columns` values, the 16 bytes between two included.
fn padded(rows: u32, columns: u32) -> u32 {
    rows * (columns + VECTOR) * BYTES
}

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

/// `out = LayerNorm(x + bias + down * gelu(up * x + up_bias))`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedForward<P> {
    pub(crate) out: P,
    /// `[rows, 384]`
    pub(crate) x: P,
    /// `[inner, 384]`
    pub(crate) up: P,
    /// `[384, inner]`
    pub(crate) down: P,
    /// `[inner]`
    pub(crate) up_bias: P,
    pub(crate) bias: Option<P>,
    pub(crate) scale: P,
    pub(crate) shift: P,
    pub(crate) rows: u32,
    pub(crate) inner: u32,
    pub(crate) eps: f32,
}

impl<P> FeedForward<P> {
    /// Whether there is a kernel for these sizes.
    pub(crate) fn fits(width: usize, inner: usize) -> bool {
        width == WIDTH as usize && inner > 0 && inner.is_multiple_of(STEP as usize)
    }

    /// All tensors begin at multiples of 16 bytes.
    pub(crate) fn launch(self, half: Half) -> Option<Launch<P>> {
        use Argument::{F32, Pointer, U32};
        let (_, rows) = block(WIDTH);
        let shared = shared_bytes(&[
            padded(rows, WIDTH),
            2 * padded(STEP, WIDTH),
            2 * padded(WIDTH, STEP),
            padded(rows, STEP),
        ]);
        let arguments = vec![
            Pointer(self.out),
            Pointer(self.x),
            Pointer(self.up),
            Pointer(self.down),
            Pointer(self.up_bias),
            self.bias.into(),
            Pointer(self.scale),
            Pointer(self.shift),
            U32(self.rows),
            U32(self.inner),
            F32(self.eps),
        ];
        let kernel = format!("feed_forward_{half}_{WIDTH}");
        Launch::new(kernel, self.rows.div_ceil(rows), THREADS, shared, arguments)
    }
}
