//! Answers to a raw publisher whose message is no valid job: whatever can be answered, and a worker that
//! goes on.

use forebay_tests::MODEL;
use forebay_tests::job::{Codec, Job, properties};
use forebay_tests::patience::{SOON, until};
use forebay_tests::publisher::{BATCH, Publisher};
use forebay_tests::record::{Record, result};
use forebay_tests::stack::{SHARED_BODY_BYTES_MAX, SharedFleet};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

/// A publisher and a reader of results on the shared fleet.
struct Raw {
    publisher: Publisher,
    redis: MultiplexedConnection,
}

impl Raw {
    async fn new(fleet: &SharedFleet) -> Self {
        Self { publisher: fleet.stack.publisher().await, redis: fleet.stack.redis().await }
    }

    /// The answer to any bytes under any id; afterwards the worker still does a good job.
    async fn answer(&mut self, key: &str, id: &str, codec: Codec, body: &[u8]) -> Record {
        self.publisher.publish(key, body, properties(id, codec)).await;
        let record = result(&mut self.redis, id).await;
        assert_eq!(record.fields["id"], id);
        assert_eq!(record.codec, codec, "answered in the job's own codec");
        self.good_job_succeeds().await;
        record
    }

    async fn good_job_succeeds(&mut self) {
        let good = Job::embed("still there?");
        self.publisher.submit(BATCH, &good, Codec::Msgpack).await;
        let record = result(&mut self.redis, good.id()).await;
        assert_eq!(record.state(), "succeeded", "{}", record.fields);
    }

    /// Expects a refusal with `code` and a message that names `what`, in both codecs.
    async fn refuses(&mut self, job: impl Fn() -> Job, code: &str, what: &str) {
        for codec in Codec::BOTH {
            let job = job();
            let record = self.answer(BATCH, job.id(), codec, &job.body(codec)).await;
            assert_refused(&record, code, what);
        }
    }
}

/// Describes the first field of a refusal that is wrong, if any is.
fn complaint(record: &Record, code: &str, what: &str) -> Option<String> {
    let fields = &record.fields;
    let refused = (record.state(), record.error_code()) == ("failed", code)
        && fields.get("output").is_none()
        && fields["error"]["retryable"].is_boolean();
    if !refused {
        return Some(format!("not refused as {code}: {fields}"));
    }
    let message = record.error_message();
    (!message.contains(what))
        .then(|| format!("{what} is not named in {:?}: {message}", record.codec))
}

fn assert_refused(record: &Record, code: &str, what: &str) {
    assert_eq!(complaint(record, code, what), None);
}

#[tokio::test]
async fn a_model_that_is_not_configured_is_not_found() {
    let fleet = SharedFleet::borrow().await;
    let mut raw = Raw::new(&fleet).await;
    for (key, codec) in
        [("no-such-model", Codec::Msgpack), ("no-such-model.interactive", Codec::Json)]
    {
        let job = Job::embed("text").with("model", "no-such-model");
        let record = raw.answer(key, job.id(), codec, &job.body(codec)).await;
        assert_refused(&record, "model_not_found", "no-such-model");
    }
}

#[tokio::test]
async fn an_over_long_body_is_too_large() {
    let fleet = SharedFleet::borrow().await;
    let long = || Job::embed("x".repeat(SHARED_BODY_BYTES_MAX));
    Raw::new(&fleet).await.refuses(long, "payload_too_large", "1048576").await;
}

#[tokio::test]
async fn a_version_from_the_future_is_unsupported() {
    let fleet = SharedFleet::borrow().await;
    let mut raw = Raw::new(&fleet).await;
    raw.refuses(|| Job::embed("text").with("v", 2), "unsupported_version", "2").await;
    let stranger = || Job::embed(json!({"of": ["another", "shape"]})).with("v", 99);
    raw.refuses(stranger, "unsupported_version", "99").await;
}

#[tokio::test]
async fn unknown_tasks_and_those_of_other_models_are_not_supported() {
    let fleet = SharedFleet::borrow().await;
    let mut raw = Raw::new(&fleet).await;
    raw.refuses(|| Job::embed("text").with("task", "translate"), "task_not_supported", "translate")
        .await;
    let rerank =
        || Job::embed(json!({"query": "q", "documents": ["a", "b"]})).with("task", "rerank");
    raw.refuses(rerank, "task_not_supported", "rerank").await;
}

/// A field, a wrong value for it, and what the refusal must name.
fn wrong_fields() -> Vec<(&'static str, Value, &'static str)> {
    let many: serde_json::Map<String, Value> =
        (0..17).map(|n| (format!("key{n}"), json!("value"))).collect();
    vec![
        ("input", json!([]), "`input`"),
        ("input", json!(7), "`input`"),
        ("input", json!(["text", 7]), "input"),
        ("input", json!([["nested"]]), "input"),
        ("input", json!({"query": "q"}), "`input`"),
        ("input", Value::Null, "`input`"),
        ("input", json!(vec!["x"; 3_000]), "2048"),
        ("v", json!("1"), "`v`"),
        ("v", Value::Null, "`v`"),
        ("model", json!(7), "`model`"),
        ("model", json!("No Model!"), "No Model!"),
        ("task", json!(["embed"]), "`task`"),
        ("params", json!("fast"), "`params`"),
        ("params", json!({"dimensions": 0}), "`dimensions`"),
        ("params", json!({"dimensions": 100_000}), "dimensions"),
        ("params", json!({"dimensions": "few"}), "`dimensions`"),
        ("params", json!({"normalize": "yes"}), "`normalize`"),
        ("expires_in_ms", json!(-5), "`expires_in_ms`"),
        ("submitted_at_ms", json!("now"), "`submitted_at_ms`"),
        ("result_ttl_s", json!(0), "`result_ttl_s`"),
        ("result_ttl_s", json!(1.5), "`result_ttl_s`"),
        ("tenant", json!(7), "`tenant`"),
        ("metadata", json!({"key": 7}), "metadata"),
        ("metadata", json!({"key": "x".repeat(513)}), "metadata"),
        ("metadata", many.into(), "metadata"),
        ("notify", json!(["channel"]), "`notify`"),
    ]
}

#[tokio::test]
async fn wrong_fields_are_invalid_and_named() {
    let fleet = SharedFleet::borrow().await;
    let mut raw = Raw::new(&fleet).await;
    let mut complaints = Vec::new();
    for (field, value, named) in wrong_fields() {
        for codec in Codec::BOTH {
            let job = Job::embed("text").with(field, value.clone());
            let record = raw.answer(BATCH, job.id(), codec, &job.body(codec)).await;
            complaints.extend(complaint(&record, "invalid_request", named));
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[tokio::test]
async fn a_job_in_the_wrong_model_s_queue_is_answered() {
    let fleet = SharedFleet::borrow().await;
    let mut raw = Raw::new(&fleet).await;
    let job = Job::embed("text").with("model", "another-model");
    let record = raw.answer(BATCH, job.id(), Codec::Json, &job.body(Codec::Json)).await;
    assert_eq!(record.state(), "failed");
    assert!(record.error_message().contains("another-model"), "{}", record.error_message());
}

/// A good job with this id.
fn good(id: &str, codec: Codec) -> Vec<u8> {
    Job::embed("text").with("id", id).body(codec)
}

fn halved(id: &str, codec: Codec) -> Vec<u8> {
    good(id, codec)[..40].to_vec()
}

fn followed(id: &str, codec: Codec, tail: &[u8]) -> Vec<u8> {
    [&good(id, codec), tail].concat()
}

/// A body that is no job: its name, the codec that it is said to have, and its bytes for an id, also the message's.
type Unreadable = (&'static str, Codec, fn(&str) -> Vec<u8>);

const UNREADABLE: &[Unreadable] = &[
    ("broken msgpack", Codec::Msgpack, |_| b"\xc1\xc1\xc1".to_vec()),
    ("broken JSON", Codec::Json, |_| b"{\"v\": 1,,}".to_vec()),
    ("half a msgpack body", Codec::Msgpack, |id| halved(id, Codec::Msgpack)),
    ("half a JSON body", Codec::Json, |id| halved(id, Codec::Json)),
    ("nothing", Codec::Msgpack, |_| Vec::new()),
    ("nothing", Codec::Json, |_| Vec::new()),
    ("JSON called msgpack", Codec::Msgpack, |id| good(id, Codec::Json)),
    ("msgpack called JSON", Codec::Json, |id| good(id, Codec::Msgpack)),
    ("bytes after msgpack", Codec::Msgpack, |id| followed(id, Codec::Msgpack, b"\x00")),
    ("bytes after JSON", Codec::Json, |id| followed(id, Codec::Json, b" {}")),
    ("a deep msgpack list", Codec::Msgpack, |_| vec![0x91; 100_000]),
    ("a deep JSON list", Codec::Json, |_| vec![b'['; 100_000]),
    ("a deep msgpack field", Codec::Msgpack, |_| {
        [b"\x81\xa5input".as_slice(), &[0x91; 100_000]].concat()
    }),
    ("a list of four billion", Codec::Msgpack, |_| b"\x81\xa5input\xdd\xff\xff\xff\xff".to_vec()),
    ("a string of four billion", Codec::Msgpack, |_| b"\x81\xa5input\xdb\xff\xff\xff\xff".to_vec()),
    ("a string that is not UTF-8", Codec::Msgpack, |_| b"\x81\xa5input\xa2\xff\xfe".to_vec()),
    ("a lone surrogate", Codec::Json, |_| br#"{"input": "\ud800"}"#.to_vec()),
    ("a list", Codec::Json, |_| b"[1]".to_vec()),
    ("a number", Codec::Msgpack, |_| b"\x07".to_vec()),
];

#[tokio::test]
async fn an_unreadable_body_under_a_message_id_is_invalid() {
    let fleet = SharedFleet::borrow().await;
    let mut raw = Raw::new(&fleet).await;
    for (what, codec, body) in UNREADABLE {
        let id = Job::embed("").id().to_owned();
        let record = raw.answer(BATCH, &id, *codec, &body(&id)).await;
        assert_eq!(
            (record.state(), record.error_code()),
            ("failed", "invalid_request"),
            "{what}: {}",
            record.fields
        );
        assert!(!record.error_message().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn an_unreadable_body_without_a_usable_id_becomes_a_dead_letter() {
    let fleet = SharedFleet::borrow().await;
    let mut raw = Raw::new(&fleet).await;
    let nameless = BasicProperties::default()
        .with_content_type("application/msgpack".into())
        .with_delivery_mode(2);
    let misnamed = nameless.clone().with_message_id("no id: it has spaces".into());
    for (properties, body) in [(nameless, b"\xc1 nameless"), (misnamed, b"\xc1 misnamed")] {
        raw.publisher.publish(BATCH, body, properties).await;
        let delivery = dead_letter(&raw.publisher, body).await;
        assert_eq!(delivery.routing_key.as_str(), MODEL);
        let headers = delivery.properties.headers().as_ref().expect("headers");
        let reason = headers.inner().get("x-forebay-reason").expect("a reason");
        assert!(format!("{reason:?}").len() > "LongString(\"\")".len(), "an empty reason");
        raw.good_job_succeeds().await;
    }
}

/// Takes dead letters from their queue until one has this body.
async fn dead_letter(publisher: &Publisher, body: &[u8]) -> Delivery {
    until("a dead letter with this body", SOON, async || {
        let get = publisher.channel.basic_get("forebay.dead".into(), BasicGetOptions::default());
        let delivery = get.await.unwrap()?.delivery;
        delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
        (delivery.data == body).then_some(delivery)
    })
    .await
}
