//! How a model is loaded: on which device, in which number type, on how many threads.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use crate::error::EngineError;

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

/// The number type that a model computes in. Parsed from `f32`, `bf16`, `f16`, `int8` or `q4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// bfloat16 matrix products with f32 sums.
    Bf16,
    /// IEEE half precision matrix products with f32 sums.
    F16,
    /// Quantized linear layers: int8 with a scale for each output and each token. Everything else is in `f32`, or in
    /// `bf16` where the processor computes that faster.
    Int8,
    /// Linear layers by the quantised blocks of the model's GGUF: the weights as they are in the file, those of four
    /// bits in four and others in eight; what goes into a layer is quantized to int8, with a scale for each 32 values.
    /// So it is not exact, though the weights are. Everything else is as for `int8`. For models that generate text.
    Q4,
}

impl DType {
    /// The type of hidden states, as tensors call it.
    pub(crate) fn tensor(self) -> candle_core::DType {
        match self {
            Self::Int8 | Self::Q4 if forebay_kernels::prefers_bf16() => candle_core::DType::BF16,
            Self::F32 | Self::Int8 | Self::Q4 => candle_core::DType::F32,
            Self::Bf16 => candle_core::DType::BF16,
            Self::F16 => candle_core::DType::F16,
        }
    }
}

impl FromStr for DType {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            "int8" => Ok(Self::Int8),
            "q4" => Ok(Self::Q4),
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
            Self::Int8 => "int8",
            Self::Q4 => "q4",
        })
    }
}

/// How to load a model. The default is the processor, all its threads, and the best number type there.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The device to compute on.
    pub device: Device,
    /// The number type; `None` takes the device's best: on the processor bf16 where it multiplies that faster than
    /// f32, else f32; on a GPU bf16, and f16 for scores.
    pub dtype: Option<DType>,
    /// Worker threads that compute; `None` takes as many as the system says are available.
    pub threads: Option<usize>,
    /// Bytes for the keys and values of all sequences that a model which generates text holds; `None` takes a gibibyte.
    pub cache_bytes: Option<u64>,
    /// The most tokens of a sequence of a model that generates text; `None` takes those that it is meant for, up to
    /// 32,768. It is never more than the model has positions, or than the cache holds.
    pub context_max: Option<usize>,
    /// Whether the model has to be a reranker. A language model is one then, whose folder leaves that open: it is asked
    /// whether a document answers a query. Models of other tasks are refused.
    pub reranks: bool,
}

impl LoadOptions {
    /// The number type to compute in, or an error when it does not go with the device or the model. Scores are
    /// compared with thresholds, so models that give scores compute them in f32 unless something else is asked for.
    pub(crate) fn resolve_dtype(
        &self,
        gives_scores: bool,
        f32_only: Option<&'static str>,
    ) -> Result<DType, EngineError> {
        if self.device != Device::Cpu {
            return self.resolve_gpu_dtype(gives_scores, f32_only);
        }
        match (self.dtype, f32_only) {
            (None, None) if !gives_scores && forebay_kernels::prefers_bf16() => Ok(DType::Bf16),
            (None | Some(DType::F32), _) => Ok(DType::F32),
            (Some(dtype @ (DType::Bf16 | DType::Int8)), None) => Ok(dtype),
            (Some(dtype), Some(architecture)) => Err(EngineError::DTypeNotSupported {
                dtype: dtype.to_string(),
                device: format!("{architecture} on {}", self.device),
                supported: "f32",
            }),
            (Some(dtype), None) => Err(EngineError::DTypeNotSupported {
                dtype: dtype.to_string(),
                device: self.device.to_string(),
                supported: "f32, bf16, int8",
            }),
        }
    }

    /// As [`Self::resolve_dtype`], for a model that generates text on the processor: it may have blocks.
    pub(crate) fn resolve_generator_dtype(&self) -> Result<DType, EngineError> {
        match self.dtype {
            Some(DType::Q4) => Ok(DType::Q4),
            Some(dtype @ DType::F16) => Err(EngineError::DTypeNotSupported {
                dtype: dtype.to_string(),
                device: self.device.to_string(),
                supported: "f32, bf16, int8, q4",
            }),
            _ => self.resolve_dtype(false, None),
        }
    }

    /// A GPU multiplies matrices in half precision: bf16, which has the range of f32; for scores f16, which rounds
    /// less.
    fn resolve_gpu_dtype(
        &self,
        gives_scores: bool,
        f32_only: Option<&'static str>,
    ) -> Result<DType, EngineError> {
        let refused = |dtype: Option<DType>, device, supported| {
            let dtype = dtype.map_or_else(|| "f16".to_owned(), |dtype| dtype.to_string());
            Err(EngineError::DTypeNotSupported { dtype, device, supported })
        };
        match (self.dtype, f32_only) {
            (dtype, Some(architecture)) => {
                let device = format!("{architecture} on {}", self.device);
                refused(dtype, device, "--device cpu: it computes in f32 alone")
            }
            (None, None) => Ok(if gives_scores { DType::F16 } else { DType::Bf16 }),
            (Some(dtype @ (DType::Bf16 | DType::F16)), None) => Ok(dtype),
            (dtype, None) => refused(dtype, self.device.to_string(), "bf16, f16"),
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
        for name in ["f32", "bf16", "f16", "int8", "q4"] {
            assert_eq!(name.parse::<DType>().unwrap().to_string(), name);
        }
        assert!(
            matches!("int4".parse::<DType>(), Err(EngineError::DTypeUnknown(name)) if name == "int4")
        );
    }

    #[test]
    fn what_the_processor_or_the_model_cannot_do_is_refused() {
        let with = |dtype| LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
        let refused = |options: LoadOptions, f32_only| {
            matches!(
                options.resolve_dtype(false, f32_only),
                Err(EngineError::DTypeNotSupported { .. })
            )
        };
        assert!(refused(with(DType::F16), None));
        assert!(refused(with(DType::Bf16), Some("deberta-v2")));
        assert!(refused(with(DType::Int8), Some("deberta-v2")));
        assert!(refused(with(DType::Q4), None), "encoders have no blocks");
        assert_eq!(with(DType::Q4).resolve_generator_dtype().unwrap(), DType::Q4);
        assert!(with(DType::F16).resolve_generator_dtype().is_err());
        assert!(
            !refused(with(DType::Bf16), None) && !refused(with(DType::F32), Some("deberta-v2"))
        );
    }

    #[test]
    fn a_gpu_computes_in_halves() {
        let with = |dtype| LoadOptions { device: Device::Cuda(0), dtype, ..LoadOptions::default() };
        assert_eq!(with(None).resolve_dtype(false, None).unwrap(), DType::Bf16);
        assert_eq!(with(None).resolve_dtype(true, None).unwrap(), DType::F16);
        assert_eq!(with(Some(DType::F16)).resolve_dtype(false, None).unwrap(), DType::F16);
        for (dtype, f32_only) in
            [(Some(DType::F32), None), (Some(DType::Int8), None), (None, Some("deberta-v2"))]
        {
            let error = with(dtype).resolve_dtype(false, f32_only).unwrap_err();
            assert!(matches!(error, EngineError::DTypeNotSupported { .. }), "{error}");
        }
    }

    #[test]
    fn scores_are_computed_in_f32_unless_something_else_is_asked_for() {
        assert_eq!(LoadOptions::default().resolve_dtype(true, None).unwrap(), DType::F32);
        let asked = LoadOptions { dtype: Some(DType::Bf16), ..LoadOptions::default() };
        assert_eq!(asked.resolve_dtype(true, None).unwrap(), DType::Bf16);
    }
}
