//! Serde seeds that hold a bound in front of every allocation.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::limits::{
    METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX, NOTIFY_CHARS_MAX,
};

/// A string of at most `chars_max` characters; `what` names it in errors.
#[derive(Clone, Copy)]
pub(crate) struct BoundedText {
    what: &'static str,
    chars_max: usize,
}

impl BoundedText {
    pub(crate) const fn new(what: &'static str, chars_max: usize) -> Self {
        Self { what, chars_max }
    }

    /// The bounded string, or null.
    pub(crate) const fn optional(self) -> OptionalText {
        OptionalText(self)
    }

    /// A string whose length only the body bounds.
    pub(crate) const fn free(what: &'static str) -> Self {
        Self { what, chars_max: usize::MAX }
    }
}

impl<'de> DeserializeSeed<'de> for BoundedText {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for BoundedText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` to be a string", self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
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

/// A [`BoundedText`] or null.
pub(crate) struct OptionalText(BoundedText);

impl<'de> DeserializeSeed<'de> for OptionalText {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for OptionalText {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(from).map(Some)
    }
}

/// A list of at most `len_max` elements, each read by the seed `element`.
#[derive(Clone, Copy)]
pub(crate) struct BoundedList<S> {
    pub(crate) what: &'static str,
    pub(crate) len_max: usize,
    pub(crate) element: S,
}

impl<'de, S: DeserializeSeed<'de> + Copy> DeserializeSeed<'de> for BoundedList<S> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Copy> Visitor<'de> for BoundedList<S> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` to be a list", self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
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
        while let Some(value) = seq.next_element_seed(element)? {
            if list.len() == len_max {
                return Err(too_many());
            }
            list.push(value);
        }
        Ok(list)
    }
}

/// The `metadata` of a job, or null.
pub(crate) struct BoundedMap;

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

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        const KEY: BoundedText = BoundedText::new("metadata key", METADATA_KEY_CHARS_MAX);
        const VALUE: BoundedText = BoundedText::new("metadata value", METADATA_VALUE_CHARS_MAX);
        let mut pairs = BTreeMap::new();
        while let Some(key) = map.next_key_seed(KEY)? {
            if pairs.len() == METADATA_PAIRS_MAX {
                let message =
                    format_args!("`metadata` has more than {METADATA_PAIRS_MAX} pairs: send fewer");
                return Err(A::Error::custom(message));
            }
            pairs.insert(key, map.next_value_seed(VALUE)?);
        }
        Ok(pairs)
    }
}

/// A whole number, or null; the error names the field.
pub(crate) struct Number(pub(crate) &'static str);
/// A whole number that fits 32 bits, or null; the error names the field.
pub(crate) struct SmallNumber(pub(crate) &'static str);
/// Any number, or null; the error names the field.
pub(crate) struct Real(pub(crate) &'static str);
/// True, false or null; the error names the field.
pub(crate) struct Flag(pub(crate) &'static str);

impl<'de> DeserializeSeed<'de> for Number {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        match Scalar::deserialize(from)? {
            Scalar::Null => Ok(None),
            Scalar::Number(number) => Ok(Some(number)),
            _ => Err(wrong_type(self.0, "a whole number from 0 up")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for SmallNumber {
    type Value = Option<u32>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        let number = Number(self.0).deserialize(from)?;
        let small = number.map(u32::try_from).transpose();
        small.map_err(|_| wrong_type(self.0, "a whole number below 2^32"))
    }
}

impl<'de> DeserializeSeed<'de> for Real {
    type Value = Option<f32>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        match Scalar::deserialize(from)? {
            Scalar::Null => Ok(None),
            Scalar::Number(number) => Ok(Some(number as f32)),
            Scalar::Real(number) => Ok(Some(number as f32)),
            _ => Err(wrong_type(self.0, "a number")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Flag {
    type Value = Option<bool>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        match Scalar::deserialize(from)? {
            Scalar::Null => Ok(None),
            Scalar::Flag(flag) => Ok(Some(flag)),
            _ => Err(wrong_type(self.0, "true or false")),
        }
    }
}

fn wrong_type<E: Error>(field: &str, expected: &str) -> E {
    E::custom(format_args!("`{field}` must be {expected}"))
}

/// A single value of any type. Lists, maps, bytes and long strings are skipped.
pub(crate) enum Scalar {
    Null,
    Flag(bool),
    Number(u64),
    Real(f64),
    Text(String),
    Other,
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ScalarVisitor(PhantomData))
    }
}

struct ScalarVisitor(PhantomData<()>);

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        // No field of a head is longer than a channel's name.
        let short = text.chars().count() <= NOTIFY_CHARS_MAX;
        Ok(if short { Scalar::Text(text.to_owned()) } else { Scalar::Other })
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(u64::try_from(number).map_or(Scalar::Real(number as f64), Scalar::Number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Real(number))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(flag))
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}
