//! A value of any type, as far as it is needed to say what came instead of what was expected.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use uuid::Uuid;

use crate::{
    limits::{METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX},
    names::shown,
};

/// The type of msgpack extension that is a timestamp.
const TIMESTAMP: i8 = -1;
/// The type of msgpack extension that JavaScript's msgpackr writes for `undefined`.
const UNDEFINED: i8 = 0;

/// One value that came. Lists and maps are read over; long texts and bytes are not kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Came {
    /// Null, nil, or undefined.
    Null,
    Flag(bool),
    Number(u64),
    /// A number that is not a whole one from 0 up.
    Real(f64),
    /// A text no longer than the longest of a head; bytes that are UTF-8 count as one.
    Text(String),
    LongText,
    /// Bytes that are no text: how many, and the UUID that they are if there are 16.
    Bytes(usize, Option<Uuid>),
    List,
    /// Its pairs if all of it can be a job's metadata; else none of them.
    Map(BTreeMap<String, String>),
    /// A value of a type that msgpack leaves to its users.
    Extension(i8),
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "the number {number}"),
            Self::Real(number) => write!(f, "the number {number}"),
            Self::Text(text) => write!(f, "the text {:?}", shown(text)),
            Self::LongText => f.write_str("a long text"),
            Self::Bytes(len, Some(_)) => {
                write!(f, "{len} bytes: if they are a UUID, send its text")
            }
            Self::Bytes(len, None) => write!(f, "{len} bytes that are not UTF-8 text"),
            Self::List => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map"),
            Self::Extension(TIMESTAMP) => f.write_str("a msgpack timestamp"),
            Self::Extension(kind) => write!(f, "a msgpack extension of type {kind}"),
        }
    }
}

impl Came {
    /// The error that says what came, and what was expected of the field `what`.
    pub(crate) fn instead_of<E: Error>(
        &self,
        what: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> E {
        E::custom(format_args!("`{what}` must be {expected}, not {self}"))
    }

    /// Bytes: a text if they are UTF-8.
    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::text(text),
            Err(_) => Self::Bytes(bytes.len(), Uuid::from_slice(bytes).ok()),
        }
    }

    fn text(text: &str) -> Self {
        // No field of a head is longer than a value of metadata.
        let short = text.chars().nth(METADATA_VALUE_CHARS_MAX).is_none();
        if short { Self::Text(text.to_owned()) } else { Self::LongText }
    }

    /// A signed number.
    pub(crate) fn signed(number: i64) -> Self {
        u64::try_from(number).map_or(Self::Real(number as f64), Self::Number)
    }

    /// A number with a fraction, or a whole one that its writer holds as such: JavaScript has no other, and PHP rounds
    /// to one. Up to 2^53 each is exact.
    pub(crate) fn real(number: f64) -> Self {
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0; // 2^53
        if (0.0..=EXACT_MAX).contains(&number) && number.fract() == 0.0 {
            return Self::Number(number as u64);
        }
        Self::Real(number)
    }

    /// An extension value, from the deserializer that a visitor is given for one.
    pub(crate) fn extension<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ExtensionVisitor)
    }
}

struct ExtensionVisitor;

impl<'de> Visitor<'de> for ExtensionVisitor {
    type Value = Came;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an extension value: its type and its bytes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Came, A::Error> {
        let kind = seq.next_element::<i8>()?.unwrap_or_default();
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(if kind == UNDEFINED { Came::Null } else { Came::Extension(kind) })
    }
}

/// A visitor that says what it expected instead of what came.
pub(crate) trait Refuse {
    /// The error.
    fn refuse<E: Error>(&self, came: &Came) -> E;
}

/// The methods of a `Visitor` for every type that it takes no value of: `self.refuse(came)` makes the error.
macro_rules! refuse_others {
    ($($kind:ident),*) => { $($crate::came::refuse_others!(@$kind);)* };
    (@flag) => {
        fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<Self::Value, E> {
            Err(self.refuse(&$crate::came::Came::Flag(flag)))
        }
    };
    (@number) => {
        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
            Err(self.refuse(&$crate::came::Came::Number(number)))
        }
        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
            Err(self.refuse(&$crate::came::Came::signed(number)))
        }
        fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Self::Value, E> {
            Err(self.refuse(&$crate::came::Came::Real(number)))
        }
    };
    (@text) => {
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Err(self.refuse(&$crate::came::Came::bytes(text.as_bytes())))
        }
        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            Err(self.refuse(&$crate::came::Came::bytes(bytes)))
        }
    };
    (@null) => {
        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Err(self.refuse(&$crate::came::Came::Null))
        }
    };
    (@list) => {
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(self.refuse(&$crate::came::Came::List))
        }
    };
    (@map) => {
        fn visit_map<A: serde::de::MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(self.refuse(&$crate::came::Came::Map(Default::default())))
        }
    };
    // Undefined is null, and goes where null goes.
    (@extension) => {
        fn visit_newtype_struct<D: serde::de::Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
            match $crate::came::Came::extension(from)? {
                $crate::came::Came::Null => self.visit_unit(),
                came => Err(self.refuse(&came)),
            }
        }
    };
}
pub(crate) use refuse_others;

impl<'de> Deserialize<'de> for Came {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(CameVisitor)
    }
}

struct CameVisitor;

impl<'de> Visitor<'de> for CameVisitor {
    type Value = Came;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of any type")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Came, E> {
        Ok(Came::text(text))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Came, E> {
        Ok(Came::bytes(bytes))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Came, E> {
        Ok(Came::Number(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Came, E> {
        Ok(Came::signed(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Came, E> {
        Ok(Came::real(number))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Came, E> {
        Ok(Came::Flag(flag))
    }

    fn visit_unit<E: Error>(self) -> Result<Came, E> {
        Ok(Came::Null)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Came, D::Error> {
        Came::extension(from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Came, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Came::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Came, A::Error> {
        let mut pairs = BTreeMap::new();
        let mut is_metadata = true;
        while let Some(pair) = map.next_entry::<Came, Came>()? {
            is_metadata &= match pair {
                (Came::Text(key), Came::Text(value)) if is_metadata => {
                    let fits = key.chars().nth(METADATA_KEY_CHARS_MAX).is_none();
                    fits && pairs.len() < METADATA_PAIRS_MAX && pairs.insert(key, value).is_none()
                }
                (Came::Text(_), Came::Null) => true,
                (Came::Text(_) | Came::LongText, _) => false,
                // A key that is no text is that of an unknown field.
                _ => true,
            };
        }
        Ok(Came::Map(if is_metadata { pairs } else { BTreeMap::new() }))
    }
}
