//! Serde seeds that hold a bound in front of every allocation. They take a value as the encoders of other languages
//! write it: bytes that are UTF-8 for a text, a float for a whole number, an empty list for an empty map, and undefined
//! for null.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{
    came::{Came, Refuse, refuse_others},
    key::twice,
    limits::{METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX},
    names::shown,
};

/// The name of a value in errors.
#[derive(Clone, Copy)]
pub(crate) enum What<'a> {
    /// A field.
    Field(&'static str),
    /// An element of a field that is a list.
    Element(&'static str, usize),
    /// The value of a key of a field that is a map.
    Entry(&'static str, &'a str),
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => f.write_str(name),
            Self::Element(list, index) => write!(f, "{list}[{index}]"),
            Self::Entry(map, key) => write!(f, "{map}.{}", shown(key)),
        }
    }
}

/// A string of at most `chars_max` characters; `what` names it in errors.
#[derive(Clone, Copy)]
pub(crate) struct BoundedText<'a> {
    what: What<'a>,
    chars_max: usize,
}

impl<'a> BoundedText<'a> {
    pub(crate) const fn new(what: What<'a>, chars_max: usize) -> Self {
        Self { what, chars_max }
    }

    /// A field that may be null.
    pub(crate) const fn field(name: &'static str, chars_max: usize) -> OptionalText<'a> {
        OptionalText(Self::new(What::Field(name), chars_max))
    }

    /// A string whose length only the body bounds.
    pub(crate) const fn free(what: What<'a>) -> Self {
        Self { what, chars_max: usize::MAX }
    }

    fn take<E: Error>(self, text: &str) -> Result<String, E> {
        // Bytes first: they are counted already, and there are never fewer of them than characters.
        if text.len() > self.chars_max && text.chars().count() > self.chars_max {
            let Self { what, chars_max } = self;
            return Err(E::custom(format_args!(
                "`{what}` is longer than {chars_max} characters: shorten it"
            )));
        }
        Ok(text.to_owned())
    }
}

impl Refuse for BoundedText<'_> {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        came.instead_of(self.what, "a string")
    }
}

impl<'de> DeserializeSeed<'de> for BoundedText<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BoundedText<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` to be a string", self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        self.take(text)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<String, E> {
        let text = std::str::from_utf8(bytes).map_err(|_| self.refuse(&Came::bytes(bytes)))?;
        self.take(text)
    }

    refuse_others!(flag, number, null, list, map, extension);
}

/// A [`BoundedText`] or null.
#[derive(Clone, Copy)]
pub(crate) struct OptionalText<'a>(pub(crate) BoundedText<'a>);

impl Refuse for OptionalText<'_> {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        self.0.refuse(came)
    }
}

impl<'de> DeserializeSeed<'de> for OptionalText<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OptionalText<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        self.0.visit_str(text).map(Some)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        self.0.visit_bytes(bytes).map(Some)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    refuse_others!(flag, number, list, map, extension);
}

/// A list of at most `len_max` elements, the n-th of which is read by the seed `element(n)`; or null.
#[derive(Clone, Copy)]
pub(crate) struct BoundedList<F> {
    pub(crate) what: &'static str,
    pub(crate) len_max: usize,
    pub(crate) element: F,
}

impl<F> BoundedList<F> {
    /// Reads the elements.
    pub(crate) fn read<'de, S, A>(self, mut seq: A) -> Result<Vec<S::Value>, A::Error>
    where
        S: DeserializeSeed<'de>,
        F: Fn(usize) -> S,
        A: SeqAccess<'de>,
    {
        let Self { what, len_max, element } = self;
        let too_many = || {
            A::Error::custom(format_args!("`{what}` has more than {len_max} elements: send fewer"))
        };
        let announced = seq.size_hint().unwrap_or(0);
        if announced > len_max {
            return Err(too_many());
        }
        // An announced length is not yet data: a short body must not allocate a long list.
        let mut list = Vec::with_capacity(announced.min(64));
        while let Some(value) = seq.next_element_seed(element(list.len()))? {
            if list.len() == len_max {
                return Err(too_many());
            }
            list.push(value);
        }
        Ok(list)
    }
}

impl<F> Refuse for BoundedList<F> {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        came.instead_of(self.what, "a list")
    }
}

impl<'de, S: DeserializeSeed<'de>, F: Fn(usize) -> S> DeserializeSeed<'de> for BoundedList<F> {
    type Value = Option<Vec<S::Value>>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, S: DeserializeSeed<'de>, F: Fn(usize) -> S> Visitor<'de> for BoundedList<F> {
    type Value = Option<Vec<S::Value>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` to be a list", self.what)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        self.read(seq).map(Some)
    }

    refuse_others!(flag, number, text, map, extension);
}

/// The `metadata` of a job, or null.
pub(crate) struct BoundedMap;

impl Refuse for BoundedMap {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        came.instead_of("metadata", "a map of strings")
    }
}

impl<'de> DeserializeSeed<'de> for BoundedMap {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BoundedMap {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`metadata` to be a map of strings")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        empty_list(seq)?.then(BTreeMap::new).ok_or_else(|| self.refuse(&Came::List))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = BTreeMap::new();
        while let Some(key) = map.next_key::<Came>()? {
            let key = match key {
                Came::Text(key) if key.chars().nth(METADATA_KEY_CHARS_MAX).is_none() => key,
                Came::Text(_) | Came::LongText => {
                    return Err(A::Error::custom(format_args!(
                        "a `metadata` key is longer than {METADATA_KEY_CHARS_MAX} characters: shorten it"
                    )));
                }
                // As everywhere, a key that is no text is that of an unknown field.
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let value = OptionalText(BoundedText::new(
                What::Entry("metadata", &key),
                METADATA_VALUE_CHARS_MAX,
            ));
            let Some(value) = map.next_value_seed(value)? else { continue };
            if pairs.len() == METADATA_PAIRS_MAX {
                return Err(A::Error::custom(format_args!(
                    "`metadata` has more than {METADATA_PAIRS_MAX} pairs: send fewer"
                )));
            }
            if pairs.contains_key(&key) {
                return Err(twice(What::Entry("metadata", &key)));
            }
            pairs.insert(key, value);
        }
        Ok(pairs)
    }

    refuse_others!(flag, number, text, extension);
}

/// Whether a list has no elements: several languages write an empty map like that.
pub(crate) fn empty_list<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<bool, A::Error> {
    Ok(seq.next_element::<IgnoredAny>()?.is_none())
}

/// A whole number, or null; the error names the field.
pub(crate) struct Number(pub(crate) &'static str);
/// A whole number that fits 32 bits, or null; the error names the field.
pub(crate) struct SmallNumber(pub(crate) &'static str);
/// Any number, or null; the error names the field.
pub(crate) struct Real(pub(crate) &'static str);
/// True, false or null; the error names the field.
pub(crate) struct Flag(pub(crate) &'static str);
/// The version, or null.
pub(crate) struct Version;

impl<'de> DeserializeSeed<'de> for Number {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        number(self.0, "a whole number from 0 up", from)
    }
}

impl<'de> DeserializeSeed<'de> for Version {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        number("v", "the number 1", from)
    }
}

fn number<'de, D: Deserializer<'de>>(
    what: &str,
    expected: &str,
    from: D,
) -> Result<Option<u64>, D::Error> {
    match Came::deserialize(from)? {
        Came::Null => Ok(None),
        Came::Number(number) => Ok(Some(number)),
        came => Err(came.instead_of(what, expected)),
    }
}

impl<'de> DeserializeSeed<'de> for SmallNumber {
    type Value = Option<u32>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        let Some(number) = Number(self.0).deserialize(from)? else { return Ok(None) };
        let small = u32::try_from(number);
        small
            .map(Some)
            .map_err(|_| Came::Number(number).instead_of(self.0, "a whole number below 2^32"))
    }
}

impl<'de> DeserializeSeed<'de> for Real {
    type Value = Option<f32>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        match Came::deserialize(from)? {
            Came::Null => Ok(None),
            Came::Number(number) => Ok(Some(number as f32)),
            Came::Real(number) => Ok(Some(number as f32)),
            came => Err(came.instead_of(self.0, "a number")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Flag {
    type Value = Option<bool>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        match Came::deserialize(from)? {
            Came::Null => Ok(None),
            Came::Flag(flag) => Ok(Some(flag)),
            came => Err(came.instead_of(self.0, "true or false")),
        }
    }
}
