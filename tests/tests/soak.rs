//! A day's worth of jobs in a hurry: memory stays flat, and nothing is left unacknowledged.
//!
//! `FOREBAY_SOAK_JOBS` says how many; a plain run is short, and `make soak` sends a million.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::env;
use std::fs;

use forebay_tests::job::{Codec, Job};
use forebay_tests::patience::{PATIENT, SOON, until_true};
use forebay_tests::record::finished;
use forebay_tests::stack::Stack;

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
