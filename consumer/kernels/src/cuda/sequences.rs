//! What kernels read of packed sequences, on the device: uploaded once a batch, used by every layer.

use std::sync::{Arc, OnceLock};

use candle_core::Result;
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

use super::upload;
use crate::CuSeqlens;
use crate::launch::Tiles;

/// Offsets, positions and tiles of some packed sequences.
#[derive(Debug)]
pub(crate) struct Sequences {
    /// Where each begins, and where the last one ends.
    pub(crate) starts: CudaSlice<u32>,
    /// Each token's place in its sequence.
    pub(crate) positions: CudaSlice<u32>,
    /// The words of `tiling`.
    pub(crate) tiles: CudaSlice<u32>,
    pub(crate) tiling: Tiles,
}

/// The copy on the device that goes with a [`CuSeqlens`], once there is one. It is no part of what that is.
#[derive(Debug, Default)]
pub(crate) struct Cached(OnceLock<Arc<Sequences>>);

impl Clone for Cached {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Cached {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Cached {}

impl Cached {
    /// Uploads at the first call.
    pub(crate) fn get(
        &self,
        device: &CudaDevice,
        cu_seqlens: &CuSeqlens,
    ) -> Result<Arc<Sequences>> {
        if let Some(sequences) = self.0.get() {
            return Ok(sequences.clone());
        }
        let starts: Vec<u32> = cu_seqlens.as_slice().iter().map(|&start| start as u32).collect();
        let positions: Vec<u32> =
            cu_seqlens.ranges().flat_map(|range| 0..range.len() as u32).collect();
        let tiling = Tiles::new(cu_seqlens);
        let sequences = Sequences {
            starts: upload(device, &starts)?,
            positions: upload(device, &positions)?,
            tiles: upload(device, &tiling.words)?,
            tiling,
        };
        Ok(self.0.get_or_init(|| Arc::new(sequences)).clone())
    }
}
