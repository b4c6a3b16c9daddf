//! How a model is loaded: on which device, in which number type, on how many threads.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use crate::EngineError;

/// Where a model computes. Parsed from `cpu` or `cuda:N`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The NVIDIA GPU with this ordinal.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        let unknown = || EngineError::DeviceUnknown(text.to_owned());
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            Some(("cuda", ordinal)) => ordinal.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// The number type that a model computes in. Parsed from `f32`, `bf16` or `f16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// bfloat16 products with f32 sums.
    Bf16,
    /// IEEE half precision products with f32 sums.
    F16,
}

impl FromStr for DType {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(EngineError::DTypeUnknown(text.to_owned())),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// How to load a model. The default is the processor, all its threads, and the best number type there.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where to compute.
    pub device: Device,
    /// The number type; `None` takes the device's default (f32 on the processor).
    pub dtype: Option<DType>,
    /// Compute threads; `None` takes what the system says is available.
    pub threads: Option<usize>,
}

impl LoadOptions {
    /// The number type to compute in, or an error when device and type do not go together.
    pub(crate) fn resolve_dtype(&self) -> Result<DType, EngineError> {
        match (self.device, self.dtype) {
            (Device::Cpu, None | Some(DType::F32)) => Ok(DType::F32),
            (Device::Cpu, Some(dtype)) => Err(EngineError::DTypeNotSupported {
                dtype: dtype.to_string(),
                device: self.device.to_string(),
            }),
            (Device::Cuda(_), _) => Err(EngineError::DeviceNotBuiltIn(self.device.to_string())),
        }
    }

    /// How many compute threads to start; at least one.
    pub(crate) fn resolve_threads(&self) -> usize {
        self.threads.unwrap_or_else(threads_available).max(1)
    }
}

fn threads_available() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn device_names_survive_a_round_trip() {
        for name in ["cpu", "cuda:0", "cuda:7"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn unknown_device_names_are_refused_by_name() {
        for name in ["", "gpu", "cuda", "cuda:", "cuda:x", "CPU", "cpu:0"] {
            let error = name.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")), "{error}");
        }
    }

    #[test]
    fn dtype_names_survive_a_round_trip_and_others_are_refused() {
        for name in ["f32", "bf16", "f16"] {
            assert_eq!(name.parse::<DType>().unwrap().to_string(), name);
        }
        assert!(
            matches!("int8".parse::<DType>(), Err(EngineError::DTypeUnknown(name)) if name == "int8")
        );
    }

    #[test]
    fn what_the_processor_cannot_do_is_refused() {
        let half = LoadOptions { dtype: Some(DType::F16), ..LoadOptions::default() };
        assert!(matches!(half.resolve_dtype(), Err(EngineError::DTypeNotSupported { .. })));
        let cuda = LoadOptions { device: Device::Cuda(0), ..LoadOptions::default() };
        assert!(matches!(cuda.resolve_dtype(), Err(EngineError::DeviceNotBuiltIn(_))));
    }
}
