//! Workers that die amid generations: nothing is lost, and no token is another one.

use forebay_tests::generator::{GENERATOR, Generated, ids, long, stream, whole, worker};
use forebay_tests::job::{Codec, Job};
use forebay_tests::model::TINY;
use forebay_tests::patience::{PATIENT, SOON, until, until_true};
use forebay_tests::record::{find, result_within};
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use redis::aio::MultiplexedConnection;
use serde_json::json;

const KILLED: i32 = 128 + 9;
/// As many as a worker runs at once.
const TOGETHER: usize = 64;
/// As many as the tiny decoder reads after its prompt: the first ones are under way until the last has begun.
const TOKENS: usize = 480;
/// With bodies of this size at most, a worker takes enough of them at once.
const SMALL_BODIES: (&str, &str) = ("FOREBAY_LIMITS__BODY_BYTES_MAX", "65536");
/// The tokens between two entries of a token stream, and so what a death costs a job at most.
const ENTRY_TOKENS: u64 = 16;

/// As many jobs of the tiny decoder as run at once, with log-probabilities; every second one is followed.
fn jobs() -> Vec<Job> {
    let job = |seed: usize| {
        let params = json!({"max_tokens": TOKENS, "ignore_eos": true, "temperature": 0.8, "seed": seed,
                            "return_token_ids": true, "logprobs": 1, "stream": seed.is_multiple_of(2)});
        Job::embed("")
            .of(TINY)
            .with("task", "generate")
            .with("input", json!({"prompt": format!("Describe river {seed}.")}))
            .with("params", params)
    };
    (0..TOGETHER).map(job).collect()
}

/// The outputs of jobs, of which each is whole in its token stream too.
async fn outputs(redis: &mut MultiplexedConnection, jobs: &[Job]) -> Vec<Generated> {
    let mut outputs = Vec::new();
    for job in jobs {
        let record = result_within(redis, job.id(), PATIENT).await;
        assert_eq!(record.state(), "succeeded", "{}", record.fields);
        let output = Generated::of(&record.fields["output"]).expect("token ids");
        assert_eq!(output.ids.len(), TOKENS);
        assert_eq!(whole(&stream(redis, job.id()).await).0, output.ids);
        outputs.push(output);
    }
    outputs
}

/// The tokens that the streams of all jobs have.
async fn written(redis: &mut MultiplexedConnection, jobs: &[Job]) -> u64 {
    let mut written = 0;
    for job in jobs {
        written += whole(&stream(redis, job.id()).await).0.len() as u64;
    }
    written
}

/// A number among the metrics of a worker.
async fn metric(worker: &Service, name: &str) -> u64 {
    until(&format!("the metric {name}"), SOON, async || {
        let (_, metrics) = worker.get("/metrics")?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    })
    .await
}

/// A stack with a worker for jobs that were there before it.
async fn begun(jobs: &[Job], overrides: &[(&str, &str)]) -> (Stack, Service) {
    let stack = Stack::start().await.tiny_of("smollm2");
    assert_eq!(stack.forebay(&["queues"]).await.code, 0);
    stack.publisher().await.submit_all(TINY, jobs, Codec::Msgpack).await;
    let worker = stack.worker(&[overrides, &[SMALL_BODIES]].concat()).await;
    (stack, worker)
}

#[tokio::test]
async fn a_kill_amid_64_generations_loses_no_job_and_changes_no_bit() {
    let jobs = jobs();
    let (stack, mut first) = begun(&jobs, &[]).await;
    let mut redis = stack.redis().await;
    until_true("all of them run", PATIENT, async || {
        metric(&first, "forebay_generate_running").await == TOGETHER as u64
    })
    .await;
    first.signal("KILL");
    assert_eq!(first.exit_code(PATIENT).await, KILLED, "{}", first.log());
    let mut written = Vec::new();
    for job in &jobs {
        assert!(find(&mut redis, job.id()).await.is_none(), "none has ended");
        written.push(whole(&stream(&mut redis, job.id()).await).0);
    }
    assert!(written.iter().any(|ids| ids.len() >= 16), "some of them are under way");

    let _second = stack.worker(&[]).await;
    let after_death = outputs(&mut redis, &jobs).await;
    for (output, written) in after_death.iter().zip(&written) {
        assert_eq!(output.ids[..written.len()], written[..]);
    }
    let undisturbed = self::jobs();
    stack.publisher().await.submit_all(TINY, &undisturbed, Codec::Msgpack).await;
    assert_eq!(outputs(&mut redis, &undisturbed).await, after_death);
}

#[tokio::test]
async fn a_death_costs_each_generation_16_tokens_and_a_prefill_at_most() {
    let jobs = jobs();
    let (stack, mut first) = begun(&jobs, &[("FOREBAY_FAIL_POINTS", "after_step=hang:300")]).await;
    let mut redis = stack.redis().await;
    let stands_still = async || first.log().contains("fail point");
    until_true("it stands still", PATIENT, stands_still).await;
    let running = metric(&first, "forebay_generate_running").await;
    let computed = metric(&first, "forebay_generate_tokens_total").await;
    let least = computed - ENTRY_TOKENS * running;
    // The entries that were due are on their way.
    until_true("they are written", SOON, async || written(&mut redis, &jobs).await >= least).await;
    first.signal("KILL");
    assert_eq!(first.exit_code(PATIENT).await, KILLED);
    let written = written(&mut redis, &jobs).await;

    let second = stack.worker(&[]).await;
    outputs(&mut redis, &jobs).await;
    let mut prompts = 0;
    for job in &jobs {
        let record = result_within(&mut redis, job.id(), SOON).await;
        prompts += record.count("/usage/input_tokens");
    }
    assert_eq!(metric(&second, "forebay_generate_resumed_tokens_total").await, written);
    let all = (TOGETHER * TOKENS) as u64;
    assert_eq!(metric(&second, "forebay_generate_tokens_total").await, all - written);
    // A job that ran alone at first gives its slot back once, and the last page of its tokens is computed again.
    let pages = 32 * TOGETHER as u64;
    let rows = metric(&second, "forebay_compute_tokens_total").await;
    assert!(rows <= prompts + all + pages, "{rows} tokens computed, of {prompts} and {all}");
}

#[tokio::test]
async fn an_output_whose_worker_died_before_its_result_is_answered_without_computing() {
    let stack = Stack::start().await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let job = long(7, 100);
    let mut first = worker(&stack, &[("FOREBAY_FAIL_POINTS", "after_result_write=kill")]).await;
    publisher.submit(GENERATOR, &job, Codec::Json).await;
    assert_eq!(first.exit_code(PATIENT).await, KILLED, "{}", first.log());
    until_true("its tokens are all there", PATIENT, async || {
        whole(&stream(&mut redis, job.id()).await).0.len() == 100
    })
    .await;
    let () = redis::cmd("DEL")
        .arg(format!("forebay:result:{}", job.id()))
        .query_async(&mut redis)
        .await
        .unwrap();
    let _second = worker(&stack, &[]).await;
    let record = result_within(&mut redis, job.id(), PATIENT).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_eq!(ids(&record.fields["output"]), whole(&stream(&mut redis, job.id()).await).0);
    assert_eq!(record.count("/usage/device_us"), 0);
}
