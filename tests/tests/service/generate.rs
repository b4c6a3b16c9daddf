//! Text generation as its users meet it: whole, followed token by token, guided, cancelled, handed over.

use forebay_tests::generator::{GENERATOR, INTERACTIVE, chat, ids, long, stream, whole, worker};
use forebay_tests::job::{Codec, Job};
use forebay_tests::patience::{PATIENT, SOON, until, until_true};
use forebay_tests::record::{Record, find, result, result_within};
use forebay_tests::stack::{GRACE, Stack};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::json;

async fn succeeded(redis: &mut MultiplexedConnection, job: &Job) -> Record {
    let record = result_within(redis, job.id(), PATIENT).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    record
}

#[tokio::test]
async fn a_question_is_answered_with_its_usage_in_both_codecs() {
    let stack = Stack::start().await;
    let _worker = worker(&stack, &[]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    for codec in Codec::BOTH {
        let job = chat("What is the capital of France?", &json!({"max_tokens": 32, "logprobs": 2}));
        publisher.submit(GENERATOR, &job, codec).await;
        let record = succeeded(&mut redis, &job).await;
        let output = &record.fields["output"];
        assert!(output["text"].as_str().unwrap().contains("Paris"), "{output}");
        assert_eq!(output["finish_reason"], "stop");
        let count = ids(output).len() as u64;
        assert_eq!(record.count("/usage/output_tokens"), count);
        assert!(record.count("/usage/input_tokens") > 20, "the template's words count");
        assert!(record.count("/usage/device_us") > 0);
        let logprobs = output["logprobs"].as_array().unwrap();
        assert_eq!(logprobs.len() as u64, count);
        for (token, id) in logprobs.iter().zip(ids(output)) {
            assert_eq!(token["id"], id);
            assert_eq!(token["top"][0]["id"], id, "the likeliest one was taken");
        }
        assert!(
            stream(&mut redis, job.id()).await.is_empty(),
            "short, and its publisher does not follow it"
        );
    }
}

#[tokio::test]
async fn tokens_are_the_same_alone_and_beside_others_and_with_a_prefix_that_is_remembered() {
    let stack = Stack::start().await;
    let _worker = worker(&stack, &[]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let jobs = |count: u64| (0..count).map(|seed| long(seed, 24)).collect::<Vec<_>>();
    let alone = jobs(3);
    let mut expected = Vec::new();
    for job in &alone {
        publisher.submit(GENERATOR, job, Codec::Msgpack).await;
        expected.push(ids(&succeeded(&mut redis, job).await.fields["output"]));
    }
    assert_ne!(expected[0], expected[1], "each seed has its own");
    let together = jobs(12);
    publisher.submit_all(GENERATOR, &together, Codec::Msgpack).await;
    let mut cached = 0;
    for (n, job) in together.iter().enumerate() {
        let record = succeeded(&mut redis, job).await;
        if let Some(expected) = expected.get(n) {
            assert_eq!(ids(&record.fields["output"]), *expected, "job {n}");
        }
        cached += record.fields["usage"]["cached_tokens"].as_u64().unwrap_or(0);
    }
    assert!(cached > 0, "they share their prompt");
}

#[tokio::test]
async fn a_job_that_is_followed_has_its_tokens_in_its_stream_before_its_result() {
    let stack = Stack::start().await;
    let _worker = worker(&stack, &[]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let params = json!({"max_tokens": 200, "ignore_eos": true, "stream": true});
    let job = chat("Count.", &params);
    publisher.submit(INTERACTIVE, &job, Codec::Json).await;
    until_true("some tokens", PATIENT, async || !stream(&mut redis, job.id()).await.is_empty())
        .await;
    assert!(find(&mut redis, job.id()).await.is_none(), "the stream came with the result");
    let record = succeeded(&mut redis, &job).await;
    let (tokens, text) = whole(&stream(&mut redis, job.id()).await);
    let output = &record.fields["output"];
    assert_eq!(tokens, ids(output));
    assert_eq!(output["text"], text);
    assert_eq!(output["finish_reason"], "length");
    let ttl: i64 = redis.ttl(format!("forebay:tokens:{}", job.id())).await.unwrap();
    assert!((1..=600).contains(&ttl), "{ttl} s after the result");
}

#[tokio::test]
async fn outputs_keep_to_a_choice_a_schema_and_a_stop() {
    let stack = Stack::start().await;
    let _worker = worker(&stack, &[]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let choice =
        chat("Is water wet?", &json!({"response_format": {"choice": ["maybe", "no idea"]}}));
    let schema = json!({
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}, "warm": {"type": "boolean"}},
        "required": ["city", "warm"],
        "additionalProperties": false,
    });
    let format = json!({"response_format": {"json_schema": schema}, "max_tokens": 60});
    let guided = chat("Describe a city as JSON.", &format);
    let stopped =
        chat("What is the capital of France?", &json!({"stop": ["Paris"], "max_tokens": 32}));
    for job in [&choice, &guided, &stopped] {
        publisher.submit(GENERATOR, job, Codec::Json).await;
    }
    let text = |record: &Record| record.fields["output"]["text"].as_str().unwrap().to_owned();
    let chosen = text(&succeeded(&mut redis, &choice).await);
    assert!(["maybe", "no idea"].contains(&chosen.as_str()), "{chosen}");
    let city: serde_json::Value =
        serde_json::from_str(&text(&succeeded(&mut redis, &guided).await)).unwrap();
    assert!(city["warm"].is_boolean(), "{city}");
    let record = succeeded(&mut redis, &stopped).await;
    assert!(!text(&record).contains("Paris"), "{}", record.fields);
    assert_eq!(record.fields["output"]["finish_reason"], "stop");
}

#[tokio::test]
async fn what_can_not_be_generated_is_refused_with_its_reason() {
    let stack = Stack::start().await;
    let _worker = worker(&stack, &[]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let long = chat(&"word ".repeat(10_000), &json!({}));
    let unreadable = chat("Say.", &json!({"response_format": {"regex": "(["}}));
    let embed = Job::embed("text").of(GENERATOR);
    for (job, code, says) in [
        (&long, "input_too_long", "tokens"),
        (&unreadable, "invalid_request", "response_format"),
        (&embed, "task_not_supported", "it does: generate"),
    ] {
        publisher.submit(GENERATOR, job, Codec::Json).await;
        let record = result(&mut redis, job.id()).await;
        assert_eq!(record.error_code(), code, "{}", record.fields);
        assert!(record.error_message().contains(says), "{}", record.fields);
    }
}

#[tokio::test]
async fn a_running_job_that_is_cancelled_ends_soon_and_others_go_on() {
    let stack = Stack::start().await;
    let _worker = worker(&stack, &[]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let jobs = [long(1, 4_000), long(2, 100)];
    publisher.submit_all(GENERATOR, &jobs, Codec::Msgpack).await;
    until_true("it runs", PATIENT, async || !stream(&mut redis, jobs[0].id()).await.is_empty())
        .await;
    let () = redis.set(format!("forebay:cancel:{}", jobs[0].id()), 1).await.unwrap();
    let record = result(&mut redis, jobs[0].id()).await;
    assert_eq!((record.state(), record.error_code()), ("cancelled", "cancelled"));
    assert!(record.count("/usage/output_tokens") > 0, "what was computed is accounted for");
    succeeded(&mut redis, &jobs[1]).await;
}

#[tokio::test]
async fn a_worker_that_drains_hands_its_running_jobs_over_and_another_goes_on_with_them() {
    let stack = Stack::start().await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let jobs: Vec<Job> = (0..4).map(|seed| long(seed, 300)).collect();
    let mut first = worker(&stack, &[]).await;
    publisher.submit_all(GENERATOR, &jobs, Codec::Msgpack).await;
    for job in &jobs {
        until_true("it runs", PATIENT, async || !stream(&mut redis, job.id()).await.is_empty())
            .await;
    }
    first.signal("TERM");
    assert_eq!(first.exit_code(GRACE).await, 0);
    let log = first.log();
    let took = log.rsplit_once("took_ms=").expect("it drained").1;
    let took: u64 = took.split_whitespace().next().unwrap().parse().unwrap();
    assert!(took < 1_000, "{took} ms to hand four jobs over: {log}");
    let mut written = Vec::new();
    for job in &jobs {
        written.push(whole(&stream(&mut redis, job.id()).await).0);
    }

    let second = worker(&stack, &[]).await;
    let mut handed_over = Vec::new();
    for (job, written) in jobs.iter().zip(&written) {
        let record = succeeded(&mut redis, job).await;
        let ids = ids(&record.fields["output"]);
        assert_eq!(ids.len(), 300);
        assert_eq!(ids[..written.len()], written[..], "it went on from what was written");
        assert_eq!(whole(&stream(&mut redis, job.id()).await).0, ids);
        handed_over.push(ids);
    }
    let resumed = until("its figures", SOON, async || {
        let (_, metrics) = second.get("/metrics")?;
        let line = metrics.lines().find_map(|line| {
            line.strip_prefix("forebay_generate_resumed_tokens_total ").map(str::to_owned)
        })?;
        line.parse::<u64>().ok()
    })
    .await;
    assert_eq!(resumed, written.iter().map(|ids| ids.len() as u64).sum::<u64>());

    // The same bits as without any of that.
    let again: Vec<Job> = (0..4).map(|seed| long(seed, 300)).collect();
    publisher.submit_all(GENERATOR, &again, Codec::Msgpack).await;
    for (job, expected) in again.iter().zip(&handed_over) {
        assert_eq!(ids(&succeeded(&mut redis, job).await.fields["output"]), *expected);
    }
}
