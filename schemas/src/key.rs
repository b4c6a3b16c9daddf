//! The keys of a map as the encoders of other languages write them: a text, or bytes that are one, may name a field.
//! Every other key is that of an unknown field, numbers too: derived decoders take those for positions.

use std::{fmt, marker::PhantomData};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The fields of a map, of which one has no name: the unknown.
pub(crate) trait Fields: Sized {
    /// The field with this name, or the unknown one.
    fn named(name: &str) -> Self;
    /// Its name; empty for the unknown one.
    fn name(self) -> &'static str;
    /// A bit of its own; none for the unknown one.
    fn bit(self) -> u32;
}

/// The fields of a map that came so far.
#[derive(Default)]
pub(crate) struct Seen(u32);

impl Seen {
    /// Another one came, which is refused if it is there already.
    pub(crate) fn add<F: Fields + Copy, E: Error>(&mut self, field: F) -> Result<(), E> {
        if self.0 & field.bit() != 0 {
            return Err(twice(field.name()));
        }
        self.0 |= field.bit();
        Ok(())
    }
}

pub(crate) fn twice<E: Error>(name: impl fmt::Display) -> E {
    E::custom(format_args!("`{name}` is there twice: send each field once"))
}

/// Declares the fields of a map with their names. `Other` is added: a field of any other name.
macro_rules! fields {
    ($kind:ident { $($field:ident = $name:literal),* $(,)? }) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $kind { $($field,)* Other }

        impl $crate::key::Fields for $kind {
            fn named(name: &str) -> Self {
                match name {
                    $($name => Self::$field,)*
                    _ => Self::Other,
                }
            }

            fn name(self) -> &'static str {
                match self {
                    $(Self::$field => $name,)*
                    Self::Other => "",
                }
            }

            fn bit(self) -> u32 {
                if self == Self::Other { 0 } else { 1 << self as u32 }
            }
        }
    };
}
pub(crate) use fields;

/// The key of one field of `F`.
pub(crate) struct Key<F>(PhantomData<F>);

impl<F> Key<F> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, F: Fields> DeserializeSeed<'de> for Key<F> {
    type Value = F;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<F, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, F: Fields> Visitor<'de> for Key<F> {
    type Value = F;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<F, E> {
        Ok(F::named(name))
    }

    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<F, E> {
        Ok(F::named(std::str::from_utf8(name).unwrap_or_default()))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<F, E> {
        Ok(F::named(""))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<F, E> {
        Ok(F::named(""))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<F, E> {
        Ok(F::named(""))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<F, E> {
        Ok(F::named(""))
    }

    fn visit_unit<E: Error>(self) -> Result<F, E> {
        Ok(F::named(""))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<F, D::Error> {
        from.deserialize_ignored_any(IgnoredAny)?;
        Ok(F::named(""))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<F, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(F::named(""))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<F, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(F::named(""))
    }
}
