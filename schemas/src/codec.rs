//! The two codecs: msgpack, compact and exact, and JSON, readable everywhere.

use std::fmt;

use serde::{
    Deserialize, Serialize,
    de::{DeserializeSeed, Deserializer as _, Visitor},
};

/// How a body is written; travels in the AMQP property `content_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ContentType {
    /// `application/msgpack`
    #[default]
    Msgpack,
    /// `application/json`
    Json,
}

impl ContentType {
    /// The MIME type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Msgpack => "application/msgpack",
            Self::Json => "application/json",
        }
    }

    /// Reads a MIME type that names one of the two, however it is spelled: with or without `application/`, `x-` or
    /// `vnd.`, as a suffix (`+json`), with parameters such as `; charset=utf-8`. Every other type says nothing.
    pub fn parse(mime: &str) -> Option<Self> {
        let essence = mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let subtype = essence.rsplit('/').next().unwrap_or_default();
        let name = subtype.rsplit('+').next().unwrap_or_default();
        let name = name.strip_prefix("x-").or(name.strip_prefix("vnd.")).unwrap_or(name);
        match name {
            "msgpack" | "messagepack" => Some(Self::Msgpack),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Distinguishes JSON from msgpack by the first byte: a JSON text begins with ASCII, and no msgpack map does.
    pub fn guess(body: &[u8]) -> Self {
        match body.first() {
            Some(byte) if byte.is_ascii() => Self::Json,
            _ => Self::Msgpack,
        }
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Bytes that are no message, or a message that can't become bytes.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not what they should be.
    #[error("can't read the {0} body: {1}")]
    Decode(ContentType, String),
    /// There are bytes after the end of the message.
    #[error("the {0} body goes on after its end: send one map and nothing else")]
    Trailing(ContentType),
    /// Maps and lists nest too deep.
    #[error("the body nests deeper than {0} levels: flatten it")]
    Depth(usize),
    /// The value can't be written.
    #[error("can't be written as {0}: {1}")]
    Encode(ContentType, String),
}

/// Writes `value`.
pub fn encode<T: Serialize>(value: &T, content_type: ContentType) -> Result<Vec<u8>, CodecError> {
    match content_type {
        ContentType::Msgpack => rmp_serde::to_vec_named(value).map_err(|e| e.to_string()),
        ContentType::Json => serde_json::to_vec(value).map_err(|e| e.to_string()),
    }
    .map_err(|e| CodecError::Encode(content_type, e))
}

/// Reads one value and nothing after it, at most `depth_max` deep.
pub fn decode<'de, T: Deserialize<'de>>(
    body: &'de [u8],
    content_type: ContentType,
    depth_max: usize,
) -> Result<T, CodecError> {
    decode_seed(std::marker::PhantomData, body, content_type, depth_max)
}

/// [`decode`] with a seed.
pub(crate) fn decode_seed<'de, S: DeserializeSeed<'de>>(
    seed: S,
    body: &'de [u8],
    content_type: ContentType,
    depth_max: usize,
) -> Result<S::Value, CodecError> {
    match content_type {
        ContentType::Msgpack => decode_msgpack(seed, body, depth_max),
        ContentType::Json => decode_json(seed, body, depth_max),
    }
}

fn decode_msgpack<'de, S: DeserializeSeed<'de>>(
    seed: S,
    body: &'de [u8],
    depth_max: usize,
) -> Result<S::Value, CodecError> {
    use rmp_serde::decode::Error;

    let mut decoder = rmp_serde::Deserializer::from_read_ref(body);
    // The decoder refuses at the limit itself; "so many levels" includes the last one.
    decoder.set_max_depth(depth_max + 1);
    let value = seed.deserialize(&mut decoder).map_err(|error| match error {
        Error::DepthLimitExceeded => CodecError::Depth(depth_max),
        other => CodecError::Decode(ContentType::Msgpack, other.to_string()),
    })?;
    // The decoder doesn't say how far it read; at the end there is no next marker. No more than that is read: a value
    // that begins here and breaks off would look like the end.
    match decoder.deserialize_any(Nothing) {
        Err(Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err(CodecError::Trailing(ContentType::Msgpack)),
    }
}

/// Takes no value of any type.
struct Nothing;

impl Visitor<'_> for Nothing {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing more")
    }
}

fn decode_json<'de, S: DeserializeSeed<'de>>(
    seed: S,
    body: &'de [u8],
    depth_max: usize,
) -> Result<S::Value, CodecError> {
    if json_depth(body) > depth_max {
        return Err(CodecError::Depth(depth_max));
    }
    let mut decoder = serde_json::Deserializer::from_slice(body);
    let value = seed
        .deserialize(&mut decoder)
        .map_err(|e| CodecError::Decode(ContentType::Json, e.to_string()))?;
    decoder.end().map_err(|_| CodecError::Trailing(ContentType::Json))?;
    Ok(value)
}

/// The deepest nesting of brackets outside strings, found without recursion.
fn json_depth(body: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut deepest = 0;
    let mut in_string = false;
    let mut escaped = false;
    for &byte in body {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    #[test]
    fn mime_types_are_read_with_and_without_parameters() {
        assert_eq!(ContentType::parse("application/msgpack"), Some(ContentType::Msgpack));
        assert_eq!(ContentType::parse("Application/JSON; charset=utf-8"), Some(ContentType::Json));
        for msgpack in [
            "application/x-msgpack",
            "application/vnd.msgpack",
            "application/messagepack",
            "msgpack",
        ] {
            assert_eq!(ContentType::parse(msgpack), Some(ContentType::Msgpack), "{msgpack}");
        }
        for json in ["text/json", "json", "application/vnd.api+json"] {
            assert_eq!(ContentType::parse(json), Some(ContentType::Json), "{json}");
        }
        for silent in ["", "text/plain", "application/octet-stream", "application/data", "jsonp"] {
            assert_eq!(ContentType::parse(silent), None, "{silent}");
        }
    }

    #[test]
    fn brackets_in_strings_do_not_count_as_depth() {
        assert_eq!(json_depth(br#"{"a":"[[[\"[[["}"#), 1);
        assert_eq!(json_depth(b"[[],[[]]]"), 3);
        assert_eq!(json_depth(b"]]]["), 1);
    }

    #[test]
    fn depth_is_allowed_up_to_the_limit_and_refused_beyond_in_both_codecs() {
        let nested = |levels: usize| {
            let json = [b"[".repeat(levels), b"]".repeat(levels)].concat();
            let msgpack = [b"\x91".repeat(levels - 1), b"\x90".to_vec()].concat();
            [(json, ContentType::Json), (msgpack, ContentType::Msgpack)]
        };
        for (body, content_type) in nested(32) {
            decode::<IgnoredAny>(&body, content_type, 32).unwrap();
        }
        for (body, content_type) in nested(33).into_iter().chain(nested(100_000)) {
            let error = decode::<IgnoredAny>(&body, content_type, 32).unwrap_err();
            assert!(matches!(error, CodecError::Depth(32)), "{content_type}: {error}");
        }
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        let msgpack: [&[u8]; 6] =
            [b"\x80\x00", b"\x80\x91", b"\x80\x92\x01", b"\x80\x81", b"\x80\xdc", b"\x80\xc1"];
        let msgpack = msgpack.map(|body| (body, ContentType::Msgpack));
        for (body, content_type) in [(&b"{} x"[..], ContentType::Json)].into_iter().chain(msgpack) {
            let error = decode::<IgnoredAny>(body, content_type, 32).unwrap_err();
            assert!(matches!(error, CodecError::Trailing(_)), "{content_type}: {error}");
        }
    }
}
