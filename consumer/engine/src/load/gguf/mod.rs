//! GGUF: one file with a model's settings, its tokenizer and its tensors, plain or in quantised blocks.
//!
//! [`GgufModel::open`] reads everything but the tensors. It gives the fields that transformers would have written into
//! `config.json` and `generation_config.json`, and the tensors by transformers' names, in transformers' order of rows.
//! `crate::tokenizer::gguf` makes a tokenizer of the same file.
//!
//! Tensors are read one by one into memory of their own. The file is not mapped: one that is replaced or cut while it
//! is read then gives an error instead of a signal.

pub(crate) mod blocks;
mod config;
mod dequantize;
mod family;
pub(crate) mod generation;
mod half_at;
mod header;
mod k_blocks;
pub(crate) mod kind;
pub(crate) mod metadata;
pub(crate) mod packed;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::{Map, Value};

use crate::error::EngineError;
use crate::load::gguf::blocks::Blocks;
use crate::load::gguf::config::Heads;
use crate::load::gguf::dequantize::dequantize;
use crate::load::gguf::family::{Change, Family, halves_apart};
use crate::load::gguf::generation::GenerationFacts;
use crate::load::gguf::header::{Header, Problem, TensorInfo};
use crate::load::gguf::kind::Kind;
use crate::load::gguf::metadata::Metadata;
use crate::load::tensors::Tensors;

/// An open GGUF of a model that generates text.
#[derive(Debug)]
pub(crate) struct GgufModel {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    family: Family,
    heads: Heads,
    /// Tensors by transformers' names.
    tensors: BTreeMap<String, (TensorInfo, Change)>,
}

impl GgufModel {
    /// Opens the file and checks that it is whole.
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let io = |source| EngineError::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let file_bytes = file.metadata().map_err(io)?.len();
        let header = Header::read(BufReader::new(&file), file_bytes, path);
        let Header { metadata, tensors } = header.map_err(|problem| match problem {
            Problem::Io(source) => io(source),
            Problem::Broken(problem) => EngineError::Gguf { path: path.to_owned(), problem },
        })?;
        let family = Family::of(&metadata)?;
        let heads = Heads::of(&metadata, family)?;
        let renamed = |(name, info): (String, TensorInfo)| {
            let (name, change) = family.tensor(&name);
            (name, (info, change))
        };
        let count = tensors.len();
        let tensors: BTreeMap<_, _> = tensors.into_iter().map(renamed).collect();
        if tensors.len() < count {
            let problem = "two tensors have the same name in transformers".to_owned();
            return Err(EngineError::Gguf { path: path.to_owned(), problem });
        }
        Ok(Self { path: path.to_owned(), file, metadata, family, heads, tensors })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its settings.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The fields that `config.json` would have.
    pub(crate) fn config(&self) -> Result<Map<String, Value>, EngineError> {
        config::config(&self.metadata, self.family, self)
    }

    /// Settings of generation.
    pub(crate) fn generation(&self) -> Result<GenerationFacts, EngineError> {
        GenerationFacts::read(&self.metadata)
    }

    /// The tensors' names in transformers, with their shapes.
    #[cfg(fuzzing)]
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, (info, _))| (name.as_str(), &*info.shape))
    }

    fn find(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<(&TensorInfo, Kind, Change), EngineError> {
        let path = || self.path.clone();
        let name = || name.to_owned();
        let Some((info, change)) = self.tensors.get(&name()) else {
            return Err(EngineError::TensorMissing { path: path(), name: name() });
        };
        if info.shape != shape {
            return Err(EngineError::TensorShape {
                path: path(),
                name: name(),
                expected: shape.to_vec(),
                actual: info.shape.clone(),
            });
        }
        match info.kind {
            Ok(kind) => Ok((info, kind, *change)),
            Err(number) => Err(EngineError::TensorDType {
                path: path(),
                name: name(),
                dtype: format!("GGUF's type {number}"),
                readable: kind::READABLE,
            }),
        }
    }

    fn read(&self, begin: u64, bytes: usize) -> Result<Vec<u8>, EngineError> {
        let mut read = vec![0; bytes];
        self.file
            .read_exact_at(&mut read, begin)
            .map_err(|source| EngineError::File { path: self.path.clone(), source })?;
        Ok(read)
    }

    /// The bytes of one of a tensor's entries along its first dimension, of a tensor whose values are as in the file.
    fn entry(&self, info: &TensorInfo, index: usize) -> Result<Vec<u8>, EngineError> {
        // Entries are whole rows, and rows whole blocks.
        let bytes = info.bytes / info.shape[0];
        self.read(info.begin + (index * bytes) as u64, bytes)
    }

    /// The tensor's bytes, its rows in transformers' order.
    fn bytes(&self, name: &str, info: &TensorInfo, change: Change) -> Result<Vec<u8>, EngineError> {
        let bytes = self.read(info.begin, info.bytes)?;
        let heads = match change {
            Change::Queries => self.heads.queries,
            Change::Keys => self.heads.keys,
            Change::None | Change::OneLess => return Ok(bytes),
        };
        let rows = info.shape[0];
        // A bias has one value a row, which is no row of quantised blocks.
        if !rows.is_multiple_of(2 * heads) || !info.bytes.is_multiple_of(rows) {
            let shape = &info.shape;
            let problem = format!("{name} of shape {shape:?} does not have {heads} even heads");
            return Err(self.metadata.problem(problem));
        }
        Ok(halves_apart(&bytes, info.bytes / rows, heads))
    }
}

impl Tensors for GgufModel {
    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn f32(&self, name: &str, shape: &[usize]) -> Result<Tensor, EngineError> {
        let (info, kind, change) = self.find(name, shape)?;
        let mut values = dequantize(kind, &self.bytes(name, info, change)?);
        if change == Change::OneLess {
            for value in &mut values {
                *value -= 1.0;
            }
        }
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    fn blocks(&self, name: &str, shape: [usize; 2]) -> Result<Option<Blocks>, EngineError> {
        let (info, kind, change) = self.find(name, &shape)?;
        if !kind.is_quantised() {
            return Ok(None);
        }
        let bytes = self.bytes(name, info, change)?;
        let [outputs, inputs] = shape;
        Ok(Some(Blocks { kind, outputs, inputs, bytes }))
    }

    fn f32_entry(&self, name: &str, shape: &[usize], index: usize) -> Result<Tensor, EngineError> {
        let (info, kind, _) = self.find(name, shape)?;
        let values = dequantize(kind, &self.entry(info, index)?);
        Ok(Tensor::from_vec(values, &shape[1..], &Device::Cpu)?)
    }

    fn blocks_entry(
        &self,
        name: &str,
        stack: [usize; 3],
        index: usize,
    ) -> Result<Option<Blocks>, EngineError> {
        let (info, kind, _) = self.find(name, &stack)?;
        if !kind.is_quantised() {
            return Ok(None);
        }
        let [_, outputs, inputs] = stack;
        Ok(Some(Blocks { kind, outputs, inputs, bytes: self.entry(info, index)? }))
    }

    fn is_in_blocks(&self, name: &str) -> bool {
        let kind = self.tensors.get(name).and_then(|(info, _)| info.kind.ok());
        kind.is_some_and(Kind::is_quantised)
    }

    fn has_blocks(&self) -> bool {
        let mut kinds = self.tensors.values().filter_map(|(info, _)| info.kind.ok());
        kinds.any(Kind::is_quantised)
    }

    fn dtypes(&self) -> Vec<String> {
        let name = |info: &TensorInfo| match info.kind {
            Ok(kind) => kind.to_string(),
            Err(number) => format!("type {number}"),
        };
        let names: BTreeSet<String> = self.tensors.values().map(|(info, _)| name(info)).collect();
        names.into_iter().collect()
    }
}
