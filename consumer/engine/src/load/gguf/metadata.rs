//! The settings of a GGUF: named values of a few types. Each getter says in its error which key had what.
//!
//! Arrays stay as the bytes that the file has, so that a file's settings take no more memory than it has bytes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::EngineError;

/// Number types of values, as the format numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    U64,
    I64,
    F64,
}

impl Number {
    /// The type of this number in a file; texts and arrays are none.
    pub(crate) fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of a value.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The value of these bytes, of which there are as many as [`Self::bytes`].
    pub(crate) fn read(self, bytes: &[u8]) -> Scalar {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(whole);
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => Scalar::Integer(i128::from(bits)),
            Self::I8 => Scalar::Integer(i128::from(bits as u8 as i8)),
            Self::I16 => Scalar::Integer(i128::from(bits as u16 as i16)),
            Self::I32 => Scalar::Integer(i128::from(bits as u32 as i32)),
            Self::I64 => Scalar::Integer(i128::from(bits as i64)),
            Self::F32 => Scalar::F32(f32::from_bits(bits as u32)),
            Self::F64 => Scalar::F64(f64::from_bits(bits)),
            Self::Bool => Scalar::Bool(bits != 0),
        }
    }
}

/// One number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar {
    Integer(i128),
    F32(f32),
    F64(f64),
    Bool(bool),
}

/// The value of a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Scalar(Scalar),
    Text(Vec<u8>),
    Texts(Texts),
    Numbers(Number, Vec<u8>),
}

impl Value {
    /// A value's type, for messages.
    fn kind(&self) -> &'static str {
        match self {
            Self::Scalar(Scalar::Integer(_)) => "an integer",
            Self::Scalar(Scalar::F32(_) | Scalar::F64(_)) => "a float",
            Self::Scalar(Scalar::Bool(_)) => "a bool",
            Self::Text(_) => "a text",
            Self::Texts(_) => "an array of texts",
            Self::Numbers(..) => "an array of numbers",
        }
    }
}

/// Texts end to end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Texts {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<u32>,
}

impl Texts {
    /// Adds a text.
    pub(crate) fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len() as u32);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The texts' bytes, in order.
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| &self.bytes[begin as usize..end as usize])
    }
}

/// All settings of a file.
#[derive(Debug)]
pub(crate) struct Metadata {
    path: PathBuf,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// The settings of the file at `path`.
    pub(crate) fn new(path: PathBuf, values: BTreeMap<String, Value>) -> Self {
        Self { path, values }
    }

    /// A problem with a setting.
    pub(crate) fn problem(&self, problem: String) -> EngineError {
        EngineError::Config { path: self.path.clone(), problem }
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> EngineError {
        self.problem(format!("{key} is {}, expected {expected}", value.kind()))
    }

    fn missing(&self, key: &str) -> EngineError {
        self.problem(format!("{key} is missing"))
    }

    fn utf8<'a>(&self, key: &str, bytes: &'a [u8]) -> Result<&'a str, EngineError> {
        std::str::from_utf8(bytes).map_err(|error| self.problem(format!("{key}: {error}")))
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, EngineError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(bytes)) => self.utf8(key, bytes).map(Some),
            Some(other) => Err(self.wrong(key, other, "a text")),
        }
    }

    /// A text that every file has.
    pub(crate) fn required_text(&self, key: &str) -> Result<&str, EngineError> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    /// An integer from 0 to `max`.
    pub(crate) fn size(&self, key: &str, max: usize) -> Result<Option<usize>, EngineError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Scalar(Scalar::Integer(value))) => match usize::try_from(*value) {
                Ok(value) if value <= max => Ok(Some(value)),
                _ => Err(self.problem(format!("{key} = {value}, expected 0 to {max}"))),
            },
            Some(other) => Err(self.wrong(key, other, "an integer")),
        }
    }

    /// An integer from 1 to `max` that every model has.
    pub(crate) fn required_size(&self, key: &str, max: usize) -> Result<usize, EngineError> {
        match self.size(key, max)? {
            None => Err(self.missing(key)),
            Some(0) => Err(self.problem(format!("{key} = 0, expected 1 to {max}"))),
            Some(value) => Ok(value),
        }
    }

    /// A finite float. One of 32 bits becomes the shortest decimal that is it, as a person wrote it.
    pub(crate) fn float(&self, key: &str) -> Result<Option<f64>, EngineError> {
        let value = match self.values.get(key) {
            None => return Ok(None),
            Some(Value::Scalar(Scalar::F32(value))) => decimal(*value),
            Some(Value::Scalar(Scalar::F64(value))) => *value,
            Some(Value::Scalar(Scalar::Integer(value))) => *value as f64,
            Some(other) => return Err(self.wrong(key, other, "a float")),
        };
        if value.is_finite() {
            return Ok(Some(value));
        }
        Err(self.problem(format!("{key} = {value}, expected a finite float")))
    }

    /// A bool.
    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, EngineError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Scalar(Scalar::Bool(value))) => Ok(Some(*value)),
            Some(other) => Err(self.wrong(key, other, "a bool")),
        }
    }

    /// At most `max` texts; of those that aren't UTF-8 the first is refused.
    pub(crate) fn texts(&self, key: &str, max: usize) -> Result<Option<Vec<&str>>, EngineError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Texts(texts)) if texts.len() > max => {
                Err(self
                    .problem(format!("{key} has {} texts, expected at most {max}", texts.len())))
            }
            Some(Value::Texts(texts)) => {
                texts.iter().map(|text| self.utf8(key, text)).collect::<Result<_, _>>().map(Some)
            }
            Some(other) => Err(self.wrong(key, other, "an array of texts")),
        }
    }

    /// How many texts an array has.
    pub(crate) fn texts_len(&self, key: &str) -> Option<usize> {
        match self.values.get(key) {
            Some(Value::Texts(texts)) => Some(texts.len()),
            _ => None,
        }
    }

    /// Numbers of an array, as doubles.
    pub(crate) fn floats(&self, key: &str) -> Result<Option<Vec<f64>>, EngineError> {
        self.numbers(key, |number| match number {
            Scalar::Integer(value) => Some(value as f64),
            Scalar::F32(value) => Some(f64::from(value)),
            Scalar::F64(value) => Some(value),
            Scalar::Bool(_) => None,
        })
    }

    /// Integers of an array.
    pub(crate) fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, EngineError> {
        self.numbers(key, |number| match number {
            Scalar::Integer(value) => i64::try_from(value).ok(),
            _ => None,
        })
    }

    fn numbers<T>(
        &self,
        key: &str,
        of: impl Fn(Scalar) -> Option<T>,
    ) -> Result<Option<Vec<T>>, EngineError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let Value::Numbers(number, bytes) = value else {
            return Err(self.wrong(key, value, "an array of numbers"));
        };
        let all = bytes.chunks_exact(number.bytes()).map(|bytes| of(number.read(bytes)));
        let all: Option<Vec<T>> = all.collect();
        all.map(Some).ok_or_else(|| self.problem(format!("{key} has numbers of type {number:?}")))
    }
}

/// The shortest decimal that is this float, as a double.
pub(crate) fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
