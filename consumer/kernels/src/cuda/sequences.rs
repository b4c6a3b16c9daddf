//! Packed sequences on the device, as kernels read them: uploaded once a batch, used by every layer.

use std::sync::Arc;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Error, Result};

use super::device::upload;
use super::launch::Tiles;
use crate::ops::cu_seqlens::CuSeqlens;

/// Offsets, positions and tiles of some packed sequences.
#[derive(Debug)]
pub(super) struct Sequences {
    /// Where each begins, and where the last one ends.
    pub(super) starts: CudaSlice<u32>,
    /// Each token's position in its sequence.
    pub(super) positions: CudaSlice<u32>,
    /// The words of `tiling`.
    pub(super) tiles: CudaSlice<u32>,
    pub(super) tiling: Tiles,
}

impl Sequences {
    /// Those of packed sequences, uploaded at the first call.
    pub(super) fn of(cu_seqlens: &CuSeqlens, device: &CudaDevice) -> Result<Arc<Self>> {
        let sequences = cu_seqlens.derived(|cu_seqlens| Self::upload(cu_seqlens, device))?;
        sequences.ok_or_else(|| Error::Msg("another back-end holds these sequences".to_owned()))
    }

    fn upload(cu_seqlens: &CuSeqlens, device: &CudaDevice) -> Result<Self> {
        let starts: Vec<u32> = cu_seqlens.as_slice().iter().map(|&start| start as u32).collect();
        let positions: Vec<u32> =
            cu_seqlens.ranges().flat_map(|range| 0..range.len() as u32).collect();
        let tiling = Tiles::new(cu_seqlens);
        Ok(Self {
            starts: upload(device, &starts)?,
            positions: upload(device, &positions)?,
            tiles: upload(device, &tiling.words)?,
            tiling,
        })
    }
}
