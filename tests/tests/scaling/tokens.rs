//! A pool of a model that generates text grows by the tokens of its jobs, and not by their number.

use forebay_tests::generator::{GENERATOR, chat, long, pooled};
use forebay_tests::job::{Codec, Job};
use forebay_tests::patience::{PATIENT, SOON, until};
use forebay_tests::pools::{metric, pool, until_running};
use forebay_tests::record::result_within;
use serde_json::{Value, json};

/// By their number no backlog of this test needs a second worker.
const POOL: &str = "min = 1\nmax = 2\ntarget_wait_s = 3.0\nidle_s = 60.0\njobs_per_s_prior = 100.0\n\
     cold_start_s_prior = 1.0";

#[tokio::test]
async fn few_long_jobs_launch_the_worker_that_many_short_ones_do_not_need() {
    let stack = pooled(POOL).await;
    // Two sequences at once: the others wait.
    let autoscaler = stack.autoscaler(&[("FOREBAY_WORKER__BATCH_ITEMS_MAX", "2")]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    until_running(stack.pools(), 1, PATIENT).await;
    let word = |_| chat("Say yes.", &json!({"max_tokens": 1}));
    let short: Vec<Job> = (0..60).map(word).collect();
    publisher.submit_all(GENERATOR, &short, Codec::Msgpack).await;
    for job in &short {
        let record = result_within(&mut redis, job.id(), PATIENT).await;
        assert_eq!(record.state(), "succeeded", "{}", record.fields);
    }
    let launched = || metric(&autoscaler, "forebay_workers_launched_total", GENERATOR);
    assert_eq!(launched(), 1, "sixty jobs of few tokens: {:#}", pool(&autoscaler).unwrap());

    let few: Vec<Job> = (0..16).map(|seed| long(seed, 800)).collect();
    publisher.submit_all(GENERATOR, &few, Codec::Msgpack).await;
    until_running(stack.pools(), 2, PATIENT).await;
    let seen = until("tokens are reported", SOON, async || {
        pool(&autoscaler).filter(|pool| pool["backlog_tokens"].as_f64() > Some(4_000.0))
    })
    .await;
    assert!(seen["worker_tokens_per_s"].as_f64() > Some(1.0), "{seen:#}");
    assert!(seen["job_tokens"].as_f64() > Some(50.0), "{seen:#}");
    let why = seen["decisions"].to_string();
    assert!(why.contains("tokens to come"), "{why}");
    let (_, metrics) = autoscaler.get("/metrics").expect("metrics");
    assert!(metrics.contains("forebay_pool_backlog_tokens{"), "{metrics}");

    let listed = stack.forebay(&["workers", "--json"]).await;
    let records = listed.output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let busy = records.map(|record| record["generate"].clone());
    let busy = busy.max_by_key(|it| it["waiting_tokens"].as_u64()).expect("a worker");
    assert!(busy["waiting_tokens"].as_u64() > Some(800), "{busy}");
    for known in
        ["running_max", "running_tokens", "tokens_per_job", "pages_held", "bytes_per_token"]
    {
        assert!(busy[known].as_u64() > Some(0), "{known}: {busy}");
    }
    assert!(busy["prefix_hit_percent"].as_u64() > Some(0), "they share their template: {busy}");
    let page = stack.forebay(&["top", "--once"]).await;
    assert!(page.output.contains("TOKENS TO COME"), "{page:?}");
}
