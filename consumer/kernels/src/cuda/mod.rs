//! The operations' side for NVIDIA GPUs: operands become addresses, a launch is made of them, and the device's stream
//! takes it. Nothing waits here; whoever reads a result does.
#![allow(unsafe_code)]

pub mod gpu;
mod operations;
mod products;
mod sequences;
mod staging;
mod whole_rows;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, DevicePtr, LaunchConfig, PushKernelArg, sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice, DeviceId};
use candle_core::{CudaStorage, DType, Error, Layout, Result, Storage, Tensor};

pub(crate) use self::operations::*;
pub use self::products::{Products, choose_products};
use self::products::{chosen, pays};
pub(crate) use self::sequences::{Cached, Sequences};
use self::staging::Staging;
pub(crate) use self::whole_rows::{feed_forward, linear_layer_norm};
use crate::launch::{self, Argument, Half, Launch};

/// Shared memory that a block has without asking for more.
const SHARED_BYTES: u32 = 48 * 1024;

macro_rules! module {
    ($name:literal) => {
        ($name, include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".fatbin")))
    };
}

/// What `build.rs` compiled, by the names of the sources. `linear_sm90a` runs on Hopper alone.
static MODULES: [(&str, &[u8]); 8] = [
    module!("elementwise"),
    module!("embed_layer_norm"),
    module!("feed_forward"),
    module!("layer_norm"),
    module!("linear_layer_norm"),
    module!("linear_sm90a"),
    module!("pool_normalize"),
    module!("varlen_attention"),
];

/// A device's kernels: their modules, each loaded when its first kernel is launched, and what was asked of them. And its
/// buffers.
#[derive(Default)]
struct Kernels {
    modules: HashMap<&'static str, Arc<CudaModule>>,
    functions: HashMap<String, CudaFunction>,
    is_hopper: Option<bool>,
    staging: Staging,
}

static KERNELS: LazyLock<Mutex<HashMap<DeviceId, Kernels>>> = LazyLock::new(Mutex::default);

fn error(problem: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Cuda(Box::new(problem))
}

/// The kernel of that name on the device, free to take so much shared memory.
fn function(device: &CudaDevice, name: &str, shared_bytes: u32) -> Result<CudaFunction> {
    let mut kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
    let kernels = kernels.entry(device.id()).or_default();
    if let Some(function) = kernels.functions.get(name) {
        return Ok(function.clone());
    }
    let source = launch::source(name);
    let known = MODULES.iter().find(|(module, _)| *module == source);
    let Some(&(source, image)) = known else {
        return Err(Error::Msg(format!("there is no kernel {name}")));
    };
    let module = match kernels.modules.entry(source) {
        Entry::Occupied(loaded) => loaded.into_mut(),
        Entry::Vacant(place) => {
            let context = device.cuda_stream().context().clone();
            place.insert(context.load_module(Ptx::from_binary(image.to_vec())).map_err(error)?)
        }
    };
    let function = module.load_function(name).map_err(error)?;
    if shared_bytes > SHARED_BYTES {
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(attribute, shared_bytes as i32).map_err(error)?;
    }
    kernels.functions.insert(name.to_owned(), function.clone());
    Ok(function)
}

/// Whether the device has Hopper's own matrix instructions.
fn is_hopper(device: &CudaDevice) -> Result<bool> {
    let mut kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = &mut kernels.entry(device.id()).or_default().is_hopper;
    if let Some(known) = *known {
        return Ok(known);
    }
    let capability = device.cuda_stream().context().compute_capability().map_err(error)?;
    *known = Some(capability == (9, 0));
    Ok(capability == (9, 0))
}

/// Bytes at whose multiples the operands of products begin.
const ALIGNED: u64 = 16;

fn aligned(addresses: &[u64]) -> bool {
    addresses.iter().all(|address| address.is_multiple_of(ALIGNED))
}

/// Words on the device.
fn upload(device: &CudaDevice, words: &[u32]) -> Result<CudaSlice<u32>> {
    let mut kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
    kernels.entry(device.id()).or_default().staging.upload(device, words)
}

/// Puts a launch into the device's stream.
fn run(device: &CudaDevice, launch: Option<Launch<u64>>) -> Result<()> {
    let Some(launch) = launch else { return Ok(()) };
    // A kernel's launches all ask for as much shared memory, but for rows that are pooled, which ask for little.
    let function = function(device, &launch.kernel, launch.shared_bytes)?;
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&function);
    for argument in &launch.arguments {
        match argument {
            Argument::Pointer(address) => builder.arg(address),
            Argument::Null => builder.arg(&0_u64),
            Argument::U32(value) => builder.arg(value),
            Argument::F32(value) => builder.arg(value),
        };
    }
    let [x, y] = launch.grid;
    let config = LaunchConfig {
        grid_dim: (x, y, 1),
        block_dim: (launch.threads, 1, 1),
        shared_mem_bytes: launch.shared_bytes,
    };
    // SAFETY: the arguments are those of the kernel, in its order (every launch is run by the tests, on the executor);
    // the addresses are of tensors whose shapes the operations checked and which live until this stream is past them,
    // since memory is freed in its order.
    unsafe { builder.launch(config) }.map_err(error)?;
    Ok(())
}

/// Where a contiguous tensor's values begin.
fn address(storage: &CudaStorage, layout: &Layout) -> Result<u64> {
    let stream = storage.device.cuda_stream();
    let begin = match &storage.slice {
        CudaStorageSlice::BF16(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::F16(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::F32(values) => values.device_ptr(&stream).0,
        CudaStorageSlice::U32(values) => values.device_ptr(&stream).0,
        _ => return Err(Error::Msg("a number type without a kernel".to_owned())),
    };
    let bytes = candle_core::backend::BackendStorage::dtype(storage).size_in_bytes();
    Ok(begin + (layout.start_offset() * bytes) as u64)
}

/// The same of a parameter.
fn address_of(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => address(storage, layout),
        _ => Err(Error::Msg("a parameter is on another device than the operands".to_owned())),
    }
}

fn address_of_slice(device: &CudaDevice, slice: &CudaSlice<u32>) -> u64 {
    slice.device_ptr(&device.cuda_stream()).0
}

/// The kernels' name of a storage's number type.
fn half(storage: &CudaStorage) -> Result<Half> {
    match candle_core::backend::BackendStorage::dtype(storage) {
        DType::BF16 => Ok(Half::Bf16),
        DType::F16 => Ok(Half::F16),
        other => Err(Error::Msg(format!("{other:?} has no kernels on a GPU; use bf16 or f16"))),
    }
}
