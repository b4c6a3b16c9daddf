//! One trace from a client's request over HTTP and AMQP to the step on the device: headers, spans, log lines.

use forebay_tests::collector::{Collector, Taken};
use forebay_tests::gateway::Gateway;
use forebay_tests::job::{Codec, Job, properties};
use forebay_tests::model::TINY;
use forebay_tests::patience::{SOON, until, until_true};
use forebay_tests::ports;
use forebay_tests::record::result;
use forebay_tests::stack::{GRACE, Stack};
use forebay_tests::workload::Workload;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{PARENT}-{flags}")
}

fn question() -> Value {
    json!({"model": TINY, "input": ["water in a pool", "the gates open"]})
}

/// A job's properties with a position in a trace.
fn traced(job: &Job, codec: Codec, traceparent: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(traceparent.into()));
    properties(job.id(), codec).with_headers(headers)
}

/// The only span of a name.
fn one<'a>(spans: &'a [Taken], name: &str) -> &'a Taken {
    let mut found = spans.iter().filter(|taken| taken.span.name == name);
    let first = found.next().unwrap_or_else(|| panic!("no span {name}: {spans:#?}"));
    assert!(found.next().is_none(), "two spans {name}: {spans:#?}");
    first
}

/// The times of a span lie within those of another, but for the millisecond that the contract's times are whole ones.
fn lies_within(inner: &Taken, outer: &Taken) {
    let slack = 2_000_000;
    let (inner, outer) = (&inner.span, &outer.span);
    assert!(inner.start_time_unix_nano <= inner.end_time_unix_nano, "{inner:?}");
    assert!(
        inner.start_time_unix_nano + slack >= outer.start_time_unix_nano,
        "{inner:?} {outer:?}"
    );
    assert!(inner.end_time_unix_nano <= outer.end_time_unix_nano + slack, "{inner:?} {outer:?}");
}

#[tokio::test]
async fn one_trace_leads_from_a_request_over_http_and_amqp_to_the_device() {
    let collector = Collector::start();
    let (key, value) = collector.setting();
    let stack = Stack::start().await.tiny();
    let _worker = stack.worker(&[(key, &value)]).await;
    let gateway = Gateway::of(&stack, &[(key, &value)]).await;
    let headers = [("traceparent", &*traceparent(TRACE, "01")), ("tracestate", "a=b")];
    let answer = gateway.post_with("/v1/embeddings", &question(), &headers);
    assert_eq!(answer.status, 200, "{answer:?}");
    let stages = ["queue", "admit", "tokenize", "batch wait", "compute", "settle"];
    let ends = [&stages[..], &["process forebay.jobs", "POST /v1/embeddings"]].concat();
    let spans = collector.until(TRACE, &ends).await;

    let request = one(&spans, "POST /v1/embeddings");
    assert_eq!((request.parent().as_str(), request.service.as_str()), (PARENT, "forebay-gateway"));
    assert_eq!(request.attribute("http.response.status_code"), "200");
    assert_eq!(Some(&*request.attribute("forebay.request.id")), answer.header("x-request-id"));
    let call = one(&spans, &format!("embeddings {TINY}"));
    assert_eq!(call.parent(), request.id());
    let job = one(&spans, "process forebay.jobs");
    assert_eq!((job.parent(), job.service.as_str()), (call.id(), "forebay-worker"));
    assert_eq!(job.span.trace_state, "a=b", "what came beside it is passed on");
    for (attribute, expected) in [
        ("gen_ai.operation.name", "embeddings"),
        ("gen_ai.request.model", TINY),
        ("forebay.job.state", "succeeded"),
        ("forebay.job.attempt", "1"),
        ("messaging.system", "rabbitmq"),
    ] {
        assert_eq!(job.attribute(attribute), expected, "{attribute}");
    }
    let tokens = answer.body["usage"]["prompt_tokens"].to_string();
    assert_eq!(job.attribute("gen_ai.usage.input_tokens"), tokens);
    assert_eq!(call.attribute("messaging.message.id"), job.attribute("messaging.message.id"));
    for stage in stages {
        let stage = one(&spans, stage);
        assert_eq!(stage.parent(), job.id(), "{stage:?}");
        lies_within(stage, job);
    }
    lies_within(call, request);

    // A batch serves many traces: it is one of its own, linked with them in both directions.
    let batch = until("the batch's span", SOON, async || {
        collector.named("batch").into_iter().find(|batch| batch.links() == [job.id()])
    })
    .await;
    assert_ne!(batch.trace_id(), TRACE);
    assert_eq!(one(&spans, "compute").links(), [batch.id()]);
    assert_eq!(batch.attribute("forebay.batch.size"), "2");
}

#[tokio::test]
async fn a_client_decides_whether_its_trace_is_recorded_and_nonsense_begins_another() {
    let collector = Collector::start();
    let (key, value) = collector.setting();
    let stack = Stack::start().await.tiny();
    let _worker = stack.worker(&[(key, &value)]).await;
    let gateway = Gateway::of(&stack, &[(key, &value)]).await;
    let unsampled = traceparent(TRACE, "00");
    let ask = |parent: &str| {
        let answer = gateway.post_with("/v1/embeddings", &question(), &[("traceparent", parent)]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("x-request-id").unwrap().to_owned()
    };
    ask(&unsampled);
    let nonsense = format!("00-{}-{PARENT}-01", "0".repeat(32));
    let id = ask(&nonsense);
    // This one came later: what the first one was to export would be there by now.
    let request = until("a trace of its own", SOON, async || {
        let requests = collector.named("POST /v1/embeddings");
        requests.into_iter().find(|request| request.attribute("forebay.request.id") == id)
    })
    .await;
    assert_eq!(request.parent(), "", "it is the first of its trace");
    collector.until(&request.trace_id(), &["process forebay.jobs", "compute"]).await;
    assert_eq!(collector.trace(TRACE).len(), 0, "{:?}", collector.trace(TRACE));

    // A gateway that begins its own, none of which it records.
    let settings = [
        (key, value.as_str()),
        ("FOREBAY_TELEMETRY__TRACE_FROM_CLIENTS", "false"),
        ("FOREBAY_TELEMETRY__TRACE_RATIO", "0"),
    ];
    let mut strict = Gateway::of(&stack, &settings).await;
    let sampled = traceparent(TRACE, "01");
    let answer = strict.post_with("/v1/embeddings", &question(), &[("traceparent", &sampled)]);
    assert_eq!(answer.status, 200, "{answer:?}");
    strict.service.signal("TERM");
    assert_eq!(strict.service.exit_code(GRACE).await, 0);
    ask(&traceparent(&TRACE.replace('4', "5"), "01"));
    collector.until(&TRACE.replace('4', "5"), &["process forebay.jobs", "settle"]).await;
    assert_eq!(collector.trace(TRACE).len(), 0, "{:?}", collector.trace(TRACE));
}

#[tokio::test]
async fn jobs_straight_from_amqp_are_part_of_their_publisher_s_trace_and_the_last_are_not_lost() {
    let collector = Collector::start();
    let (key, value) = collector.setting();
    let mut workload = Workload::new().await;
    let mut worker = workload.stack.worker(&[(key, &value)]).await;
    let _autoscaler = workload.stack.autoscaler(&[(key, &value)]).await;
    let job = workload.job("water");
    let with_trace = traced(&job, Codec::Json, &traceparent(TRACE, "01"));
    workload.publisher.publish(TINY, &job.body(Codec::Json), with_trace).await;
    result(&mut workload.redis, job.id()).await;
    worker.signal("TERM");
    assert_eq!(worker.exit_code(GRACE).await, 0);
    let spans = collector.trace(TRACE);
    assert_eq!(one(&spans, "process forebay.jobs").parent(), PARENT);
    one(&spans, "settle");

    // One that no worker takes is settled by the autoscaler, in its own trace.
    let other = TRACE.replace('4', "6");
    let lost = Job::embed("x").of("no-such-model");
    let with_trace = traced(&lost, Codec::Json, &traceparent(&other, "01"));
    workload.publisher.publish("no-such-model", &lost.body(Codec::Json), with_trace).await;
    let spans = collector.until(&other, &["process forebay.jobs"]).await;
    let settled = one(&spans, "process forebay.jobs");
    assert_eq!((settled.parent().as_str(), &*settled.service), (PARENT, "forebay-autoscaler"));
    assert_eq!(settled.attribute("error.type"), "model_not_found");
}

#[tokio::test]
async fn a_collector_that_is_away_holds_up_no_request_and_its_spans_are_counted() {
    let endpoint = format!("http://127.0.0.1:{}", ports::free_port());
    let setting = ("FOREBAY_TELEMETRY__OTLP_ENDPOINT", endpoint.as_str());
    let stack = Stack::start().await.tiny();
    let worker = stack.worker(&[setting]).await;
    let gateway = Gateway::of(&stack, &[setting]).await;
    for _ in 0..20 {
        gateway.vectors(TINY, &json!("water"));
    }
    for service in [&worker, &gateway.service] {
        until_true("spans that failed are counted", SOON, async || {
            let (_, metrics) = service.get("/metrics").unwrap();
            let failed = "forebay_trace_spans_total{result=\"failed\"} ";
            metrics.lines().any(|line| line.strip_prefix(failed).is_some_and(|n| n != "0"))
        })
        .await;
        let log = service.log();
        assert_eq!(log.matches("can't export traces").count(), 1, "once for an outage:\n{log}");
        assert!(log.to_lowercase().contains("connection refused"), "it says why:\n{log}");
    }
}

#[tokio::test]
async fn without_export_log_lines_have_the_trace_and_the_request_all_the_same() {
    let workload = Workload::new().await;
    // Requests that run out of their time are logged for those who look for them.
    let filter = ("FOREBAY_TELEMETRY__LOG_FILTER", "forebay_gateway=debug,info,lapin=off");
    let gateway = Gateway::of(&workload.stack, &[filter]).await;
    let parent = traceparent(TRACE, "01");
    // No worker runs.
    let headers = [("traceparent", &*parent), ("x-stainless-read-timeout", "1")];
    let answer = gateway.post_with("/v1/embeddings", &question(), &headers);
    assert_eq!(answer.status, 503, "{answer:?}");
    let log = gateway.service.log();
    let id = answer.header("x-request-id").unwrap();
    let line = log.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains(TRACE), "{line}");

    // A message that a worker refuses is logged with its job's id and its trace.
    let job = workload.job("x").with("input", 7);
    let with_trace = traced(&job, Codec::Json, &parent);
    workload.publisher.publish(TINY, &job.body(Codec::Json), with_trace).await;
    let worker = workload.stack.worker(&[]).await;
    let line = until("the refusal is logged", SOON, async || {
        let log = worker.log();
        log.lines().find(|line| line.contains(job.id())).map(ToOwned::to_owned)
    })
    .await;
    assert!(line.contains(TRACE), "{line}");
}
