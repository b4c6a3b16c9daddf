//! The bytes and the seconds of work that a worker holds: large bodies, slow jobs, lost links.
//!
//! `FOREBAY_LARGE_JOBS` says how many large jobs wait in the batch lane, and `FOREBAY_LARGE_LIMIT_MIB` how much memory
//! their worker may take; `make soak` asks for more of both.

use std::time::{Duration, Instant};
use std::{env, fs};

use forebay_tests::job::{Codec, Job};
use forebay_tests::patience::{PATIENT, SOON, until_true};
use forebay_tests::record::{find, finished};
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use forebay_tests::workload::{SMALL_BATCHES, Workload};
use redis::aio::MultiplexedConnection;

/// How many jobs of 8.16 MB wait in the batch lane.
const LARGE_JOBS: u64 = 60;
/// The memory limit that a worker keeps while they come, in MiB.
const LIMIT_MIB: u64 = 384;
/// For half a gigabyte of texts.
const LONG: Duration = Duration::from_secs(600);

/// A job of 8.16 MB: 64 texts, each far longer than the model reads.
fn large(stack: &Stack, n: usize) -> Job {
    let text = |m: usize| format!("{n} {m} {}", "the river ".repeat(12_750));
    Job::embed((0..64).map(text).collect::<Vec<_>>()).of(stack.model())
}

/// The most memory that a process has had, in bytes.
fn memory_peak(service: &Service) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

/// A number that the environment may say otherwise.
fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |said| said.parse().expect("a number"))
}

/// Publishes large jobs and starts one worker: all get their results, and it stays within its limit.
async fn large_jobs_are_done(key: &str, count: usize) {
    let limit_mib = number("FOREBAY_LARGE_LIMIT_MIB", LIMIT_MIB);
    let mut peak_mib = 0;
    let workload = Workload::new().await;
    let mut redis = workload.redis.clone();
    let mut jobs = Vec::new();
    for n in 0..count {
        let job = large(&workload.stack, n);
        workload.publisher.submit(key, &job, Codec::Msgpack).await;
        jobs.push(job.id().to_owned());
    }
    let limit = (limit_mib << 20).to_string();
    let mut worker = workload.stack.worker(&[("FOREBAY_WORKER__MEMORY_BYTES_MAX", &limit)]).await;
    let ids: Vec<&str> = jobs.iter().map(String::as_str).collect();
    until_true("all large jobs are done", LONG, async || {
        peak_mib = memory_peak(&worker) >> 20;
        assert!(peak_mib <= limit_mib, "the worker has had {peak_mib} MiB");
        finished(&mut redis, &ids).await == count
    })
    .await;
    assert!(worker.is_running());
    for id in ids {
        let record = find(&mut redis, id).await.unwrap();
        assert_eq!(record.state(), "succeeded", "{}", record.fields);
    }
    eprintln!("{count} jobs of 8.16 MB: the worker had {peak_mib} MiB at most, of {limit_mib}");
}

#[tokio::test]
async fn a_backlog_of_large_jobs_is_done_within_the_memory_limit() {
    let count = number("FOREBAY_LARGE_JOBS", LARGE_JOBS);
    large_jobs_are_done("tiny", usize::try_from(count).unwrap()).await;
}

#[tokio::test]
async fn a_burst_of_large_interactive_jobs_is_done_within_the_memory_limit() {
    large_jobs_are_done("tiny.interactive", 12).await;
}

/// How many of these jobs each worker has answered, by the workers' names in their records.
async fn answered_by(redis: &mut MultiplexedConnection, jobs: &[Job], worker: &str) -> usize {
    let mut count = 0;
    for job in jobs {
        let record = find(redis, job.id()).await.unwrap();
        count += usize::from(record.fields["worker"] == worker);
    }
    count
}

#[tokio::test]
async fn a_worker_that_starts_later_has_its_share_of_a_backlog_of_slow_jobs() {
    const JOBS: usize = 100;
    const JOB_MS: usize = 200;
    let mut workload = Workload::new().await;
    workload.publish_slow(JOBS, JOB_MS as u64).await;
    let one_each = ("FOREBAY_WORKER__BATCH_ITEMS_MAX", "1");
    let first = [one_each, ("FOREBAY_WORKER_NAME", "first")];
    let second = [one_each, ("FOREBAY_WORKER_NAME", "second")];
    let _first = workload.stack.worker(&first).await;
    let _second = workload.stack.worker(&second).await;
    let before = workload.finished().await;
    let both = Instant::now();
    workload.all_succeed().await;
    let took_s = both.elapsed().as_secs_f64();
    let one_s = ((JOBS - before) * JOB_MS) as f64 / 1_000.0;
    eprintln!(
        "two workers took {took_s:.1} s for {one_s:.1} s of one: {:.2} halves",
        took_s / one_s * 2.0
    );
    let second = answered_by(&mut workload.redis, &workload.jobs, "second").await;
    // Of those that were left the first held some seconds of work, at five jobs a second.
    let left = JOBS - before;
    assert!(left > 40, "the second came too late: {left} jobs were left");
    assert!(second * 3 >= left, "the second answered {second} of the {left} jobs that were left");
}

/// A counter of a worker.
fn counted(worker: &Service, name: &str) -> u64 {
    let (_, metrics) = worker.get("/metrics").expect("metrics");
    let values = metrics.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<f64>().unwrap() as u64).sum()
}

#[tokio::test]
async fn a_closed_connection_under_load_costs_a_twentieth_of_the_tokens_at_most() {
    let mut workload = Workload::relayed().await;
    workload.publish(2_000).await;
    let worker = workload.stack.worker(&[SMALL_BATCHES]).await;
    let some_are_done = async || workload.finished().await > 500;
    until_true("some are done", PATIENT, some_are_done).await;
    workload.stack.relays().broker.drop_connections();
    workload.is_at_work().await;
    workload.all_succeed().await;
    workload.queues_are_empty().await;
    let mut needed = 0;
    for job in &workload.jobs {
        let record = find(&mut workload.redis, job.id()).await.unwrap();
        needed += record.count("/usage/input_tokens");
    }
    let computed = counted(&worker, "forebay_compute_tokens_total");
    assert!(
        computed >= needed && computed * 20 <= needed * 21,
        "{computed} tokens were computed for jobs of {needed}"
    );
    assert!(counted(&worker, "forebay_broker_connects_total") > 1, "the connection was not closed");
}

#[tokio::test]
async fn a_consumer_that_the_broker_cancels_leaves_no_channel_behind() {
    let mut workload = Workload::new().await;
    let mut worker = workload.stack.worker(&[]).await;
    let vhost = &workload.stack.vhost;
    let channels = async || vhost.channels_of("forebay-worker");
    until_true("a channel for each lane", SOON, async || channels().await == Some(2)).await;
    // Held and not done: they keep their channel in use.
    workload.stack.store.freeze();
    workload.publish(20).await;
    let queue = workload.stack.batch_queue();
    let vhost = &workload.stack.vhost;
    let held = |queue: serde_json::Value| queue["messages_unacknowledged"].as_u64();
    let taken = async || vhost.queue(&queue).and_then(held).is_some_and(|held| held > 0);
    until_true("the worker has some of them", SOON, taken).await;
    vhost.delete_queue(&queue);
    let lost = async || worker.log().contains("subscription lost");
    until_true("the broker cancels the consumer", SOON, lost).await;
    assert_eq!(workload.stack.forebay(&["queues"]).await.code, 0, "it declares the queue again");
    let back = async || vhost.queue(&queue).is_some_and(|queue| queue["consumers"] == 1);
    until_true("it consumes again", SOON, back).await;
    let channels = async || vhost.channels_of("forebay-worker");
    until_true("the old channel is closed", SOON, async || channels().await == Some(2)).await;
    workload.stack.store.thaw();
    workload.jobs.clear();
    workload.publish(50).await;
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}
