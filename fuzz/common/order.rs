//! The fields of a map in the opposite order, byte for byte.

use std::collections::BTreeSet;

use forebay_schemas::{ContentType, codec::decode};
use serde::de::IgnoredAny;

/// As deep as a refused body is looked into.
const DEPTH_MAX: usize = 127;

/// The body with its fields in the opposite order; `None` unless it is a whole map in which no key comes twice.
pub fn reversed(body: &[u8]) -> Option<Vec<u8>> {
    let content_type = ContentType::guess(body);
    decode::<IgnoredAny>(body, content_type, DEPTH_MAX).ok()?;
    match content_type {
        ContentType::Json => reversed_json(body),
        ContentType::Msgpack => reversed_msgpack(body),
    }
}

fn reversed_json(body: &[u8]) -> Option<Vec<u8>> {
    let inner = body.trim_ascii().strip_prefix(b"{")?.strip_suffix(b"}")?;
    let [mut depth, mut start] = [0, 0];
    let [mut in_string, mut escaped] = [false; 2];
    let mut fields = Vec::new();
    for (at, byte) in inner.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => {
                fields.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    fields.push(&inner[start..]);
    let mut keys = BTreeSet::new();
    for field in &fields {
        let key = serde_json::Deserializer::from_slice(field).into_iter::<String>().next()?.ok()?;
        keys.insert(key).then_some(())?;
    }
    fields.reverse();
    Some([b"{", &fields.join(&b","[..])[..], b"}"].concat())
}

fn reversed_msgpack(body: &[u8]) -> Option<Vec<u8>> {
    let [marker, rest @ ..] = body else { return None };
    let head = match marker {
        0x80..=0x8f => 1,
        0xde => 3,
        0xdf => 5,
        _ => return None,
    };
    let count = if head == 1 { usize::from(marker & 0x0f) } else { number(&rest[..head - 1]) };
    let mut at = head;
    let mut fields = Vec::new();
    let mut keys = BTreeSet::new();
    for _ in 0..count {
        let start = at;
        let key = value(body, at)?;
        // A text and the bytes of one are one key; a number has no content.
        let content = if key.payload < key.end { key.payload } else { start };
        keys.insert(&body[content..key.end]).then_some(())?;
        at = value(body, key.end)?.end;
        fields.push(&body[start..at]);
    }
    fields.reverse();
    Some([&body[..head], &fields.concat()].concat())
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Where the content of a value begins, and where the value ends.
struct Span {
    payload: usize,
    end: usize,
}

/// The value at `start`, with all that is in it.
fn value(body: &[u8], start: usize) -> Option<Span> {
    let mut first = None;
    let mut open = 1_usize;
    let mut at = start;
    while open > 0 {
        let marker = *body.get(at)?;
        let sized = |bytes: usize| Some(number(body.get(at + 1..at + 1 + bytes)?));
        // The bytes of length or type behind the marker, those of content, and the values within.
        let (lead, content, within) = match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (0, 0, 0),
            0x80..=0x8f => (0, 0, 2 * usize::from(marker & 0x0f)),
            0x90..=0x9f => (0, 0, usize::from(marker & 0x0f)),
            0xa0..=0xbf => (0, usize::from(marker & 0x1f), 0),
            0xc4 | 0xd9 => (1, sized(1)?, 0),
            0xc5 | 0xda => (2, sized(2)?, 0),
            0xc6 | 0xdb => (4, sized(4)?, 0),
            0xc7 => (2, sized(1)?, 0),
            0xc8 => (3, sized(2)?, 0),
            0xc9 => (5, sized(4)?, 0),
            0xcc | 0xd0 => (0, 1, 0),
            0xcd | 0xd1 => (0, 2, 0),
            0xca | 0xce | 0xd2 => (0, 4, 0),
            0xcb | 0xcf | 0xd3 => (0, 8, 0),
            0xd4..=0xd8 => (1, 1 << (marker - 0xd4), 0),
            0xdc => (2, 0, sized(2)?),
            0xdd => (4, 0, sized(4)?),
            0xde => (2, 0, 2 * sized(2)?),
            0xdf => (4, 0, 2 * sized(4)?),
            0xc1 => return None,
        };
        at += 1 + lead;
        first.get_or_insert(at);
        at += content;
        open = open - 1 + within;
    }
    (at <= body.len()).then_some(Span { payload: first?, end: at })
}
