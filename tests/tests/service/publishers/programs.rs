//! Whole messages of other programs and of people, and the spellings that the other tables leave out.

use forebay_tests::job::{Job, now_ms};
use lapin::BasicProperties as Properties;
use lapin::types::{AMQPValue, FieldTable};
use rmpv::Value;

use super::habits::Ends::{Done, Refused};
use super::habits::{Habit, as_json, as_msgpack, json_with, named, of_type, plain, with};

fn odd_headers(_: &str) -> Properties {
    let mut headers = FieldTable::default();
    headers.insert("x-retries".into(), AMQPValue::LongLongInt(3));
    headers.insert("spring_json_header_types".into(), AMQPValue::Void);
    plain("").with_headers(headers).with_app_id("billing".into())
}

/// Spellings of content types and ids.
pub const SPELLINGS: &[Habit] = &[
    Habit("text/json", as_json, |_| of_type("text/json"), Done),
    Habit("json", as_json, |_| of_type("json"), Done),
    Habit("application/JSON", as_json, |_| of_type("application/JSON"), Done),
    Habit("msgpack", as_msgpack, |_| of_type("msgpack"), Done),
    Habit("messagepack", as_msgpack, |_| of_type("application/messagepack"), Done),
    Habit("a message_id in capitals", as_json, |id| named(&id.to_uppercase()), Done),
    Habit("Spring: odd headers", as_json, odd_headers, Done),
    Habit(
        "pretty JSON, unknown fields, a trailing newline",
        |id| {
            let all: serde_json::Value =
                serde_json::from_slice(&json_with(id, "colour", "\"red\"")).unwrap();
            (serde_json::to_string_pretty(&all).unwrap() + "\n").into_bytes()
        },
        plain,
        Done,
    ),
    Habit(
        "an id of 65 characters",
        |_| as_json(&"a".repeat(65)),
        named,
        Refused("`id` is longer than 64 characters"),
    ),
    Habit(
        "a body that nests too deep, before its id",
        |id| {
            let deep = [b"{\"deep\":".as_slice(), &b"[".repeat(40), &b"]".repeat(40)].concat();
            [&deep, b",".as_slice(), &as_json(id)[1..]].concat()
        },
        plain,
        Refused("nests deeper than 32 levels"),
    ),
];

/// Bodies that other programs and people write.
pub const PROGRAMS: &[Habit] = &[
    Habit(
        "kombu: a uuid.UUID as JSON",
        |id| json_with(id, "id", r#"{"__type__": "uuid", "__value__": {"hex": "00"}}"#),
        named,
        Refused("`id` must be a string, not a map"),
    ),
    Habit(
        "MassTransit's envelope",
        |_| {
            br#"{"messageId": "x", "messageType": ["urn:message:Job"], "message": {"v": 1}}"#
                .to_vec()
        },
        named,
        Refused("`v` is missing"),
    ),
    Habit(
        "the management page, an input alone",
        |_| br#"{"input":["hi"]}"#.to_vec(),
        named,
        Refused("`v` is missing"),
    ),
    Habit(
        "AMQP 1.0, a value section",
        |_| b"\x00\x53\x77\xa1\x02hi".to_vec(),
        |id| named(id).with_type("amqp-1.0".into()),
        Refused("send the job in a data section"),
    ),
    Habit("msgspec, array_like", |_| b"[1, \"j\"]".to_vec(), named, Refused("the body is a list")),
    Habit(
        "Node: a Buffer as input",
        |id| json_with(id, "input", r#"{"type": "Buffer", "data": [104, 105]}"#),
        plain,
        Refused("a string or a list of strings"),
    ),
    Habit(
        "Node: new Date()",
        |id| json_with(id, "submitted_at_ms", "\"2026-11-28T00:00:00.000Z\""),
        plain,
        Refused("not the text \"2026-11-28T00:00:00.000Z\""),
    ),
    Habit("msgpackr: Date.now()", |id| with(id, "submitted_at_ms", now_ms() as f64), plain, Done),
    Habit(
        "Rust: as_millis(), 16 bytes",
        |id| {
            let ms = 1_764_000_000_000_u128.to_be_bytes();
            with(id, "submitted_at_ms", Value::Binary(ms.into()))
        },
        plain,
        Refused("`submitted_at_ms` must be a whole number from 0 up, not 16 bytes"),
    ),
    Habit(
        "PHP: holes in JSON",
        |id| json_with(id, "input", r#"{"1": "a"}"#),
        plain,
        Refused("a string or a list of strings"),
    ),
    Habit("v true", |id| json_with(id, "v", "true"), plain, Refused("not true")),
    Habit("metadata null", |id| json_with(id, "metadata", r#"{"a": null}"#), plain, Done),
    Habit(
        "metadata with a flag",
        |id| json_with(id, "metadata", r#"{"ok": true}"#),
        plain,
        Refused("`metadata.ok` must be a string, not true"),
    ),
    Habit(
        "two jobs' ids in one body",
        |id| with(id, Value::Binary(b"id".to_vec()), Job::embed("").id()),
        named,
        Refused("`id` is there twice"),
    ),
];
