//! The launch of `varlen_attention`: tiles of queries, and how many a block takes.

use super::description::{Argument, Half, Launch, VECTOR, WARP, shared_bytes};
use crate::ops::cu_seqlens::CuSeqlens;
use crate::ops::mask::Mask;

/// Queries a warp.
const ROWS: usize = 16;
/// The warps of a block that there are kernels for.
const WARPS: [usize; 3] = [1, 2, 4];
/// Words of a tile.
const TILE_WORDS: u32 = 4;
/// The largest head that there is a kernel for.
pub(crate) const DIM_MAX: u32 = 128;
/// Farther than any two tokens of a sequence are apart; twice that is still a u32.
const UNBOUNDED: u32 = 1 << 30;

/// Which queries each block takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tiles {
    /// Warps a block, 16 queries each.
    pub(crate) warps: usize,
    /// Of each block where its sequence begins, how many tokens that has, and the block's first query; four words.
    pub(crate) words: Vec<u32>,
}

impl Tiles {
    /// Blocks of as many warps as cost least. Idle queries cost what others do, and a block fetches its keys for all
    /// of its warps: counted as half of the work for one warp, a quarter for two, an eighth for four. Eight were
    /// slower: they wait for each other. So short sequences get a warp each, and long ones share.
    pub(crate) fn new(cu_seqlens: &CuSeqlens) -> Self {
        let rows = |warps: usize| {
            let tile = warps * ROWS;
            cu_seqlens.ranges().map(|range| range.len().next_multiple_of(tile)).sum::<usize>()
        };
        let cost = |warps: &usize| rows(*warps) * (8 + 4 / *warps);
        let warps = WARPS.into_iter().rev().min_by_key(cost).unwrap_or(1);
        let mut words = Vec::new();
        for range in cu_seqlens.ranges() {
            for first in (0..range.len()).step_by(warps * ROWS) {
                words.extend([range.start as u32, range.len() as u32, first as u32, 0]);
            }
        }
        Self { warps, words }
    }
}

/// `varlen_attention`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VarlenAttention<P> {
    pub(crate) out: P,
    pub(crate) qkv: P,
    pub(crate) bias: Option<P>,
    /// `[heads, width]`, and its width.
    pub(crate) distance_bias: Option<(P, u32)>,
    pub(crate) tiles: P,
    pub(crate) heads: u32,
    /// At most [`DIM_MAX`].
    pub(crate) dim: u32,
    pub(crate) mask: Mask,
    pub(crate) scale: f32,
}

impl<P> VarlenAttention<P> {
    /// `tiles` are the words of `tiling`.
    pub(crate) fn launch(self, half: Half, tiling: &Tiles) -> Option<Launch<P>> {
        use Argument::{F32, Pointer, U32};
        let dim = self.dim.next_power_of_two().clamp(32, DIM_MAX);
        let keys = if dim == 128 { 32 } else { 64 };
        let bounded = |distance: usize| distance.min(UNBOUNDED as usize) as u32;
        let (before, after) = match self.mask {
            Mask::Bidirectional => (UNBOUNDED, UNBOUNDED),
            Mask::Causal => (UNBOUNDED, 0),
            Mask::Window(distance) => (bounded(distance), bounded(distance)),
        };
        let width = self.distance_bias.as_ref().map_or(0, |(_, width)| *width);
        let arguments = vec![
            Pointer(self.out),
            Pointer(self.qkv),
            self.bias.into(),
            self.distance_bias.map(|(bias, _)| bias).into(),
            Pointer(self.tiles),
            U32(self.heads),
            U32(self.dim),
            U32(before),
            U32(after),
            U32(width),
            F32(self.scale),
        ];
        // As many as the kernels have, of two bytes a value.
        let count = if tiling.warps == 4 { 2 } else { 1 };
        let buffers = count * 2 * keys * (dim + VECTOR);
        let warps = tiling.warps as u32;
        Launch::new(
            format!("varlen_attention_{half}_{dim}_{warps}"),
            // The heads of a tile run at the same time: their rows are the same.
            tiling.words.len() as u32 / TILE_WORDS * self.heads,
            warps * WARP,
            shared_bytes(&[buffers, buffers]),
            arguments,
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_sequences_share_their_keys_and_short_ones_get_a_warp_each() {
        let warps = |lengths: &[usize]| Tiles::new(&lengths.iter().copied().collect()).warps;
        assert_eq!(warps(&[512, 512]), 4);
        assert_eq!(warps(&[256; 8]), 4);
        assert_eq!(warps(&[12; 500]), 1);
        assert_eq!(warps(&[30; 500]), 2);
    }

    proptest! {
        #[test]
        fn every_query_is_in_one_tile(lengths in prop::collection::vec(0_usize..700, 0..20)) {
            let tiles = Tiles::new(&lengths.iter().copied().collect());
            let mut expected = Vec::new();
            let mut start = 0;
            for &tokens in &lengths {
                expected.extend((0..tokens).map(|query| (start, tokens as u32, query as u32)));
                start += tokens as u32;
            }
            let covered: Vec<(u32, u32, u32)> = tiles.words.chunks_exact(TILE_WORDS as usize).flat_map(|tile| {
                let (start, tokens, first) = (tile[0], tile[1], tile[2]);
                (first..tokens.min(first + (tiles.warps * ROWS) as u32)).map(move |query| (start, tokens, query))
            }).collect();
            prop_assert_eq!(covered, expected);
        }
    }
}
