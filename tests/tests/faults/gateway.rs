//! A gateway that is killed under load, and servers that go away behind one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use forebay_tests::gateway::{Answer, Gateway};
use forebay_tests::job::now_ms;
use forebay_tests::model::TINY;
use forebay_tests::patience::{PATIENT, SOON, at, until_true};
use forebay_tests::record::result_within;
use forebay_tests::stack::Stack;
use forebay_tests::workload::{Lent, Workload};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

const CLIENTS: usize = 4;
/// Longer than keys are remembered, so that requests fail at each step of theirs.
const OUTAGE: Duration = Duration::from_secs(10);
/// As long as clients read, in seconds.
const READS_S: &str = "3";
/// By when slots that were held through an outage are given back: their leases would hold for longer.
const SETTLED_WITHIN: Duration = Duration::from_secs(12);

/// Clients that ask without end, in threads of their own.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Option<Answer>>>>,
}

impl Load {
    /// Clients of these ports, each of which goes to another port when it gets no answer. Every second request submits
    /// a job, and the others wait for a vector.
    fn start(ports: &[u16], key: &str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let headers = [
            ("authorization".to_owned(), format!("Bearer {key}")),
            ("x-stainless-read-timeout".to_owned(), READS_S.to_owned()),
        ];
        let clients = (0..CLIENTS).map(|client| {
            let (ports, headers, stop) = (ports.to_vec(), headers.clone(), stop.clone());
            thread::spawn(move || {
                let mut port = client;
                let mut answers = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let (path, body) = request(client, answers.len());
                    let answer =
                        Gateway::try_post(ports[port % ports.len()], path, &body, &headers);
                    port += usize::from(answer.is_none());
                    answers.push(answer);
                }
                answers
            })
        });
        let clients = clients.collect();
        Self { stop, clients }
    }

    /// All answers that came; `None` where a request got none.
    fn stop(self) -> Vec<Option<Answer>> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

fn request(client: usize, n: usize) -> (&'static str, Value) {
    let text = format!("client {client}, request {n}");
    if n.is_multiple_of(2) {
        ("/v1/jobs", json!({"model": TINY, "task": "embed", "input": text}))
    } else {
        ("/v1/embeddings", json!({"model": TINY, "input": text}))
    }
}

/// The key of a new tenant whose requests are counted and have few in-flight slots.
async fn limited_key(stack: &Stack) -> String {
    let limits = ["--requests-per-minute", "1000000", "--in-flight", "8"];
    let create = [&["tenants", "create", "acme"][..], &limits].concat();
    assert_eq!(stack.forebay(&create).await.code, 0);
    let created = stack.forebay(&["keys", "create", "--tenant", "acme"]).await;
    assert_eq!(created.code, 0, "{created:?}");
    created.output.trim_end().to_owned()
}

/// In-flight slots of the tenant whose leases hold.
async fn slots_held(redis: &mut MultiplexedConnection) -> u64 {
    let mut command = redis::cmd("ZCOUNT");
    command.arg("forebay:limits:{acme}:in_flight").arg(now_ms() * 1_000).arg("+inf");
    command.query_async(redis).await.unwrap()
}

/// Every job that was answered with 202 has a record, and there were some.
async fn all_confirmed_succeed(redis: &mut MultiplexedConnection, answers: &[Option<Answer>]) {
    let confirmed = answers.iter().flatten().filter(|answer| answer.status == 202);
    let ids: Vec<&str> = confirmed.map(|answer| answer.body["id"].as_str().unwrap()).collect();
    assert!(ids.len() > 20, "only {} jobs were confirmed", ids.len());
    for id in ids {
        let record = result_within(redis, id, PATIENT).await;
        assert_eq!(record.state(), "succeeded", "{id}: {}", record.fields);
    }
}

/// Each failure says so as documented: a status that clients retry, a code, and when to come back.
fn failures_are_as_documented(answers: &[Option<Answer>], codes: &[&str]) {
    let failed = answers.iter().flatten().filter(|answer| ![200, 202].contains(&answer.status));
    let failed: Vec<&Answer> = failed.collect();
    assert!(!failed.is_empty(), "nothing failed: the outage was not felt");
    for answer in failed {
        let (status, code, _) = answer.mistake();
        assert!(status == 503 && codes.contains(&code), "{answer:?}");
        let after = answer.header("retry-after").and_then(|after| after.parse().ok());
        assert!((1..=60).contains(&after.unwrap_or(0)), "{answer:?}");
        assert!(answer.header("retry-after-ms").is_some(), "{answer:?}");
        assert_eq!(answer.body["error"]["type"], "service_unavailable", "{answer:?}");
    }
    assert!(answers.iter().all(Option::is_some), "a request got no answer in a minute");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_under_load_loses_no_confirmed_job_and_no_slot() {
    let mut workload = Workload::new().await;
    let _worker = workload.stack.worker(&[]).await;
    let key = limited_key(&workload.stack).await;
    let mut doomed = Gateway::of(&workload.stack, &[]).await;
    let other = Gateway::of(&workload.stack, &[]).await;
    let load = Load::start(&[doomed.port, other.port], &key);
    let redis = &mut workload.redis;
    until_true("it is under load", SOON, async || slots_held(redis).await > 1).await;
    at(Instant::now() + Duration::from_secs(2)).await;
    doomed.service.signal("KILL");
    assert_eq!(doomed.service.exit_code(SOON).await, 128 + 9);
    at(Instant::now() + Duration::from_secs(2)).await;
    let answers = load.stop();
    assert!(
        answers.iter().any(Option::is_none),
        "no request was at the gateway when it was killed"
    );
    let failed: Vec<&Answer> =
        answers.iter().flatten().filter(|answer| ![200, 202].contains(&answer.status)).collect();
    assert!(failed.is_empty(), "the other replica serves on: {failed:?}");
    all_confirmed_succeed(&mut workload.redis, &answers).await;
    // The leases of the one that is gone are not renewed any more.
    let redis = &mut workload.redis;
    until_true("its slots are free", PATIENT, async || slots_held(redis).await == 0).await;
    workload.queues_are_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_store_goes_away_says_so_and_recovers_with_all_its_slots() {
    let mut workload = Workload::new().await;
    let _worker = workload.stack.worker(&[]).await;
    let key = limited_key(&workload.stack).await;
    let mut gateway = Gateway::of(&workload.stack, &[]).await;
    let load = Load::start(&[gateway.port], &key);
    let redis = &mut workload.redis;
    until_true("it is under load", SOON, async || slots_held(redis).await > 1).await;
    workload.stack.store.kill();
    at(Instant::now() + OUTAGE).await;
    workload.stack.store.restart().await;
    let back_at = Instant::now();
    workload.redis = workload.stack.redis().await;
    let headers = [("authorization".to_owned(), format!("Bearer {key}"))];
    let (path, body) = request(CLIENTS, 1);
    until_true("it serves again", SOON, async || {
        let answer = Gateway::try_post(gateway.port, path, &body, &headers);
        answer.is_some_and(|answer| answer.status == 200)
    })
    .await;
    eprintln!("it served again {:?} after the store was back", back_at.elapsed());
    at(back_at + Duration::from_secs(2)).await;
    let answers = load.stop();
    let codes = ["store_unavailable", "unavailable", "deadline_exceeded"];
    failures_are_as_documented(&answers, &codes);
    let redis = &mut workload.redis;
    let settled = async || slots_held(redis).await == 0;
    until_true("no slot is held", SETTLED_WITHIN, settled).await;
    all_confirmed_succeed(&mut workload.redis, &answers).await;
    workload.queues_are_empty().await;
    assert!(gateway.service.is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_broker_restarts_says_so_and_recovers_with_all_its_slots() {
    let mut node = Lent::node().await;
    let mut workload = Workload::on(Stack::on(node.vhost().await).await.tiny()).await;
    let _worker = workload.stack.worker(&[]).await;
    let key = limited_key(&workload.stack).await;
    let mut gateway = Gateway::of(&workload.stack, &[]).await;
    let load = Load::start(&[gateway.port], &key);
    // The broker writes which queues there are to the disk some seconds after they are declared.
    at(Instant::now() + Duration::from_secs(5)).await;
    node.kill();
    at(Instant::now() + OUTAGE).await;
    node.start().await;
    let headers = [("authorization".to_owned(), format!("Bearer {key}"))];
    let (path, body) = request(CLIENTS, 1);
    until_true("it serves again", PATIENT, async || {
        let answer = Gateway::try_post(gateway.port, path, &body, &headers);
        answer.is_some_and(|answer| answer.status == 200)
    })
    .await;
    at(Instant::now() + Duration::from_secs(2)).await;
    let answers = load.stop();
    failures_are_as_documented(&answers, &["unavailable", "deadline_exceeded", "overloaded"]);
    let redis = &mut workload.redis;
    let settled = async || slots_held(redis).await == 0;
    until_true("no slot is held", SETTLED_WITHIN, settled).await;
    all_confirmed_succeed(&mut workload.redis, &answers).await;
    assert!(gateway.service.is_running());
}
