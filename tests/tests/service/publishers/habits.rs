//! The habits, as these libraries were seen to write: a body, its properties, and what becomes of it.

use forebay_tests::MODEL;
use forebay_tests::job::{Job, now_ms};
use lapin::BasicProperties as Properties;
use lapin::types::{AMQPValue, FieldTable};
use rmpv::Value;
use serde_json::json;

/// How a message ends.
pub enum Ends {
    /// Its job is done.
    Done,
    /// It is refused at the job's id, in these words.
    Refused(&'static str),
}
use Ends::{Done, Refused};

/// One habit: what it is, the body for a job id, the properties for it, and the ending.
pub struct Habit(pub &'static str, pub fn(&str) -> Vec<u8>, pub fn(&str) -> Properties, pub Ends);

pub fn plain(_: &str) -> Properties {
    Properties::default()
}

/// The id as `message_id`, and no more.
pub fn named(id: &str) -> Properties {
    plain("").with_message_id(id.into())
}

pub fn of_type(mime: &str) -> Properties {
    Properties::default().with_content_type(mime.into())
}

fn fields(id: &str) -> serde_json::Value {
    json!({"v": 1, "id": id, "model": MODEL, "task": "embed", "input": "a text"})
}

pub fn as_json(id: &str) -> Vec<u8> {
    serde_json::to_vec(&fields(id)).unwrap()
}

/// The job in JSON with one field set to what this text says.
pub fn json_with(id: &str, field: &str, value: &str) -> Vec<u8> {
    let mut all = fields(id);
    all[field] = serde_json::from_str(value).unwrap();
    serde_json::to_vec(&all).unwrap()
}

fn pairs(id: &str) -> Vec<(Value, Value)> {
    [
        ("v", 1.into()),
        ("id", id.into()),
        ("model", MODEL.into()),
        ("task", "embed".into()),
        ("input", "a text".into()),
    ]
    .map(|(name, value): (&str, Value)| (name.into(), value))
    .into()
}

fn pack(value: &Value) -> Vec<u8> {
    let mut body = Vec::new();
    rmpv::encode::write_value(&mut body, value).unwrap();
    body
}

pub fn as_msgpack(id: &str) -> Vec<u8> {
    pack(&Value::Map(pairs(id)))
}

/// The job in msgpack with one pair before the others, which replaces that of the same key.
pub fn with(id: &str, key: impl Into<Value>, value: impl Into<Value>) -> Vec<u8> {
    let key = key.into();
    let value = value.into();
    let rest = pairs(id).into_iter().filter(|(name, _)| *name != key);
    let all = [(key.clone(), value)].into_iter().chain(rest);
    pack(&Value::Map(all.collect()))
}

fn bytes(text: &str) -> Value {
    Value::Binary(text.as_bytes().to_vec())
}

fn timestamp() -> Value {
    Value::Ext(-1, vec![0x67, 0, 0, 0])
}

/// Properties: what a library sets by itself, or leaves out.
pub const PROPERTIES: &[Habit] = &[
    Habit("pika, no properties", as_json, plain, Done),
    Habit("an empty content type", as_msgpack, |_| of_type(""), Done),
    Habit(
        "Ruby's bunny, Java's PERSISTENT_BASIC",
        as_msgpack,
        |_| of_type("application/octet-stream"),
        Done,
    ),
    Habit(
        "PHP's pecl amqp, Java's PERSISTENT_TEXT_PLAIN",
        as_json,
        |_| of_type("text/plain"),
        Done,
    ),
    Habit("kombu, packed bytes", as_msgpack, |_| of_type("application/data"), Done),
    Habit("x-msgpack", as_msgpack, |_| of_type("application/x-msgpack"), Done),
    Habit("vnd.msgpack", as_msgpack, |_| of_type("application/vnd.msgpack"), Done),
    Habit(
        "JSON in another spelling",
        as_json,
        |_| of_type("application/vnd.api+json; charset=utf-8"),
        Done,
    ),
    Habit(
        "aio-pika, FastStream: a random message_id",
        as_json,
        |_| of_type("application/json").with_message_id(Job::embed("").id().into()),
        Done,
    ),
    Habit("an empty message_id", as_json, |_| plain("").with_message_id("".into()), Done),
    Habit(
        "AMQP 1.0: type `binary`, urn:uuid",
        as_json,
        |id| plain("").with_type("binary".into()).with_message_id(format!("urn:uuid:{id}").into()),
        Done,
    ),
    Habit(
        "EasyNetQ: a class as type",
        as_json,
        |_| plain("").with_type("Jobs.EmbedJob, Jobs".into()),
        Done,
    ),
    Habit("an empty type", as_json, |_| plain("").with_type("".into()), Done),
    Habit(
        "a type of ours that is not read",
        as_json,
        |_| plain("").with_type("forebay.token.v1".into()),
        Refused("send forebay.job.v1, or no type"),
    ),
    Habit(
        "a content encoding that says nothing",
        as_json,
        |_| plain("").with_content_encoding("utf-8".into()),
        Done,
    ),
    Habit(
        "pika, gzip",
        |_| vec![0x1f, 0x8b, 8, 0, 1, 2],
        |id| {
            of_type("application/json")
                .with_content_encoding("gzip".into())
                .with_message_id(id.into())
        },
        Refused("content encoding `gzip` is not read here"),
    ),
    Habit(
        "kombu, compression",
        |_| vec![0x78, 0x9c, 1, 2, 3],
        |id| {
            let mut headers = FieldTable::default();
            headers
                .insert("compression".into(), AMQPValue::LongString("application/x-gzip".into()));
            of_type("application/json").with_headers(headers).with_message_id(id.into())
        },
        Refused("compression `application/x-gzip` is not read"),
    ),
    Habit("Perl's AnyEvent::RabbitMQ: a priority", as_json, |_| plain("").with_priority(1), Done),
];

/// Bodies of another kind than they are said to be, or of none.
pub const BODIES: &[Habit] = &[
    Habit(
        "JSON called msgpack",
        as_json,
        |_| of_type("application/msgpack"),
        Refused("looks like JSON"),
    ),
    Habit(
        "msgpack called JSON",
        as_msgpack,
        |_| of_type("application/json"),
        Refused("looks like msgpack"),
    ),
    Habit("an empty body", |_| Vec::new(), named, Refused("the body is empty")),
    Habit(
        "the management page, `hello`",
        |_| b"hello".to_vec(),
        named,
        Refused("neither a JSON nor a msgpack map"),
    ),
    Habit("rmp_serde::to_vec", |_| b"\x93\x01\xa1j\xa1m".to_vec(), named, Refused("to_vec_named")),
    Habit(
        "Celery's send_task",
        |_| {
            br#"[[1], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#
                .to_vec()
        },
        |id| of_type("application/json").with_message_id(id.into()),
        Refused("a Celery task"),
    ),
    Habit(
        "Go without tags",
        |id| {
            let upper = |name: &str| {
                if name == "id" { "ID".into() } else { name[..1].to_uppercase() + &name[1..] }
            };
            let all = pairs(id)
                .into_iter()
                .map(|(name, value)| (upper(name.as_str().unwrap()).into(), value));
            pack(&Value::Map(all.collect()))
        },
        named,
        Refused("there is a `V`"),
    ),
    Habit(
        "the id as message_id alone",
        |_| br#"{"v":1}"#.to_vec(),
        named,
        Refused("`id` is missing"),
    ),
];

/// Values as the encoders of these languages write them.
pub const VALUES: &[Habit] = &[
    Habit(
        "PHP, JavaScript: whole floats",
        |id| with(id, "expires_in_ms", 60_000.0_f64),
        plain,
        Done,
    ),
    Habit("JSON: v 1.0", |id| json_with(id, "v", "1.0"), plain, Done),
    Habit(
        "a form: v \"1\"",
        |id| json_with(id, "v", "\"1\""),
        plain,
        Refused("not the text \"1\""),
    ),
    Habit(
        "Perl: a number that was printed",
        |id| json_with(id, "result_ttl_s", "\"3600\""),
        plain,
        Refused("not the text \"3600\""),
    ),
    Habit(
        "Perl: 1==1",
        |id| json_with(id, "params", r#"{"normalize": 1}"#),
        plain,
        Refused("`normalize` must be true or false, not the number 1"),
    ),
    Habit(
        "time.time() * 1000",
        |id| with(id, "submitted_at_ms", now_ms() as f64 + 0.5),
        plain,
        Refused("`submitted_at_ms` must be a whole number"),
    ),
    Habit(
        "seconds",
        |id| with(id, "submitted_at_ms", now_ms() / 1_000),
        plain,
        Refused("looks like seconds"),
    ),
    Habit(
        "nanoseconds",
        |id| with(id, "submitted_at_ms", now_ms() * 1_000_000),
        plain,
        Refused("nanoseconds"),
    ),
    Habit(
        "a day ahead",
        |id| with(id, "submitted_at_ms", now_ms() + 90_000_000),
        plain,
        Refused("ahead of this worker's clock"),
    ),
    Habit("Go: zero times", |id| json_with(id, "submitted_at_ms", "0"), plain, Done),
    Habit("Go: a deadline of zero", |id| json_with(id, "expires_in_ms", "0"), plain, Done),
    Habit(
        "Go: result_ttl_s 0",
        |id| json_with(id, "result_ttl_s", "0"),
        plain,
        Refused("`result_ttl_s` is 0"),
    ),
    Habit("PHP: params []", |id| json_with(id, "params", "[]"), plain, Done),
    Habit(
        "PHP: metadata [] in msgpack",
        |id| with(id, "metadata", Value::Array(vec![])),
        plain,
        Done,
    ),
    Habit(
        "metadata with a number",
        |id| json_with(id, "metadata", r#"{"user_id": 42}"#),
        plain,
        Refused("`metadata.user_id` must be a string, not the number 42"),
    ),
    Habit(
        "the same in msgpack, before the id",
        |id| with(id, "metadata", Value::Map(vec![("user_id".into(), 42.into())])),
        plain,
        Refused("`metadata.user_id`"),
    ),
    Habit(
        "Perl: texts as bytes",
        |id| {
            let all = pairs(id).into_iter().map(|(name, value)| match value.as_str() {
                Some(text) => (bytes(name.as_str().unwrap()), bytes(text)),
                None => (name, value),
            });
            pack(&Value::Map(all.collect()))
        },
        plain,
        Done,
    ),
    Habit(
        "bytes that are no text",
        |id| with(id, "input", Value::Binary(vec![0xff])),
        plain,
        Refused("1 bytes that are not UTF-8 text"),
    ),
    Habit(
        "Go: the id as 16 bytes",
        |id| {
            let id: uuid::Uuid = id.parse().unwrap();
            with("", "id", Value::Binary(id.as_bytes().to_vec()))
        },
        plain,
        Refused("if they are a UUID, send its text"),
    ),
    Habit("an unknown number as key", |id| with(id, 1, "remark"), plain, Done),
    Habit("PHP: nil as key", |id| with(id, Value::Nil, "x"), plain, Done),
    Habit(
        "PHP: a list with holes",
        |id| with(id, "input", Value::Map(vec![(1.into(), "a".into())])),
        plain,
        Refused("a string or a list of strings"),
    ),
    Habit("msgpackr: undefined", |id| with(id, "params", Value::Ext(0, vec![0])), plain, Done),
    Habit(
        "a timestamp",
        |id| with(id, "submitted_at_ms", timestamp()),
        plain,
        Refused("`submitted_at_ms` must be a whole number from 0 up, not a msgpack timestamp"),
    ),
    Habit(
        "a timestamp in a field of the publisher's own",
        |id| with(id, "created", timestamp()),
        plain,
        Done,
    ),
    Habit("JavaScript: NaN and undefined", |id| json_with(id, "result_ttl_s", "null"), plain, Done),
];
