//! A day's worth of jobs in a hurry: memory stays flat, and nothing is left unacknowledged.
//!
//! `FOREBAY_SOAK_JOBS` says how many, and `FOREBAY_SOAK_TOKENS` how many tokens of text are generated; a plain run is
//! short, and `make soak` takes a million of each.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::env;
use std::fs;

use forebay_tests::job::{Codec, Job};
use forebay_tests::model::TINY;
use forebay_tests::patience::{PATIENT, SOON, until_true};
use forebay_tests::record::finished;
use forebay_tests::stack::Stack;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::json;

const JOBS: usize = 10_000;
/// Jobs sent before the next are: enough to keep the worker busy, few enough to be held here.
const WAVE: usize = 2_000;
/// How much a worker may grow after its first waves, by which all that is allocated once has been.
const GROWTH_KB_MAX: u64 = 24 * 1024;
/// After this share of the jobs the worker's memory is taken as its size.
const WARM: usize = 4;

fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running worker");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn many_small_jobs_leave_memory_flat_and_nothing_unacknowledged() {
    let jobs = env::var("FOREBAY_SOAK_JOBS").map_or(JOBS, |jobs| jobs.parse().expect("a number"));
    let stack = Stack::start().await.tiny();
    let worker = stack.worker(&[]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let waves = jobs.div_ceil(WAVE);
    let mut warm_kb = 0;
    let mut most_kb = 0;
    for wave in 0..waves {
        // Results are forgotten soon: it is the fleet's memory that is looked at, not the store's.
        let small = |n| {
            let job = Job::embed(format!("{n}")).with("model", stack.model());
            job.with("result_ttl_s", 120)
        };
        let sent: Vec<Job> = (0..WAVE).map(small).collect();
        publisher.submit_all(stack.model(), &sent, Codec::Msgpack).await;
        let ids: Vec<&str> = sent.iter().map(Job::id).collect();
        let done = async || finished(&mut redis, &ids).await == ids.len();
        until_true("a wave of jobs is done", PATIENT, done).await;
        let now_kb = resident_kb(worker.pid());
        if wave < waves.div_ceil(WARM) {
            warm_kb = warm_kb.max(now_kb);
        }
        most_kb = most_kb.max(now_kb);
        if wave % 50 == 0 {
            eprintln!("{:>9} jobs done, the worker has {now_kb} kB", (wave + 1) * WAVE);
        }
    }
    eprintln!("{} jobs: {warm_kb} kB after a quarter, {most_kb} kB at most", waves * WAVE);
    assert!(most_kb <= warm_kb + GROWTH_KB_MAX, "it grew from {warm_kb} to {most_kb} kB");
    let queue = stack.batch_queue();
    let empty = async || stack.vhost.depth(&queue) == 0;
    until_true("nothing is left, ready or unacknowledged", SOON, empty).await;
}

/// Tokens of text that are generated.
const TOKENS: usize = 50_000;
/// Jobs that are sent before the next are: twice as many as run at once.
const TEXTS: usize = 128;
/// Tokens of each of their texts, on which every text ends.
const TEXT_TOKENS: usize = 96;
/// The worker's memory limit, of which a quarter is for pages: so small that all of them have been used after some
/// 50,000 tokens.
const MEMORY_BYTES_MAX: &str = "100663296";
/// The most bytes that a token stream takes in Redis for each of its tokens: with its key, entries of up to sixteen
/// tokens, their text, and the name of their writer.
const STREAM_BYTES_A_TOKEN_MAX: usize = 60;
/// A token stream is gone so many seconds after its result.
const STREAM_TTL_S_MAX: i64 = 600;

/// A wave of texts: of each two one is followed, and prefixes come again.
fn texts(wave: usize) -> Vec<Job> {
    let text = |n: usize| {
        let params = json!({"max_tokens": TEXT_TOKENS, "ignore_eos": true, "temperature": 0.8,
                            "seed": wave * TEXTS + n, "stream": n.is_multiple_of(2)});
        let prompt = format!("{} {n}: the river fills the forebay, and then", wave % 7);
        let job = Job::embed("").of(TINY).with("task", "generate").with("params", params);
        job.with("input", json!({"prompt": prompt})).with("result_ttl_s", 120)
    };
    (0..TEXTS).map(text).collect()
}

/// The bytes that the token streams of these jobs take, each of which goes by itself.
async fn streams_bytes(redis: &mut MultiplexedConnection, ids: &[&str]) -> usize {
    let mut bytes = 0;
    for id in ids {
        let key = format!("forebay:tokens:{id}");
        let ttl_s: i64 = redis.ttl(&key).await.unwrap();
        assert!((1..=STREAM_TTL_S_MAX).contains(&ttl_s), "{key} goes in {ttl_s} s");
        let usage: redis::RedisResult<usize> =
            redis::cmd("MEMORY").arg("USAGE").arg(&key).query_async(redis).await;
        bytes += usage.unwrap_or_else(|error| panic!("{key}: {error}"));
    }
    bytes
}

#[tokio::test]
async fn many_generated_tokens_leave_memory_flat_and_streams_that_go() {
    let tokens = env::var("FOREBAY_SOAK_TOKENS");
    let tokens = tokens.map_or(TOKENS, |tokens| tokens.parse().expect("a number"));
    let stack = Stack::start().await.tiny_of("smollm2");
    let worker = stack.worker(&[("FOREBAY_WORKER__MEMORY_BYTES_MAX", MEMORY_BYTES_MAX)]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let waves = tokens.div_ceil(TEXTS * TEXT_TOKENS);
    let mut warm_kb = 0;
    let mut most_kb = 0;
    for wave in 0..waves {
        let sent = texts(wave);
        publisher.submit_all(stack.model(), &sent, Codec::Msgpack).await;
        let ids: Vec<&str> = sent.iter().map(Job::id).collect();
        let done = async || finished(&mut redis, &ids).await == ids.len();
        until_true("a wave of texts is done", PATIENT, done).await;
        let now_kb = resident_kb(worker.pid());
        if wave < waves.div_ceil(WARM) {
            warm_kb = warm_kb.max(now_kb);
        }
        most_kb = most_kb.max(now_kb);
        let bytes = streams_bytes(&mut redis, &ids).await;
        let most = STREAM_BYTES_A_TOKEN_MAX * TEXTS * TEXT_TOKENS;
        assert!(bytes <= most, "streams of {TEXTS} texts take {bytes} bytes, not {most} at most");
        if wave % 10 == 0 {
            let all = (wave + 1) * TEXTS * TEXT_TOKENS;
            eprintln!("{all:>9} tokens, the worker has {now_kb} kB, streams {bytes} bytes a wave");
        }
    }
    let all = waves * TEXTS * TEXT_TOKENS;
    eprintln!("{all} tokens: {warm_kb} kB after a quarter, {most_kb} kB at most");
    assert!(most_kb <= warm_kb + GROWTH_KB_MAX, "it grew from {warm_kb} to {most_kb} kB");
    let queue = stack.batch_queue();
    let empty = async || stack.vhost.depth(&queue) == 0;
    until_true("nothing is left, ready or unacknowledged", SOON, empty).await;
}
