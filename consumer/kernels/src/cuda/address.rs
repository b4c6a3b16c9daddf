//! Tensors as kernels take them: where their values begin on the device, and their number type.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice};
use candle_core::{CudaStorage, DType, Error, Layout, Result, Storage, Tensor};

use super::launch::Half;

/// Bytes at whose multiples the operands of matrix products begin.
const ALIGNED: u64 = 16;

pub(super) fn aligned(addresses: &[u64]) -> bool {
    addresses.iter().all(|address| address.is_multiple_of(ALIGNED))
}

/// Where a contiguous tensor's values begin.
pub(super) fn address(storage: &CudaStorage, layout: &Layout) -> Result<u64> {
    let stream = storage.device.cuda_stream();
    let begin = match &storage.slice {
        CudaStorageSlice::BF16(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::F16(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::F32(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::U32(values) => values.device_ptr(&stream).0,
        _ => return Err(Error::Msg("a number type without a kernel".to_owned())),
    };
    Ok(begin + (layout.start_offset() * storage.dtype().size_in_bytes()) as u64)
}

/// Where the values of a contiguous tensor on a GPU begin.
pub(super) fn address_of(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => address(storage, layout),
        _ => Err(Error::Msg("an operand is on another device than the others".to_owned())),
    }
}

/// Where the values of a tensor begin that may be missing.
pub(super) fn optional_address(tensor: Option<&Tensor>) -> Result<Option<u64>> {
    tensor.map(address_of).transpose()
}

pub(super) fn address_of_slice(device: &CudaDevice, slice: &CudaSlice<u32>) -> u64 {
    slice.device_ptr(&device.cuda_stream()).0
}

/// The kernels' name of a tensor's number type.
pub(super) fn half(tensor: &Tensor) -> Result<Half> {
    match tensor.dtype() {
        DType::BF16 => Ok(Half::Bf16),
        DType::F16 => Ok(Half::F16),
        other => Err(Error::Msg(format!("{other:?} has no kernels on a GPU; use bf16 or f16"))),
    }
}
