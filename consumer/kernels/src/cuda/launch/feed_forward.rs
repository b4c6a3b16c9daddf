//! The launch of `feed_forward` as one kernel.

use super::description::{Argument, Half, Launch, shared_bytes};
use super::whole_rows::{STEP, THREADS, block, padded};

/// The hidden size of `feed_forward`.
const WIDTH: u32 = 384;

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
