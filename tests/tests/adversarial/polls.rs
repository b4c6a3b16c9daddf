//! Very many clients that wait at once, for jobs and for results.

use std::time::Instant;

use forebay_tests::model::TINY;
use forebay_tests::patience::{PATIENT, until_true};
use futures_util::stream::{self, StreamExt as _};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::ground::{Ground, Tally};
use super::raw::{closed_within, connect, request};

/// One request that waits for a result to ten that wait for a record.
const RESULTS: usize = 10;
/// Polls that are made in a second, at least: each waits until all others are there.
const PER_S: usize = 150;
/// How long a poll waits beyond that, in seconds.
const BESIDE_S: usize = 10;
/// Connections that are made at once: fewer than a listener's backlog holds.
const AT_ONCE: usize = 100;

pub(super) async fn run(ground: &mut Ground) {
    let began = Instant::now();
    // Without a worker nothing has a result.
    ground.worker = None;
    let port = ground.gateway.port;
    let key = ground.keys[0].clone();
    let body = json!({"model": TINY, "task": "embed", "input": "x"});
    let submitted = ground.gateway.post_with("/v1/jobs", &body, &[ground.key()]);
    let owner = submitted.body["id"].as_str().unwrap()[..12].to_owned();
    let wait_s = (ground.polls / PER_S + BESIDE_S).min(60);
    let poll = |n: usize| {
        let target = format!("/v1/jobs/{owner}-{n}?wait={wait_s}");
        request("GET", &target, &[("authorization", &key)], b"")
    };
    let text = json!({"model": TINY, "input": "x"}).to_string();
    let asks = request("POST", "/v1/embeddings", &[("authorization", &key)], text.as_bytes());
    let polls = all(port, (0..ground.polls).map(poll)).await;
    let results = all(port, (0..ground.polls / RESULTS).map(|_| asks.clone())).await;
    let wanted = polls.len() + results.len();
    let all_wait = async || ground.open_files() >= wanted;
    until_true("all of them are connected", PATIENT, all_wait).await;
    let asked = Instant::now();
    let served = ground.gateway.get_with("/v1/models", &[ground.key()]);
    println!("  beside them, /v1/models is answered after {:?}", asked.elapsed());
    assert_eq!(served.status, 200, "{served:?}");
    let what = format!("{} polls, {} results", polls.len(), results.len());
    ground.show(&what, began.elapsed().as_secs_f64(), &Tally::default());
    ground.worker = Some(ground.stack.worker(&[]).await);
    let mut tally = Tally::default();
    for mut stream in results.into_iter().chain(polls) {
        tally.count(&closed_within(&mut stream, PATIENT).await);
    }
    ground.after("they have ended", began, &tally).await;
}

/// Connections that each have sent a request.
async fn all(port: u16, requests: impl Iterator<Item = Vec<u8>>) -> Vec<TcpStream> {
    let made = stream::iter(requests).map(async |bytes| {
        let mut stream = connect(port).await;
        stream.write_all(&bytes).await.unwrap();
        stream
    });
    made.buffer_unordered(AT_ONCE).collect().await
}
