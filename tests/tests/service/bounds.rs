//! Fields of any length from unknown publishers: logs, metrics and answers about them stay short.

use std::collections::BTreeSet;

use forebay_tests::MODEL;
use forebay_tests::job::{Codec, Job, properties};
use forebay_tests::patience::{SOON, until_true};
use forebay_tests::publisher::{BATCH, Publisher};
use forebay_tests::record::{Record, result};
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

/// Everything of ours; the AMQP library's own lines are off unless somebody asks for them.
const FILTER: (&str, &str) = ("FOREBAY_TELEMETRY__LOG_FILTER", "trace,lapin=off");
/// The longest line of a log that a person can still read.
const LINE_BYTES_MAX: usize = 4_096;
/// The longest answer to a job that was refused.
const REFUSAL_BYTES_MAX: usize = 4_096;
const MEGABYTE: usize = 1 << 20;

struct Fleet {
    worker: Service,
    autoscaler: Service,
    publisher: Publisher,
    redis: MultiplexedConnection,
    stack: Stack,
}

impl Fleet {
    async fn start() -> Self {
        let stack = Stack::start().await;
        Self {
            worker: stack.worker(&[FILTER]).await,
            autoscaler: stack.autoscaler(&[FILTER]).await,
            publisher: stack.publisher().await,
            redis: stack.redis().await,
            stack,
        }
    }

    /// The answer to a body under any properties that name its id.
    async fn answer(&mut self, key: &str, id: &str, body: &[u8], with: BasicProperties) -> Record {
        self.publisher.publish(key, body, with).await;
        result(&mut self.redis, id).await
    }

    fn assert_lines_are_short(&self) {
        for service in [&self.worker, &self.autoscaler] {
            let log = service.log();
            let longest = log.lines().max_by_key(|line| line.len()).unwrap_or_default();
            assert!(
                longest.len() < LINE_BYTES_MAX,
                "a line of {} bytes: {longest:.500}",
                longest.len()
            );
        }
    }

    /// Names and labels of everything that is measured.
    fn series(&self) -> BTreeSet<String> {
        let mut series = BTreeSet::new();
        for service in [&self.worker, &self.autoscaler] {
            let (_, metrics) = service.get("/metrics").expect("metrics");
            let samples = metrics.lines().filter(|line| !line.starts_with('#'));
            series.extend(samples.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())));
        }
        series
    }
}

/// Bodies with one field that is a megabyte long, each marked by `n`.
fn long_bodies(n: usize) -> Vec<(&'static str, Job)> {
    let long = format!("{n}{}", "x".repeat(MEGABYTE));
    let text = || Job::embed("text");
    let mut fields = vec![
        ("model", text().with("model", long.clone())),
        ("task", text().with("task", long.clone())),
        ("tenant", text().with("tenant", long.clone())),
        ("notify", text().with("notify", long.clone())),
        ("version", text().with("v", long.clone())),
        ("params", text().with("params", long.clone())),
        ("dimensions", text().with("params", json!({"dimensions": long}))),
        ("a parameter", text().with("params", json!({long.clone(): 1}))),
        ("submitted_at_ms", text().with("submitted_at_ms", long.clone())),
        ("a metadata key", text().with("metadata", json!({long.clone(): "x"}))),
        ("a metadata value", text().with("metadata", json!({"x": long}))),
        ("a map", text().with("input", json!({long.clone(): [long.clone()]}))),
    ];
    fields.push(("its text", Job::embed(long).with("params", json!({"truncate": false}))));
    fields
}

/// Properties as long as AMQP has them, beside a good body.
fn long_properties(job: &Job, n: usize) -> Vec<(&'static str, BasicProperties)> {
    let short = |fill: &str| ShortString::from(format!("{n}{}", fill.repeat(240)));
    let plain = || properties(job.id(), Codec::Json);
    let mut headers = FieldTable::default();
    let value = AMQPValue::LongString("y".repeat(60_000).into());
    headers.insert("x-forebay-attempts".into(), value.clone());
    headers.insert(short("h"), value);
    vec![
        ("content_type", plain().with_content_type(short("c"))),
        ("type", plain().with_type(short("t"))),
        ("a later type", plain().with_type(format!("forebay.job.v{n}{}", "9".repeat(230)).into())),
        ("correlation_id", plain().with_correlation_id(short("i")).with_reply_to(short("r"))),
        ("headers", plain().with_headers(headers)),
    ]
}

async fn send_all(fleet: &mut Fleet, n: usize) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut judge = |what: &str, record: &Record| {
        if record.raw.len() > REFUSAL_BYTES_MAX && record.state() != "succeeded" {
            let message: String = record.error_message().chars().take(200).collect();
            complaints.push(format!("{what}: {} bytes: {message}", record.raw.len()));
        }
    };
    for codec in Codec::BOTH {
        for (what, job) in long_bodies(n) {
            let with = properties(job.id(), codec);
            let record = fleet.answer(BATCH, job.id(), &job.body(codec), with).await;
            judge(what, &record);
        }
    }
    for at in 0..long_properties(&Job::embed("text"), n).len() {
        let job = Job::embed("text");
        let (what, with) = long_properties(&job, n).swap_remove(at);
        let record = fleet.answer(BATCH, job.id(), &job.body(Codec::Json), with).await;
        judge(what, &record);
    }
    let job = Job::embed("text").with("model", format!("m{n}"));
    let key = format!("m{n}{}", "k".repeat(240));
    let body = job.body(Codec::Json);
    let record = fleet.answer(&key, job.id(), &body, properties(job.id(), Codec::Json)).await;
    judge("routing key", &record);
    complaints
}

/// Messages that name no one to answer, with a long id and a long reason.
async fn send_dead_letters(fleet: &Fleet, n: usize) {
    let queue = "forebay.dead";
    let before = fleet.stack.vhost.depth(queue);
    let long: Value = json!({"id": format!("{n}{}", "x".repeat(MEGABYTE)), "v": 1});
    let body = serde_json::to_vec(&long).unwrap();
    let misnamed = BasicProperties::default().with_message_id("no id! ".repeat(36).into());
    for with in [BasicProperties::default(), misnamed] {
        fleet.publisher.publish(BATCH, &body, with).await;
    }
    let kept = async || fleet.stack.vhost.depth(queue) == before + 2;
    until_true("both are kept as dead letters", SOON, kept).await;
}

#[tokio::test]
async fn nothing_that_strangers_write_makes_logs_metrics_or_refusals_grow() {
    let mut fleet = Fleet::start().await;
    let mut complaints = send_all(&mut fleet, 0).await;
    send_dead_letters(&fleet, 0).await;
    let series = fleet.series();
    complaints.extend(send_all(&mut fleet, 1).await);
    send_dead_letters(&fleet, 1).await;
    let later = fleet.series();
    assert_eq!(later.difference(&series).collect::<Vec<_>>(), [""; 0], "series that grew");
    let longest = later.iter().map(String::len).max();
    assert!(longest < Some(200), "a series with a name of {longest:?} bytes");
    fleet.assert_lines_are_short();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let good = Job::embed("still there?").with("model", MODEL);
    let body = good.body(Codec::Json);
    let record = fleet.answer(BATCH, good.id(), &body, properties(good.id(), Codec::Json)).await;
    assert_eq!(record.state(), "succeeded");
}

#[tokio::test]
async fn a_dead_letter_whose_headers_fill_a_frame_is_kept_and_work_goes_on() {
    let mut fleet = Fleet::start().await;
    // Frames have 131,072 bytes at most: with one more header the dead letter is too long for one.
    let mut headers = FieldTable::default();
    headers.insert("filler".into(), AMQPValue::LongString("z".repeat(130_950).into()));
    let with = BasicProperties::default().with_headers(headers);
    fleet.publisher.publish(BATCH, b"\xc1", with).await;
    let kept = async || fleet.stack.vhost.depth("forebay.dead") == 1;
    until_true("it is kept as a dead letter", SOON, kept).await;
    let good = Job::embed("still there?");
    let body = good.body(Codec::Json);
    let record = fleet.answer(BATCH, good.id(), &body, properties(good.id(), Codec::Json)).await;
    assert_eq!(record.state(), "succeeded");
}
