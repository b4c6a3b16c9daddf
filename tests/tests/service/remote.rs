//! Remote models: workers that call another fleet's gateway, and what becomes of their jobs when it fails.

use std::time::{Duration, Instant};

use forebay_tests::endpoint::Reply;
use forebay_tests::far::{FAR, TwoFleets};
use forebay_tests::gateway::Gateway;
use forebay_tests::job::{Codec, Job};
use forebay_tests::model::TINY;
use forebay_tests::patience::{PATIENT, SOON, until, until_true};
use forebay_tests::record::{Record, result, result_within};
use forebay_tests::service::Service;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

const ERROR: Reply = Reply::Status(500, "", "{\"error\": {\"message\": \"it broke\"}}");
/// Many tries, so that only the circuit and the deadline end them.
const PATIENT_WORKER: &str =
    "tries_max = 50\ncircuit_failures = 2\ncircuit_open_ms = 1500\ntimeout_ms = 60000";

/// The near fleet with its own connections.
struct Fleets {
    both: TwoFleets,
    publisher: forebay_tests::publisher::Publisher,
    redis: MultiplexedConnection,
}

impl Fleets {
    async fn start(remote: &str) -> Self {
        let both = TwoFleets::start("bert", remote, "").await;
        let listed = both.near.forebay(&["queues"]).await;
        assert_eq!(listed.code, 0, "{listed:?}");
        let publisher = both.near.publisher().await;
        let redis = both.near.redis().await;
        Self { both, publisher, redis }
    }

    /// Publishes a job of the remote model.
    async fn submit(&self, text: &str) -> Job {
        let job = Job::embed(text).of(FAR);
        self.publisher.submit(FAR, &job, Codec::Msgpack).await;
        job
    }

    async fn record(&mut self, job: &Job) -> Record {
        result_within(&mut self.redis, job.id(), PATIENT).await
    }
}

/// The state of the circuit in the record of the only worker.
async fn circuit(redis: &mut MultiplexedConnection) -> Value {
    let keys: Vec<String> = redis.keys("forebay:worker:*").await.unwrap();
    let Some(key) = keys.first() else { return Value::Null };
    let record: Option<String> = redis.get(key).await.unwrap();
    let record: Value = serde_json::from_str(&record.unwrap_or_default()).unwrap_or_default();
    record["remote"]["circuit"].clone()
}

fn are_near(found: &[Vec<f32>], expected: &[Vec<f32>]) -> bool {
    let is_near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
    found.len() == expected.len() && found.concat().iter().zip(&expected.concat()).all(is_near)
}

fn says(worker: &Service, metric: &str) -> bool {
    worker.get("/metrics").is_some_and(|(_, text)| text.contains(metric))
}

#[tokio::test]
async fn a_remote_model_answers_as_the_endpoint_does() {
    // Two texts a call: a job of five is three calls.
    let mut fleets = Fleets::start("inputs_max = 2").await;
    let worker = fleets.both.worker(FAR, &[]).await;
    let gateway = Gateway::of(&fleets.both.near, &[]).await;
    let texts = json!(["water in a pool", "", "the gates open", "a", "b"]);
    let expected = fleets.both.far_gateway.vectors(TINY, &texts);
    assert!(are_near(&gateway.vectors(FAR, &texts), &expected));
    assert_eq!(fleets.both.endpoint.calls(), 3);
    let usage = |gateway: &Gateway, model: &str| {
        let body = json!({"model": model, "input": texts});
        gateway.post("/v1/embeddings", &body).body["usage"]["prompt_tokens"].clone()
    };
    let tokens = usage(&gateway, FAR);
    assert!(tokens.as_u64() > Some(0));
    assert_eq!(tokens, usage(&fleets.both.far_gateway, TINY), "the endpoint's own count");
    let job = fleets.submit("by the queue").await;
    let record = fleets.record(&job).await;
    assert_eq!((record.state(), record.vectors.len()), ("succeeded", 1), "{}", record.fields);
    assert!(record.count("/usage/input_tokens") > 0);
    assert_eq!(circuit(&mut fleets.redis).await, "closed");
    assert!(says(&worker, "forebay_remote_calls_total{outcome=\"ok\"}"));
}

#[tokio::test]
async fn vectors_are_read_as_floats_where_the_endpoint_knows_nothing_else() {
    let fleets = Fleets::start("encoding = \"float\"").await;
    let _worker = fleets.both.worker(FAR, &[]).await;
    let gateway = Gateway::of(&fleets.both.near, &[]).await;
    let texts = json!(["water in a pool"]);
    let expected = fleets.both.far_gateway.vectors(TINY, &texts);
    assert!(are_near(&gateway.vectors(FAR, &texts), &expected));
}

#[tokio::test]
async fn a_ranking_has_the_endpoint_s_relevance() {
    let both = TwoFleets::start("bert-rerank", "task = \"rerank\"\ninputs_max = 2", "").await;
    let _worker = both.worker(FAR, &[]).await;
    let gateway = Gateway::of(&both.near, &[]).await;
    let ranked = |gateway: &Gateway, model: &str| {
        let body =
            json!({"model": model, "query": "water", "documents": ["a pool", "a gate", "x"]});
        let answer = gateway.post("/v1/rerank", &body);
        let results = answer.body["results"].as_array().cloned();
        results.unwrap_or_else(|| panic!("{answer:?}"))
    };
    let found = ranked(&gateway, FAR);
    let expected = ranked(&both.far_gateway, TINY);
    assert_eq!(found.len(), 3);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found["index"], expected["index"]);
        let score = |result: &Value| result["relevance_score"].as_f64().unwrap();
        assert!((score(found) - score(expected)).abs() < 1e-4, "{found} {expected}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_endpoint_ends_the_job_with_its_own_words() {
    let mut fleets = Fleets::start("").await;
    let _worker = fleets.both.worker(FAR, &[]).await;
    for (status, body, code) in [
        (400, "{\"error\": {\"message\": \"too odd\"}}", "invalid_request"),
        (404, "{\"error\": \"too odd\"}", "model_not_found"),
        (413, "{\"message\": \"too odd\"}", "payload_too_large"),
    ] {
        fleets.both.endpoint.replies([Reply::Status(status, "", body)]);
        let before = fleets.both.endpoint.calls();
        let job = fleets.submit("a text").await;
        let record = fleets.record(&job).await;
        assert_eq!((record.state(), record.error_code()), ("failed", code), "{}", record.fields);
        assert!(record.error_message().contains("too odd"), "{}", record.fields);
        assert_eq!(fleets.both.endpoint.calls(), before + 1, "it is not asked again");
    }
}

#[tokio::test]
async fn a_pause_that_the_endpoint_asks_for_is_kept_and_costs_no_attempt() {
    let mut fleets = Fleets::start("tries_max = 1").await;
    let _worker = fleets.both.worker(FAR, &[]).await;
    let limited = Reply::Status(429, "retry-after-ms: 700\r\n", "{\"error\": \"slow down\"}");
    fleets.both.endpoint.replies([limited.clone(), limited]);
    let began = Instant::now();
    let job = fleets.submit("a text").await;
    let record = fleets.record(&job).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert!(began.elapsed() >= Duration::from_millis(1_400), "it was called too soon");
    assert_eq!((fleets.both.endpoint.calls(), record.count("/attempts")), (3, 1));
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_in_the_middle_loses_no_job() {
    let mut fleets = Fleets::start("").await;
    let _worker = fleets.both.worker(FAR, &[]).await;
    fleets.both.endpoint.replies([Reply::Cut, ERROR]);
    let job = fleets.submit("a text").await;
    let record = fleets.record(&job).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_eq!(fleets.both.endpoint.calls(), 3);
}

#[tokio::test]
async fn failures_that_go_on_end_a_job_with_the_last_reason() {
    let mut fleets = Fleets::start("tries_max = 2").await;
    let _worker = fleets.both.worker(FAR, &[("FOREBAY_WORKER__ATTEMPTS_MAX", "1")]).await;
    fleets.both.endpoint.replies([ERROR, ERROR]);
    let job = fleets.submit("a text").await;
    let record = fleets.record(&job).await;
    assert_eq!(record.error_code(), "attempts_exhausted", "{}", record.fields);
    assert!(record.error_message().contains("it broke"), "{}", record.fields);
}

#[tokio::test]
async fn the_circuit_opens_while_the_endpoint_fails_and_closes_when_it_is_back() {
    let mut fleets = Fleets::start(PATIENT_WORKER).await;
    let worker = fleets.both.worker(FAR, &[]).await;
    fleets.both.endpoint.replies(vec![ERROR; 1_000]);
    let mut jobs = vec![fleets.submit("the first").await];
    until_true("it opens", SOON, async || circuit(&mut fleets.redis).await == "open").await;
    assert_eq!(worker.readiness(), Some(503), "it says so");
    let calls = fleets.both.endpoint.calls();
    let began = Instant::now();
    for n in 0..20 {
        jobs.push(fleets.submit(&format!("job {n}")).await);
    }
    let probes = async || fleets.both.endpoint.calls() >= calls + 3;
    until_true("it is tried three times", PATIENT, probes).await;
    // A probe for each period, and not a call for each of 21 jobs.
    assert!(began.elapsed() >= Duration::from_secs(3), "three calls within two periods");
    fleets.both.endpoint.replies([]);
    for job in &jobs {
        let record = fleets.record(job).await;
        assert_eq!(record.state(), "succeeded", "{}", record.fields);
        assert_eq!(record.count("/attempts"), 1, "an open circuit costs no attempt");
    }
    until_true("it closes", SOON, async || circuit(&mut fleets.redis).await == "closed").await;
    until_true("it is ready", SOON, async || worker.readiness() == Some(200)).await;
}

#[tokio::test]
async fn a_job_that_expires_or_is_cancelled_while_the_endpoint_fails_is_not_called_for() {
    let mut fleets = Fleets::start(PATIENT_WORKER).await;
    let _worker = fleets.both.worker(FAR, &[]).await;
    fleets.both.endpoint.replies(vec![ERROR; 1_000]);
    let late = Job::embed("late").of(FAR).with("expires_in_ms", 800);
    fleets.publisher.submit(FAR, &late, Codec::Json).await;
    let cancelled = fleets.submit("cancelled").await;
    until_true("it opens", SOON, async || circuit(&mut fleets.redis).await == "open").await;
    let asked = fleets.both.near.forebay(&["cancel", cancelled.id()]).await;
    assert_eq!(asked.code, 0, "{asked:?}");
    let record = result(&mut fleets.redis, late.id()).await;
    assert_eq!(record.state(), "expired", "{}", record.fields);
    let record = fleets.record(&cancelled).await;
    assert_eq!(record.state(), "cancelled", "{}", record.fields);
}

#[tokio::test]
async fn a_worker_that_dies_during_a_call_loses_no_job() {
    let mut fleets = Fleets::start(PATIENT_WORKER).await;
    let worker = fleets.both.worker(FAR, &[]).await;
    fleets.both.endpoint.replies([Reply::Silence]);
    let job = fleets.submit("a text").await;
    until_true("it is called for", SOON, async || fleets.both.endpoint.calls() == 1).await;
    worker.signal("KILL");
    let _next = fleets.both.worker(FAR, &[]).await;
    let record = fleets.record(&job).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
}

#[tokio::test]
async fn a_worker_that_is_asked_to_stop_gives_back_what_waits_for_the_endpoint() {
    let mut fleets = Fleets::start(PATIENT_WORKER).await;
    let mut worker = fleets.both.worker(FAR, &[]).await;
    fleets.both.endpoint.replies(vec![ERROR; 1_000]);
    let job = fleets.submit("a text").await;
    until_true("it opens", SOON, async || circuit(&mut fleets.redis).await == "open").await;
    worker.signal("TERM");
    assert_eq!(worker.exit_code(SOON).await, 0);
    fleets.both.endpoint.replies([]);
    let _next = fleets.both.worker(FAR, &[]).await;
    let record = fleets.record(&job).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
}

#[tokio::test]
async fn an_api_key_is_sent_and_never_shown() {
    let both = TwoFleets::start("bert", "api_key_env = \"FAR_KEY\"", "").await;
    let mut without = both.starting_worker(FAR, &[]);
    assert_eq!(without.exit_code(SOON).await, 2);
    assert!(without.log().contains("the variable FAR_KEY"), "{}", without.log());
    let worker = both.worker(FAR, &[("FAR_KEY", "sk-very-secret")]).await;
    let gateway = Gateway::of(&both.near, &[]).await;
    gateway.vectors(FAR, &json!(["a text"]));
    let mut print = both.near.program("forebay-worker", &[("FAR_KEY", "sk-very-secret")]);
    print.arg("--print-config");
    let printed = both.near.run(print).await;
    assert!(printed.output.contains("api_key_env = \"FAR_KEY\""), "{printed:?}");
    assert!(!printed.output.contains("sk-very-secret") && !worker.log().contains("sk-very-secret"));
}

#[tokio::test]
async fn commands_for_model_files_pass_a_remote_model_by() {
    let both = TwoFleets::start("bert", "", "").await;
    let pulled = both.near.forebay(&["pull", FAR]).await;
    assert_eq!(pulled.code, 2, "{pulled:?}");
    assert!(pulled.errors.contains("has no files: it is remote:tiny at http://"), "{pulled:?}");
    let checked = both.near.forebay(&["check", FAR]).await;
    assert_eq!(checked.code, 2, "{checked:?}");
    let listed = both.near.forebay(&["models"]).await;
    assert!(listed.output.contains("remote:tiny at"), "{listed:?}");
    let mut embed = both.near.program("forebay-worker", &[]);
    embed.args(["embed", "--model", FAR]);
    let refused = both.near.run(embed).await;
    assert_eq!(refused.code, 2, "{refused:?}");
}

#[tokio::test]
async fn an_autoscaler_launches_workers_of_a_remote_model_with_its_key_and_without_a_device() {
    let both = TwoFleets::start("bert", "", "").await;
    let pools = forebay_tests::pools::Pools::new(both.near.store.folder());
    let url = both.endpoint.url();
    both.near.write_config(&format!(
        "{}[models.{FAR}.pool]\nmin = 1\nmax = 1\n[models.{FAR}.remote]\nurl = \"{url}\"\nmodel = \"{TINY}\"\n\
         api_key_env = \"FAR_KEY\"\n",
        // No slot for a worker that computes: one that calls needs none.
        pools.settings().replace("cpu_slots = 8", "cpu_slots = 1")
    ));
    let autoscaler = both.near.autoscaler(&[("FAR_KEY", "sk-1")]).await;
    let gateway = Gateway::of(&both.near, &[]).await;
    gateway.vectors(FAR, &json!(["a text"]));
    let pool = until("its worker is reported", SOON, async || {
        let status = forebay_tests::pools::status(&autoscaler)?;
        status["pools"][0].as_object().filter(|pool| pool["ready"] == 1).cloned()
    })
    .await;
    assert_eq!(pool["circuits_open"], 0, "{pool:?}");
    let mut redis = both.near.redis().await;
    let keys: Vec<String> = redis.keys("forebay:worker:*").await.unwrap();
    let record: String = redis.get(&keys[0]).await.unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["device"], "remote");
}
