//! A JSON value that keeps its maps in the order in which they came. Templates write tools as they were given, and a
//! guide asks for properties in their schema's order: a map sorted by keys would change what a model reads and writes.

use std::{cell::Cell, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Serialize, Serializer,
    de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::Number;

use crate::{
    came::{Came, Refuse},
    key::twice,
    limits::JSON_VALUES_MAX,
};

/// Any JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// Null.
    Null,
    /// True or false.
    Flag(bool),
    /// A finite number.
    Number(Number),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// The pairs of a map, in the order in which they came; no key is there twice.
    Map(Vec<(String, Json)>),
}

impl Json {
    /// The value of a key, where this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(pairs) = self else { return None };
        pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The string that this is.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

impl fmt::Display for Json {
    /// The value as JSON text, without white space.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Flag(flag),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(text),
            Value::Array(list) => Self::List(list.into_iter().map(Self::from).collect()),
            Value::Object(map) => {
                Self::Map(map.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => to.serialize_unit(),
            Self::Flag(flag) => to.serialize_bool(*flag),
            Self::Number(number) => number.serialize(to),
            Self::Text(text) => to.serialize_str(text),
            Self::List(list) => list.serialize(to),
            Self::Map(pairs) => {
                let mut map = to.serialize_map(Some(pairs.len()))?;
                for (key, value) in pairs {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> serde::Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let left = Cell::new(JSON_VALUES_MAX);
        JsonSeed { what: "value", left: &left }.deserialize(from)
    }
}

impl JsonSchema for Json {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!(true)
    }
}

/// Any value, with the number of values that there may still be in its field. Depth is the codec's to bound.
#[derive(Clone, Copy)]
pub(crate) struct JsonSeed<'a> {
    pub(crate) what: &'static str,
    pub(crate) left: &'a Cell<usize>,
}

impl JsonSeed<'_> {
    /// One value more.
    fn count<E: Error>(&self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| {
            let what = self.what;
            E::custom(format_args!(
                "`{what}` has more than {JSON_VALUES_MAX} values: send a smaller one"
            ))
        })?;
        self.left.set(left);
        Ok(())
    }
}

impl Refuse for JsonSeed<'_> {
    fn refuse<E: Error>(&self, came: &Came) -> E {
        came.instead_of(self.what, "a value that JSON has")
    }
}

impl<'de> DeserializeSeed<'de> for JsonSeed<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Json, D::Error> {
        self.count()?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonSeed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` to be a value that JSON has", self.what)
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Json, E> {
        Ok(Json::Flag(flag))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json, E> {
        let number = Number::from_f64(number);
        number.map(Json::Number).ok_or_else(|| self.refuse(&Came::Real(f64::NAN)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Json, E> {
        let text = std::str::from_utf8(bytes).map_err(|_| self.refuse(&Came::bytes(bytes)))?;
        self.visit_str(text)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Json, D::Error> {
        match Came::extension(from)? {
            Came::Null => Ok(Json::Null),
            came => Err(self.refuse(&came)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut pairs = Vec::new();
        let mut keys = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<Text>()? {
            if !keys.insert(key.0.clone()) {
                return Err(twice(format_args!("{}.{}", self.what, crate::names::shown(&key.0))));
            }
            pairs.push((key.0, map.next_value_seed(self)?));
        }
        Ok(Json::Map(pairs))
    }
}

/// A key: a text, or bytes that are one.
struct Text(String);

impl<'de> serde::Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Text, E> {
        let text = std::str::from_utf8(bytes).map_err(|_| E::custom("a key is no UTF-8 text"))?;
        self.visit_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_the_order_of_its_keys_through_both_codecs() {
        let text = r#"{"z":1,"a":{"y":[null,true,-2,0.5,"x"],"b":{}},"m":"é"}"#;
        let value: Json = serde_json::from_str(text).unwrap();
        assert_eq!(value.to_string(), text);
        let packed = rmp_serde::to_vec_named(&value).unwrap();
        assert_eq!(rmp_serde::from_slice::<Json>(&packed).unwrap(), value);
    }

    #[test]
    fn more_values_than_allowed_and_a_key_that_is_there_twice_are_refused() {
        let list = |len: usize| format!("[{}]", vec!["0"; len].join(","));
        assert!(serde_json::from_str::<Json>(&list(JSON_VALUES_MAX - 1)).is_ok());
        let error = serde_json::from_str::<Json>(&list(JSON_VALUES_MAX)).unwrap_err().to_string();
        assert!(error.contains("more than 65536 values"), "{error}");
        let error = serde_json::from_str::<Json>(r#"{"a":1,"a":2}"#).unwrap_err().to_string();
        assert!(error.contains("`value.a` is there twice"), "{error}");
    }
}
