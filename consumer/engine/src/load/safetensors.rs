//! `model.safetensors`: tensors read one by one, each checked against the shape that `config.json` implies. Large
//! models have several such files, the shards, which `model.safetensors.index.json` lists.
//!
//! Each tensor is read straight into its own memory. The file is not mapped: a file that is replaced or cut
//! while it is read then gives an error instead of a signal.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;

use crate::error::EngineError;
use crate::load::files::{from_json, read_if_there};
use crate::load::fp8;
use crate::load::gguf::blocks::Blocks;
use crate::load::mxfp4;
use crate::load::tensors::Tensors;

/// The largest header that is read; the safetensors format's own limit.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Bytes of the header's length, at the start of the file.
const LENGTH_BYTES: u64 = 8;

/// The most shards of a model; each is an open file.
const SHARDS_MAX: usize = 256;

/// A model's weights: one file, or several.
pub(crate) struct Weights {
    /// The file that tensors are missed in: the only one, or the index.
    path: PathBuf,
    shards: Vec<Shard>,
}

/// An open weights file.
struct Shard {
    path: PathBuf,
    file: RefCell<File>,
    metadata: Metadata,
    data_start: u64,
}

/// `model.safetensors.index.json`: the file of each tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Opens the file, or without it the shards that the index beside it lists.
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let index_path = path.with_extension("safetensors.index.json");
        let whole = path.try_exists().unwrap_or(true);
        let index = if whole { None } else { read_if_there(&index_path)? };
        let Some(index) = index else {
            return Ok(Self { path: path.to_owned(), shards: vec![Shard::open(path)?] });
        };
        let Index { weight_map } = from_json(&index_path, &index)?;
        let names: BTreeSet<&String> = weight_map.values().collect();
        let refused = |problem| EngineError::Config { path: index_path.clone(), problem };
        if names.len() > SHARDS_MAX {
            let problem = format!("{} shards; at most {SHARDS_MAX} are supported", names.len());
            return Err(refused(problem));
        }
        // A shard lies beside the index: a name is one step of a path.
        if let Some(name) =
            names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref()))
        {
            return Err(refused(format!("{name:?} is not a file's name")));
        }
        let open = |name: &String| Shard::open(&path.with_file_name(name));
        let shards = names.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { path: index_path, shards })
    }

    /// How many values all tensors have together.
    #[cfg(feature = "cuda")]
    pub(crate) fn values(&self) -> u64 {
        let tensors = self.shards.iter().flat_map(|shard| shard.metadata.tensors());
        tensors.map(|(_, info)| info.shape.iter().map(|&size| size as u64).product::<u64>()).sum()
    }

    /// The number types that tensors are stored in.
    pub(crate) fn dtypes(&self) -> Vec<String> {
        let tensors = self.shards.iter().flat_map(|shard| shard.metadata.tensors());
        let names: BTreeSet<String> =
            tensors.map(|(_, info)| format!("{:?}", info.dtype)).collect();
        names.into_iter().collect()
    }

    /// True when there is a tensor of that name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<(&Shard, &TensorInfo)> {
        self.shards.iter().find_map(|shard| Some((shard, shard.metadata.info(name)?)))
    }

    /// The rows and columns of a matrix, which the file alone knows.
    pub(crate) fn matrix(&self, name: &str) -> Result<[usize; 2], EngineError> {
        let Some((shard, info)) = self.find(name) else { return Err(self.missing(name)) };
        <[usize; 2]>::try_from(&*info.shape).map_err(|_| EngineError::Config {
            path: shard.path.clone(),
            problem: format!("{name} is no matrix: its shape is {:?}", info.shape),
        })
    }

    fn missing(&self, name: &str) -> EngineError {
        EngineError::TensorMissing { path: self.path.clone(), name: name.to_owned() }
    }

    /// A tensor of this shape.
    fn checked(&self, name: &str, shape: &[usize]) -> Result<(&Shard, &TensorInfo), EngineError> {
        let Some((shard, info)) = self.find(name) else { return Err(self.missing(name)) };
        if info.shape == shape {
            return Ok((shard, info));
        }
        Err(EngineError::TensorShape {
            path: shard.path.clone(),
            name: name.to_owned(),
            expected: shape.to_vec(),
            actual: info.shape.clone(),
        })
    }

    /// The tensor in f32, on the processor.
    pub(crate) fn f32(&self, name: &str, shape: &[usize]) -> Result<Tensor, EngineError> {
        let (shard, info) = self.checked(name, shape)?;
        if info.dtype == Dtype::F8_E4M3
            && let [rows, columns] = *shape
        {
            let bytes = shard.read(info.data_offsets.0, info.data_offsets.1)?;
            let scales =
                self.f32(&format!("{name}{}", fp8::SCALES), &fp8::scales_shape([rows, columns]))?;
            let numbers = fp8::decode(&bytes, &scales.flatten_all()?.to_vec1()?, columns);
            return Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?);
        }
        let dtype = shard.readable_dtype(name, info.dtype)?;
        let bytes = shard.read(info.data_offsets.0, info.data_offsets.1)?;
        Ok(Tensor::from_raw_buffer(&bytes, dtype, shape, &Device::Cpu)?.to_dtype(DType::F32)?)
    }

    /// Entry `index` of a tensor of bytes, along its first dimension.
    fn bytes_entry(
        &self,
        name: &str,
        shape: &[usize],
        index: usize,
    ) -> Result<Vec<u8>, EngineError> {
        let (shard, info) = self.checked(name, shape)?;
        if info.dtype != Dtype::U8 {
            return Err(EngineError::TensorDType {
                path: shard.path.clone(),
                name: name.to_owned(),
                dtype: format!("{:?}", info.dtype),
                readable: "U8",
            });
        }
        shard.entry(info, index)
    }
}

/// The tensor of a stack's blocks of MXFP4, `[matrices, outputs, inputs / 32, 16]`: two values a byte, the first in its
/// lower half.
fn blocks_of(name: &str) -> String {
    format!("{name}_blocks")
}

/// The tensor of these blocks' scales, `[matrices, outputs, inputs / 32]`: exponents of two, 127 more.
fn scales_of(name: &str) -> String {
    format!("{name}_scales")
}

impl Shard {
    /// Opens the file and checks that it is as long as its header says.
    fn open(path: &Path) -> Result<Self, EngineError> {
        let io = |source| EngineError::File { path: path.to_owned(), source };
        let broken = |problem: String| EngineError::Safetensors { path: path.to_owned(), problem };
        let mut file = File::open(path).map_err(io)?;
        let file_bytes = file.metadata().map_err(io)?.len();
        if file_bytes < LENGTH_BYTES {
            return Err(broken(format!("only {file_bytes} bytes long")));
        }
        let mut length = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut length).map_err(io)?;
        let header_bytes = u64::from_le_bytes(length);
        if header_bytes > HEADER_BYTES_MAX.min(file_bytes - LENGTH_BYTES) {
            return Err(broken(format!(
                "a header of {header_bytes} bytes in a file of {file_bytes}"
            )));
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact(&mut header).map_err(io)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| broken(format!("header: {error}")))?;
        let data_start = LENGTH_BYTES + header_bytes;
        let whole_bytes = data_start + metadata.data_len() as u64;
        if whole_bytes != file_bytes {
            return Err(broken(format!("{file_bytes} bytes long, its header says {whole_bytes}")));
        }
        Ok(Self { path: path.to_owned(), file: RefCell::new(file), metadata, data_start })
    }

    fn readable_dtype(&self, name: &str, dtype: Dtype) -> Result<DType, EngineError> {
        match dtype {
            Dtype::F32 => Ok(DType::F32),
            Dtype::F16 => Ok(DType::F16),
            Dtype::BF16 => Ok(DType::BF16),
            Dtype::F64 => Ok(DType::F64),
            other => Err(EngineError::TensorDType {
                path: self.path.clone(),
                name: name.to_owned(),
                dtype: format!("{other:?}"),
                readable: "F32, F16, BF16, F64, and matrices of F8_E4M3",
            }),
        }
    }

    /// The bytes of one of a tensor's entries along its first dimension.
    fn entry(&self, info: &TensorInfo, index: usize) -> Result<Vec<u8>, EngineError> {
        let (begin, end) = info.data_offsets;
        let bytes = (end - begin) / info.shape[0];
        self.read(begin + index * bytes, begin + (index + 1) * bytes)
    }

    fn read(&self, begin: usize, end: usize) -> Result<Vec<u8>, EngineError> {
        let mut bytes = vec![0; end - begin];
        let mut file = self.file.borrow_mut();
        file.seek(SeekFrom::Start(self.data_start + begin as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| EngineError::File { path: self.path.clone(), source })?;
        Ok(bytes)
    }
}

impl Tensors for Weights {
    fn contains(&self, name: &str) -> bool {
        Self::contains(self, name)
    }

    fn f32(&self, name: &str, shape: &[usize]) -> Result<Tensor, EngineError> {
        Self::f32(self, name, shape)
    }

    fn f32_entry(&self, name: &str, shape: &[usize], index: usize) -> Result<Tensor, EngineError> {
        let (shard, info) = self.checked(name, shape)?;
        let dtype = shard.readable_dtype(name, info.dtype)?;
        let bytes = shard.entry(info, index)?;
        let entry = Tensor::from_raw_buffer(&bytes, dtype, &shape[1..], &Device::Cpu)?;
        Ok(entry.to_dtype(DType::F32)?)
    }

    fn blocks_entry(
        &self,
        name: &str,
        stack: [usize; 3],
        index: usize,
    ) -> Result<Option<Blocks>, EngineError> {
        if !self.is_in_blocks(name) {
            return Ok(None);
        }
        let [matrices, outputs, inputs] = stack;
        let blocks = [matrices, outputs, inputs / mxfp4::VALUES, mxfp4::VALUES / 2];
        if !inputs.is_multiple_of(mxfp4::VALUES) {
            let problem = format!(
                "{} has blocks of {} along {inputs} inputs",
                blocks_of(name),
                mxfp4::VALUES
            );
            return Err(EngineError::Config { path: self.path.clone(), problem });
        }
        let values = self.bytes_entry(&blocks_of(name), &blocks, index)?;
        let scales = self.bytes_entry(&scales_of(name), &blocks[..3], index)?;
        Ok(Some(mxfp4::blocks(outputs, inputs, &values, &scales)))
    }

    fn is_in_blocks(&self, name: &str) -> bool {
        Self::contains(self, &blocks_of(name))
    }

    fn has_blocks(&self) -> bool {
        let mut names = self.shards.iter().flat_map(|shard| shard.metadata.tensors().into_keys());
        names.any(|name| {
            name.strip_suffix("_blocks").is_some_and(|stack| self.contains(&scales_of(stack)))
        })
    }

    fn dtypes(&self) -> Vec<String> {
        Self::dtypes(self)
    }
}
