//! The fields of a JSON body. Each mistake is an error that names the field, what came and what was expected.
//!
//! A body is scanned once; of its top level only the fields that an endpoint reads are kept, as slices of the body.
//! Everything else is skipped without recursion and without a copy, however deep it nests.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::ApiError;

/// The fields of one body that an endpoint reads. Those that are null count as absent.
#[derive(Debug)]
pub struct Fields<'a> {
    found: Vec<(&'static str, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// Scans a body for the fields in `names`; all others are ignored.
    pub fn scan(body: &'a [u8], names: &[&'static str]) -> Result<Self, ApiError> {
        let whole = |message: String| {
            let mut error = ApiError::invalid("body", message);
            error.param = None;
            error
        };
        if body.trim_ascii().is_empty() {
            return Err(whole("the body is empty: send a JSON object".to_owned()));
        }
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(whole("the body is not a JSON object: send one".to_owned()));
        }
        let mut decoder = serde_json::Deserializer::from_slice(body);
        let scanned = decoder.deserialize_map(Scan { names });
        let found = scanned.and_then(|found| decoder.end().map(|()| found));
        let found = found.map_err(|error| whole(format!("the body can't be read: {error}")))?;
        Ok(Self { found })
    }

    /// Whether the field is there, be it null.
    pub fn has(&self, name: &str) -> bool {
        self.found.iter().any(|(found, _)| *found == name)
    }

    /// The field as it was written, unless it is null.
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.found.iter().find(|(found, _)| *found == name);
        found.map(|(_, raw)| *raw).filter(|raw| raw.get() != "null")
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        self.raw(name).map(|raw| text(name, raw)).transpose()
    }

    /// A text that has to be there.
    pub fn required_text(&self, name: &str) -> Result<String, ApiError> {
        self.text(name)?
            .ok_or_else(|| ApiError::invalid(name, format!("`{name}` is missing: send a string")))
    }

    /// One of `true` and `false`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let read = |raw: &RawValue| match raw.get() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(unexpected(name, raw, "true or false")),
        };
        self.raw(name).map(read).transpose()
    }

    /// A whole number of at least 1. Whole floats are whole numbers.
    pub fn count(&self, name: &str) -> Result<Option<u32>, ApiError> {
        let expected = "a whole number of at least 1";
        let read = |raw: &RawValue| {
            if kind(raw) != Kind::Number {
                return Err(unexpected(name, raw, expected));
            }
            let number: f64 = serde_json::from_str(raw.get()).unwrap_or(f64::NAN);
            let is_count = (1.0..=f64::from(u32::MAX)).contains(&number) && number.fract() == 0.0;
            if !is_count {
                let came: String = raw.get().chars().take(40).collect();
                let message = format!("`{name}` is {came}: send {expected}");
                return Err(ApiError::invalid(name, message));
            }
            Ok(number as u32)
        };
        self.raw(name).map(read).transpose()
    }
}

/// The kind of a JSON value, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Flag,
    /// A list.
    List,
    /// An object.
    Object,
    /// `null`.
    Null,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Flag => "true or false",
            Self::List => "a list",
            Self::Object => "an object",
            Self::Null => "null",
        })
    }
}

/// The kind of a value.
pub fn kind(raw: &RawValue) -> Kind {
    match raw.get().as_bytes().first() {
        Some(b'"') => Kind::Text,
        Some(b'[') => Kind::List,
        Some(b'{') => Kind::Object,
        Some(b't' | b'f') => Kind::Flag,
        Some(b'n') => Kind::Null,
        _ => Kind::Number,
    }
}

/// The error of a value of another kind than was expected.
pub fn unexpected(name: &str, raw: &RawValue, expected: &str) -> ApiError {
    let message = format!("`{name}` is {}: expected {expected}", kind(raw));
    ApiError::invalid(top(name), message)
}

/// The value of a string; `name` may be that of an element, such as `input[3]`.
pub fn text(name: &str, raw: &RawValue) -> Result<String, ApiError> {
    if kind(raw) != Kind::Text {
        return Err(unexpected(name, raw, "a string"));
    }
    serde_json::from_str(raw.get()).map_err(|error| {
        // Half of a surrogate pair: the one thing that a JSON string can hold and a text can't.
        let message = format!("`{name}` is no text ({error}): send characters that UTF-8 has");
        ApiError::invalid(top(name), message)
    })
}

/// A list of strings, with at most `count_max` of them and at least one.
pub fn texts(name: &str, raw: &RawValue, count_max: usize) -> Result<Vec<String>, ApiError> {
    let mut texts = Vec::new();
    each(name, raw, count_max, |index, element| {
        texts.push(text(&format!("{name}[{index}]"), element)?);
        Ok(())
    })?;
    Ok(texts)
}

/// Hands each element of a list to `take`; there must be at least one and at most `count_max`.
pub fn each<'a>(
    name: &str,
    raw: &'a RawValue,
    count_max: usize,
    mut take: impl FnMut(usize, &'a RawValue) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    if kind(raw) != Kind::List {
        return Err(unexpected(name, raw, "a list"));
    }
    let mut outcome = Ok(());
    let mut count = 0;
    let mut element = |element: &'a RawValue| {
        if count == count_max {
            let message = format!(
                "`{name}` has more than {count_max} elements, which is the limit of one request: send several"
            );
            outcome = Err(ApiError::invalid(name, message));
        } else {
            outcome = take(count, element);
            count += 1;
        }
        outcome.is_ok()
    };
    let mut decoder = serde_json::Deserializer::from_str(raw.get());
    let walked = decoder.deserialize_seq(Walk(&mut element));
    outcome?;
    // The list was scanned as JSON before; an error here would be one that the scan overlooked.
    walked.map_err(|error| ApiError::invalid(name, format!("`{name}` can't be read: {error}")))?;
    if count == 0 {
        return Err(ApiError::invalid(name, format!("`{name}` is empty: send at least one")));
    }
    Ok(())
}

/// The field of the top level that `name` lies in.
pub fn top(name: &str) -> &str {
    name.split(['[', '.']).next().unwrap_or(name)
}

struct Scan<'n> {
    names: &'n [&'static str],
}

impl<'de> Visitor<'de> for Scan<'_> {
    type Value = Vec<(&'static str, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found: Self::Value = Vec::new();
        while let Some(name) = map.next_key_seed(Name(self.names))? {
            let value: &RawValue = map.next_value()?;
            let Some(name) = name else { continue };
            if found.iter().any(|(before, _)| *before == name) {
                return Err(A::Error::custom(format_args!(
                    "`{name}` is there twice: send it once"
                )));
            }
            found.push((name, value));
        }
        Ok(found)
    }
}

/// Reads a key as the name that it is, or as none.
struct Name<'n>(&'n [&'static str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<&'static str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().copied().find(|name| *name == key))
    }
}

/// Hands each element to a function until it has had enough.
struct Walk<'f, F>(&'f mut F);

impl<'de, F: FnMut(&'de RawValue) -> bool> Visitor<'de> for Walk<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element()? {
            if !(self.0)(element) {
                return Err(A::Error::custom("enough"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(body: &str) -> Result<Fields<'_>, ApiError> {
        Fields::scan(body.as_bytes(), &["a", "b"])
    }

    fn message<T: fmt::Debug>(result: Result<T, ApiError>) -> String {
        result.unwrap_err().message
    }

    #[test]
    fn null_is_absent_and_what_is_not_read_is_ignored() {
        let fields = scan(r#"{"other": {"deep": [[[1]]]}, "b": null, "\u0061": "x"}"#).unwrap();
        assert_eq!(fields.text("a").unwrap().as_deref(), Some("x"));
        assert_eq!(fields.text("b").unwrap(), None);
        assert!(fields.has("b") && !fields.has("other"));
    }

    #[test]
    fn what_is_not_read_may_nest_however_deep() {
        let deep = 200_000;
        let body = format!(r#"{{"x": {}1{}, "a": true}}"#, "[".repeat(deep), "]".repeat(deep));
        assert_eq!(scan(&body).unwrap().flag("a").unwrap(), Some(true));
    }

    #[test]
    fn a_body_that_is_no_object_is_described() {
        assert!(message(scan("  ")).contains("empty"));
        assert!(message(scan("[1]")).contains("not a JSON object"));
        assert!(message(scan(r#"{"a": 1"#)).contains("can't be read"));
        assert!(message(scan(r#"{"a": 1} x"#)).contains("can't be read"));
        assert!(message(scan(r#"{"a": 1, "a": 2}"#)).contains("`a` is there twice"));
        assert!(Fields::scan(b"{\"a\": \"\xff\"}", &["a"]).is_err());
        assert_eq!(scan("[1]").unwrap_err().param, None);
    }

    #[test]
    fn a_value_of_another_kind_is_named_with_what_came_and_what_was_expected() {
        let fields = scan(r#"{"a": 5, "b": "x"}"#).unwrap();
        assert_eq!(message(fields.text("a")), "`a` is a number: expected a string");
        assert_eq!(message(fields.flag("b")), "`b` is a string: expected true or false");
        let expected = "`b` is a string: expected a whole number of at least 1";
        assert_eq!(message(fields.count("b")), expected);
        assert_eq!(message(fields.required_text("c")), "`c` is missing: send a string");
        let surrogate = scan(r#"{"a": "\ud800"}"#).unwrap();
        assert!(message(surrogate.text("a")).contains("is no text"));
    }

    #[test]
    fn counts_are_whole_and_at_least_one() {
        for (written, count) in [("1", 1), ("7.0", 7), ("1e3", 1_000), ("4294967295", u32::MAX)] {
            let body = format!(r#"{{"a": {written}}}"#);
            assert_eq!(scan(&body).unwrap().count("a").unwrap(), Some(count), "{written}");
        }
        for wrong in ["0", "-1", "1.5", "4294967296", "1e999", "0.0"] {
            let body = format!(r#"{{"a": {wrong}}}"#);
            assert!(message(scan(&body).unwrap().count("a")).contains("at least 1"), "{wrong}");
        }
    }

    #[test]
    fn lists_are_bounded_before_they_are_kept() {
        let fields = scan(r#"{"a": ["x", "", "y"], "b": []}"#).unwrap();
        let list = fields.raw("a").unwrap();
        assert_eq!(texts("a", list, 3).unwrap(), ["x", "", "y"]);
        assert!(message(texts("a", list, 2)).contains("more than 2 elements"));
        assert!(message(texts("b", fields.raw("b").unwrap(), 2)).contains("is empty"));
        let mixed = scan(r#"{"a": ["x", 7]}"#).unwrap();
        let error = texts("a", mixed.raw("a").unwrap(), 9).unwrap_err();
        assert_eq!(error.message, "`a[1]` is a number: expected a string");
        assert_eq!(error.param.as_deref(), Some("a"));
    }
}
