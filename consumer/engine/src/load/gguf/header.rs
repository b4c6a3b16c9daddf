//! The beginning of a GGUF: its settings, and where each tensor lies. Nothing in it is trusted: every length is held
//! against what is left of the file.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use crate::load::gguf::kind::Kind;
use crate::load::gguf::metadata::{Metadata, Number, Scalar, Texts, Value};

/// The longest header that is read. Vocabularies of 262,144 tokens with their merges take some 20 MiB.
const HEADER_BYTES_MAX: u64 = 256 << 20;
/// The most settings and the most tensors. A model of 100 layers has some 1,500 tensors.
const ENTRIES_MAX: u64 = 1 << 16;
/// The longest name of a key or a tensor: the format's own limit.
const NAME_BYTES_MAX: u64 = 65_535;
/// The most dimensions of a tensor: the format's own limit.
const DIMENSIONS_MAX: u32 = 4;
/// The most that a file may align tensors to.
const ALIGNMENT_MAX: u64 = 1 << 20;
/// The alignment of files that don't say it.
const ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// Numbers of types in a file that aren't a [`Number`]'s.
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// The reason why a header can't be read.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The file can't be read.
    Io(io::Error),
    /// It is no GGUF, or not a whole one.
    Broken(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn broken<T>(problem: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::Broken(problem.into()))
}

/// A tensor's position and form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorInfo {
    /// The type of its values; the format's number for one that isn't read.
    pub(crate) kind: Result<Kind, u32>,
    /// Its sizes, the one whose values lie side by side last.
    pub(crate) shape: Vec<usize>,
    /// Where it begins in the file.
    pub(crate) begin: u64,
    /// Its bytes; 0 where the type isn't known.
    pub(crate) bytes: usize,
}

/// Everything before the tensors.
#[derive(Debug)]
pub(crate) struct Header {
    /// The settings.
    pub(crate) metadata: Metadata,
    /// The tensors by name.
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
}

/// The rest of a header, as it is read.
struct Source<R> {
    reader: R,
    at: u64,
    left: u64,
}

impl<R: Read> Source<R> {
    fn bytes(&mut self, bytes: u64) -> Result<Vec<u8>, Problem> {
        if bytes > self.left {
            return broken(format!("{bytes} bytes at {}, {} are left", self.at, self.left));
        }
        let mut taken = vec![0; bytes as usize];
        self.reader.read_exact(&mut taken)?;
        self.at += bytes;
        self.left -= bytes;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let bytes = self.bytes(N as u64)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    fn u32(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Problem> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<Vec<u8>, Problem> {
        let bytes = self.u64()?;
        self.bytes(bytes)
    }

    fn name(&mut self) -> Result<String, Problem> {
        let bytes = self.u64()?;
        if bytes > NAME_BYTES_MAX {
            return broken(format!("a name of {bytes} bytes at {}", self.at));
        }
        String::from_utf8(self.bytes(bytes)?)
            .map_err(|error| Problem::Broken(format!("a name at {}: {error}", self.at)))
    }

    fn value(&mut self) -> Result<Value, Problem> {
        let kind = self.u32()?;
        match (Number::of(kind), kind) {
            (Some(number), _) => {
                Ok(Value::Scalar(number.read(&self.bytes(number.bytes() as u64)?)))
            }
            (None, TEXT) => Ok(Value::Text(self.text()?)),
            (None, ARRAY) => self.values(),
            _ => broken(format!("a value of type {kind} at {}", self.at)),
        }
    }

    fn values(&mut self) -> Result<Value, Problem> {
        let kind = self.u32()?;
        let count = self.u64()?;
        if let Some(number) = Number::of(kind) {
            let bytes = count.saturating_mul(number.bytes() as u64);
            return Ok(Value::Numbers(number, self.bytes(bytes)?));
        }
        if kind != TEXT {
            return broken(format!("an array of type {kind} at {}", self.at));
        }
        let mut texts = Texts::default();
        for _ in 0..count {
            texts.push(&self.text()?);
        }
        Ok(Value::Texts(texts))
    }
}

impl Header {
    /// Reads the header of a file of so many bytes; `path` names it in errors of its settings.
    pub(crate) fn read(reader: impl Read, file_bytes: u64, path: &Path) -> Result<Self, Problem> {
        let mut source = Source { reader, at: 0, left: file_bytes.min(HEADER_BYTES_MAX) };
        if source.array()? != *b"GGUF" {
            return broken("it does not begin with GGUF");
        }
        match source.u32()? {
            2 | 3 => {}
            version if version.swap_bytes() <= 3 => return broken("its numbers are big-endian"),
            version => return broken(format!("version {version}, expected 2 or 3")),
        }
        let tensors = source.u64()?;
        let settings = source.u64()?;
        if tensors.max(settings) > ENTRIES_MAX {
            return broken(format!("{tensors} tensors and {settings} settings"));
        }
        let mut values = BTreeMap::new();
        for _ in 0..settings {
            let key = source.name()?;
            let value = source.value()?;
            if values.insert(key.clone(), value).is_some() {
                return broken(format!("the key {key:?} twice"));
            }
        }
        let alignment = alignment(&values)?;
        let mut listed = BTreeMap::new();
        for _ in 0..tensors {
            let name = source.name()?;
            let info = tensor(&mut source, &name)?;
            if listed.insert(name.clone(), info).is_some() {
                return broken(format!("the tensor {name:?} twice"));
            }
        }
        let data_begin = source.at.next_multiple_of(alignment);
        for (name, info) in &mut listed {
            if !info.begin.is_multiple_of(alignment) {
                return broken(format!("tensor {name:?} at {}, not aligned", info.begin));
            }
            let begin = info.begin.checked_add(data_begin);
            let end = begin.and_then(|begin| begin.checked_add(info.bytes as u64));
            match (begin, end) {
                (Some(begin), Some(end)) if end <= file_bytes => info.begin = begin,
                _ => {
                    let end = end.unwrap_or(u64::MAX);
                    return broken(format!("{file_bytes} bytes long, {name:?} ends at {end}"));
                }
            }
        }
        Ok(Self { metadata: Metadata::new(path.to_owned(), values), tensors: listed })
    }
}

fn alignment(values: &BTreeMap<String, Value>) -> Result<u64, Problem> {
    match values.get(ALIGNMENT_KEY) {
        None => Ok(ALIGNMENT),
        Some(Value::Scalar(Scalar::Integer(value))) => match u64::try_from(*value) {
            Ok(value) if value.is_power_of_two() && value <= ALIGNMENT_MAX => Ok(value),
            _ => broken(format!("{ALIGNMENT_KEY} = {value}, expected a power of two")),
        },
        Some(_) => broken(format!("{ALIGNMENT_KEY} is no integer")),
    }
}

/// A tensor's entry; where it begins is still counted from the first one's beginning.
fn tensor<R: Read>(source: &mut Source<R>, name: &str) -> Result<TensorInfo, Problem> {
    let dimensions = source.u32()?;
    if dimensions == 0 || dimensions > DIMENSIONS_MAX {
        return broken(format!("tensor {name:?} of {dimensions} dimensions"));
    }
    let mut shape = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        let size = source.u64()?;
        // Sizes are multiplied with those of types and of heads.
        match u32::try_from(size) {
            Ok(size) if size > 0 => shape.push(size as usize),
            _ => return broken(format!("tensor {name:?} with a size of {size}")),
        }
    }
    shape.reverse();
    let number = source.u32()?;
    let begin = source.u64()?;
    let kind = Kind::of_number(number).ok_or(number);
    let bytes = match kind {
        Err(_) => 0,
        Ok(kind) => {
            let inner = shape.last().copied().unwrap_or(1);
            if !inner.is_multiple_of(kind.values()) {
                return broken(format!(
                    "tensor {name:?} has rows of {inner} values, {kind} has {} in a block",
                    kind.values()
                ));
            }
            let values = shape.iter().try_fold(1_usize, |all, &size| all.checked_mul(size));
            let bytes =
                values.and_then(|values| (values / kind.values()).checked_mul(kind.bytes()));
            bytes.ok_or_else(|| Problem::Broken(format!("tensor {name:?} of shape {shape:?}")))?
        }
    };
    Ok(TensorInfo { kind, shape, begin, bytes })
}
