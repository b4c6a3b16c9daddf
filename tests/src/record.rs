//! Results as any program could read them, in both codecs.

use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::Value;

use crate::job::Codec;
use crate::patience::{SOON, until};

/// A terminal record.
#[derive(Debug, Clone)]
pub struct Record {
    /// The fields in one form for both codecs; bytes appear as their length.
    pub fields: Value,
    /// One row for each embedding, when there are any.
    pub vectors: Vec<Vec<f32>>,
    /// The codec of the bytes.
    pub codec: Codec,
    /// The record itself.
    pub raw: Vec<u8>,
}

impl Record {
    /// Reads a record; a JSON one is known by its brace, which begins no msgpack map.
    pub fn decode(raw: &[u8]) -> Self {
        if raw.first() == Some(&b'{') {
            let fields: Value = serde_json::from_slice(raw).expect("a JSON record");
            let vectors = json_vectors(&fields);
            return Self { fields, vectors, codec: Codec::Json, raw: raw.into() };
        }
        let mut rest = raw;
        let value = rmpv::decode::read_value(&mut rest).expect("a msgpack record");
        assert!(rest.is_empty(), "{} bytes after the record", rest.len());
        let fields = to_json(&value);
        let vectors = packed_vectors(&value);
        Self { fields, vectors, codec: Codec::Msgpack, raw: raw.into() }
    }

    /// `succeeded`, `failed`, `expired` or `cancelled`.
    pub fn state(&self) -> &str {
        self.fields["state"].as_str().unwrap_or_default()
    }

    /// The error's code; empty when there is no error.
    pub fn error_code(&self) -> &str {
        self.fields["error"]["code"].as_str().unwrap_or_default()
    }

    /// The error's message; empty when there is no error.
    pub fn error_message(&self) -> &str {
        self.fields["error"]["message"].as_str().unwrap_or_default()
    }

    /// A count from `timing` or `usage`, by its path.
    pub fn count(&self, path: &str) -> u64 {
        let value = self.fields.pointer(path);
        value
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("no count {path} in {}", self.fields))
    }
}

/// The key at which a job's result is found.
pub fn result_key(id: &str) -> String {
    format!("forebay:result:{id}")
}

/// The record of a job, as soon as there is one.
pub async fn result(redis: &mut MultiplexedConnection, id: &str) -> Record {
    result_within(redis, id, SOON).await
}

/// The record of a job, waited for as long as `limit`.
pub async fn result_within(redis: &mut MultiplexedConnection, id: &str, limit: Duration) -> Record {
    let what = format!("a result of job {id}");
    until(&what, limit, async || find(redis, id).await).await
}

/// The record of a job, if there is one now.
pub async fn find(redis: &mut MultiplexedConnection, id: &str) -> Option<Record> {
    let raw: Option<Vec<u8>> = redis.get(result_key(id)).await.expect("ask Redis");
    raw.map(|raw| Record::decode(&raw))
}

/// How many of these jobs have a record now.
pub async fn finished(redis: &mut MultiplexedConnection, ids: &[&str]) -> usize {
    if ids.is_empty() {
        return 0; // a question that Redis refuses
    }
    let keys: Vec<String> = ids.iter().map(|id| result_key(id)).collect();
    redis::cmd("EXISTS").arg(keys).query_async(redis).await.expect("ask Redis")
}

fn json_vectors(fields: &Value) -> Vec<Vec<f32>> {
    let rows = fields["output"]["embeddings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |row: &Value| {
        row.as_array()
            .expect("a row")
            .iter()
            .map(|x| x.as_f64().expect("a number") as f32)
            .collect()
    };
    rows.iter().map(row).collect()
}

fn packed_vectors(record: &rmpv::Value) -> Vec<Vec<f32>> {
    let output = &record["output"];
    let Some(data) = output["data"].as_slice() else { return Vec::new() };
    let width = usize::try_from(output["dim"].as_u64().expect("dim")).unwrap();
    let floats: Vec<f32> = data.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect();
    floats.chunks(width).map(<[f32]>::to_vec).collect()
}

pub(crate) fn to_json(value: &rmpv::Value) -> Value {
    match value {
        rmpv::Value::Nil => Value::Null,
        rmpv::Value::Boolean(yes) => (*yes).into(),
        rmpv::Value::Integer(n) => n.as_u64().map_or_else(|| n.as_i64().into(), Value::from),
        rmpv::Value::F32(x) => (*x).into(),
        rmpv::Value::F64(x) => (*x).into(),
        rmpv::Value::String(text) => text.as_str().expect("UTF-8").into(),
        rmpv::Value::Binary(bytes) => format!("<{} bytes>", bytes.len()).into(),
        rmpv::Value::Array(items) => items.iter().map(to_json).collect(),
        rmpv::Value::Map(pairs) => pairs
            .iter()
            .map(|(name, value)| (name.as_str().expect("string keys").to_owned(), to_json(value)))
            .collect(),
        rmpv::Value::Ext(kind, _) => panic!("an extension type {kind} in a record"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn packed_and_plain_vectors_are_read_alike() {
        let plain =
            json!({"output": {"dim": 2, "count": 2, "embeddings": [[0.5, -1.0], [2.0, 0.25]]}});
        let bytes: Vec<u8> =
            [0.5_f32, -1.0, 2.0, 0.25].into_iter().flat_map(f32::to_le_bytes).collect();
        let output = vec![("dim".into(), 2.into()), ("data".into(), rmpv::Value::Binary(bytes))];
        let record = rmpv::Value::Map(vec![("output".into(), rmpv::Value::Map(output))]);
        let mut packed = Vec::new();
        rmpv::encode::write_value(&mut packed, &record).unwrap();

        let packed = Record::decode(&packed);
        let plain = Record::decode(plain.to_string().as_bytes());
        assert_eq!(packed.vectors, [[0.5, -1.0], [2.0, 0.25]]);
        assert_eq!(packed.vectors, plain.vectors);
        assert_eq!((packed.codec, plain.codec), (Codec::Msgpack, Codec::Json));
        assert_eq!(packed.fields["output"]["data"], "<16 bytes>");
    }

    #[test]
    fn fields_survive_both_codecs() {
        let fields = json!({"v": 1, "deep": {"list": [null, true, -3, 2.5, "ä"]}, "big": u64::MAX});
        for codec in Codec::BOTH {
            assert_eq!(Record::decode(&codec.encode(&fields)).fields, fields);
        }
    }
}
