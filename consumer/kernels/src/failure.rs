//! Failures of a device, recognised in the errors of its driver.

use candle_core::Error;

use crate::error::KernelError;

/// A failure of a device by what it means for its user. It is recognised by the driver's names for its errors, because
/// the tensor library wraps the driver's own type in several layers and hands on its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFailure {
    /// The device's memory does not suffice: less work may fit.
    OutOfMemory,
    /// This process can use the device no more: whatever it asks from now on fails too.
    Lost,
    /// No NVIDIA GPU or no driver is on this machine.
    NoDevice,
    /// There is no GPU with the ordinal that was asked for.
    UnknownOrdinal,
    /// The driver is older than the CUDA that this build needs.
    DriverTooOld,
}

/// Errors by which the driver says that there is too little memory; the last one is of the library for matrix products.
const OUT_OF_MEMORY: [&str; 3] = ["out of memory", "out_of_memory", "alloc_failed"];

/// Errors after which a process can use its device no more.
const LOST: [&str; 20] = [
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_NVLINK_UNCORRECTABLE",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    "CUDA_ERROR_DEVICE_UNAVAILABLE",
    "CUDA_ERROR_DEINITIALIZED",
    "CUDA_ERROR_EXTERNAL_DEVICE",
    "CUDA_ERROR_CONTAINED",
    "CUDA_ERROR_TENSOR_MEMORY_LEAK",
    "CUDA_ERROR_MPS_CLIENT_TERMINATED",
    "CUDA_ERROR_MPS_RPC_FAILURE",
    "CUDA_ERROR_UNKNOWN",
];

impl DeviceFailure {
    /// The failure that an error of the tensor library is, if it is one of these.
    pub fn of(error: &Error) -> Option<Self> {
        let text = error.to_string();
        let lower = text.to_ascii_lowercase();
        let has = |names: &[&str]| names.iter().any(|name| text.contains(name));
        if OUT_OF_MEMORY.iter().any(|name| lower.contains(name)) {
            Some(Self::OutOfMemory)
        } else if has(&LOST) {
            Some(Self::Lost)
        } else if has(&["CUDA_ERROR_STUB_LIBRARY", "NO_DEVICE"]) {
            Some(Self::NoDevice)
        } else if has(&["INVALID_DEVICE"]) {
            Some(Self::UnknownOrdinal)
        } else if has(&["INSUFFICIENT_DRIVER", "UNSUPPORTED_PTX"]) {
            Some(Self::DriverTooOld)
        } else {
            None
        }
    }
}

impl KernelError {
    /// The device's failure that this error is, if it is one.
    pub fn device_failure(&self) -> Option<DeviceFailure> {
        match self {
            Self::Tensor(error) => DeviceFailure::of(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_recognised_by_the_driver_s_names() {
        for (text, failure) in [
            (
                "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
                Some(DeviceFailure::OutOfMemory),
            ),
            ("CublasError(CUBLAS_STATUS_ALLOC_FAILED)", Some(DeviceFailure::OutOfMemory)),
            ("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"...\")", Some(DeviceFailure::Lost)),
            ("DriverError(CUDA_ERROR_STUB_LIBRARY, \"...\")", Some(DeviceFailure::NoDevice)),
            ("DriverError(CUDA_ERROR_NO_DEVICE, \"...\")", Some(DeviceFailure::NoDevice)),
            (
                "DriverError(CUDA_ERROR_INVALID_DEVICE, \"...\")",
                Some(DeviceFailure::UnknownOrdinal),
            ),
            (
                "DriverError(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, \"...\")",
                Some(DeviceFailure::DriverTooOld),
            ),
            ("a strided view", None),
        ] {
            assert_eq!(DeviceFailure::of(&Error::Msg(text.to_owned())), failure, "{text}");
        }
    }
}
