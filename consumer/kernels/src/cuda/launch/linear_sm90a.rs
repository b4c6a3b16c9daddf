//! Launches of `linear` and `linear_layer_norm` on Hopper.

use super::description::{Argument, Half, Launch, VECTOR};
use crate::ops::activation::Activation;

const THREADS: u32 = 256;
/// Rows of a block.
const ROWS: u32 = 128;
/// Columns of one matrix product of a warpgroup.
const COLUMNS: u32 = 192;
/// Bytes of a tile's row.
const ROW_BYTES: u32 = 128;
/// Bytes at whose multiples tiles begin.
const ALIGNMENT: u32 = 1024;

/// Shared memory of a block whose tiles of so many columns hold so many steps.
const fn tiles(columns: u32, steps: u32) -> u32 {
    steps * (ROWS + columns) * ROW_BYTES + ALIGNMENT
}

/// `out = activation(x * transpose(weight) + bias)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinearSm90a<P> {
    pub(crate) out: P,
    /// `[rows, depth]`
    pub(crate) x: P,
    /// `[width, depth]`
    pub(crate) weight: P,
    pub(crate) bias: Option<P>,
    pub(crate) rows: u32,
    pub(crate) depth: u32,
    pub(crate) width: u32,
}

impl<P> LinearSm90a<P> {
    /// Whether there is a kernel for these sizes and this activation.
    pub(crate) fn fits(width: usize, depth: usize, activation: Activation) -> bool {
        let whole = |size: usize| size > 0 && size.is_multiple_of(VECTOR as usize);
        whole(width) && whole(depth) && matches!(activation, Activation::None | Activation::Gelu)
    }

    /// All tensors begin at multiples of 16 bytes.
    pub(crate) fn launch(self, half: Half, activation: Activation) -> Option<Launch<P>> {
        use Argument::{Pointer, U32};
        let name = if activation == Activation::Gelu { "linear_gelu" } else { "linear" };
        let arguments = vec![
            Pointer(self.out),
            Pointer(self.x),
            Pointer(self.weight),
            self.bias.into(),
            U32(self.rows),
            U32(self.depth),
            U32(self.width),
        ];
        // Blocks of the same rows run at the same time: they share those in L2 cache.
        let [columns, rows] = [self.width.div_ceil(COLUMNS), self.rows.div_ceil(ROWS)];
        let kernel = format!("{name}_sm90a_{half}");
        let launch = Launch::new(kernel, columns, THREADS, tiles(COLUMNS, 2), arguments)?;
        (rows > 0).then_some(Launch { grid: [columns, rows], ..launch })
    }
}

/// `out = LayerNorm(x * transpose(weight) + bias + residual)`, of rows of [`LinearLayerNormSm90a::WIDTH`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinearLayerNormSm90a<P> {
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
    pub(crate) eps: f32,
}

impl<P> LinearLayerNormSm90a<P> {
    /// The only width that there is a kernel for.
    pub(crate) const WIDTH: usize = 2 * COLUMNS as usize;

    /// Whether there is a kernel for these sizes.
    pub(crate) fn fits(width: usize, depth: usize) -> bool {
        width == Self::WIDTH && depth > 0 && depth.is_multiple_of(VECTOR as usize)
    }

    /// All tensors begin at multiples of 16 bytes.
    pub(crate) fn launch(self, half: Half) -> Option<Launch<P>> {
        use Argument::{F32, Pointer, U32};
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
        let kernel = format!("linear_layer_norm_sm90a_{half}");
        Launch::new(kernel, self.rows.div_ceil(ROWS), THREADS, tiles(2 * COLUMNS, 3), arguments)
    }
}
