//! Jobs as any program could write them, in both codecs.

use std::time::{SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::MODEL;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// `application/msgpack`
    Msgpack,
    /// `application/json`
    Json,
}

impl Codec {
    /// Both, for tests that hold in either.
    pub const BOTH: [Self; 2] = [Self::Msgpack, Self::Json];

    /// The AMQP `content_type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Msgpack => "application/msgpack",
            Self::Json => "application/json",
        }
    }

    /// The bytes of any value.
    pub fn encode(self, value: &Value) -> Vec<u8> {
        match self {
            Self::Json => serde_json::to_vec(value).unwrap(),
            Self::Msgpack => {
                let mut bytes = Vec::new();
                rmpv::encode::write_value(&mut bytes, &to_msgpack(value)).unwrap();
                bytes
            }
        }
    }
}

/// A job's fields; any of them may be set to something wrong.
#[derive(Debug, Clone)]
pub struct Job(Value);

impl Job {
    /// A good `embed` job of the tests' model with an id of its own.
    pub fn embed(input: impl Into<Value>) -> Self {
        Self(json!({
            "v": 1,
            "id": Uuid::now_v7().to_string(),
            "model": MODEL,
            "task": "embed",
            "input": input.into(),
            "submitted_at_ms": now_ms(),
        }))
    }

    /// Sets one field.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0[field] = value.into();
        self
    }

    /// Addresses it to another model.
    #[must_use]
    pub fn of(self, model: &str) -> Self {
        self.with("model", model)
    }

    /// Adds a fault that its worker, in a build for tests, has when it computes the job.
    #[must_use]
    pub fn faulty(self, fault: &str) -> Self {
        self.with("metadata", json!({ "fault": fault }))
    }

    /// The job id.
    pub fn id(&self) -> &str {
        self.0["id"].as_str().expect("a job with an id")
    }

    /// All fields.
    pub fn fields(&self) -> &Value {
        &self.0
    }

    /// The message body.
    pub fn body(&self, codec: Codec) -> Vec<u8> {
        codec.encode(&self.0)
    }
}

/// The message properties of a job.
pub fn properties(id: &str, codec: Codec) -> BasicProperties {
    BasicProperties::default()
        .with_content_type(codec.content_type().into())
        .with_message_id(id.into())
        .with_delivery_mode(2)
        .with_type("forebay.job.v1".into())
}

/// `count` jobs of one passage each, no two alike: about 20 tokens, so that a thousand of them keep a worker
/// busy for seconds.
pub fn passages(count: usize) -> Vec<Job> {
    let passage =
        |n| format!("Passage {n}: a forebay holds the water and smooths the surges of the river.");
    (0..count).map(|n| Job::embed(passage(n))).collect()
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since.as_millis()).expect("a clock before the year 500,000,000")
}

fn to_msgpack(value: &Value) -> rmpv::Value {
    match value {
        Value::Null => rmpv::Value::Nil,
        Value::Bool(yes) => (*yes).into(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(n), _) => n.into(),
            (_, Some(n)) => n.into(),
            _ => number.as_f64().unwrap().into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => rmpv::Value::Array(items.iter().map(to_msgpack).collect()),
        Value::Object(fields) => {
            let pairs =
                fields.iter().map(|(name, value)| (name.as_str().into(), to_msgpack(value)));
            rmpv::Value::Map(pairs.collect())
        }
    }
}
