//! The commands for people: what they say is true, and a mistake is reported at once and by its name.

use forebay_tests::MODEL;
use forebay_tests::job::{Codec, Job};
use forebay_tests::model::require_weights;
use forebay_tests::oracle::{COSINE_MIN, cosine, rows};
use forebay_tests::patience::{SOON, until, until_true};
use forebay_tests::publisher::{BATCH, INTERACTIVE};
use forebay_tests::record::result;
use forebay_tests::stack::{Finished, SHARED_BODY_BYTES_MAX, SharedFleet, Stack};
use serde_json::{Value, json};

/// The JSON lines of a command that succeeded.
pub(super) fn json_lines(finished: &Finished) -> Vec<Value> {
    assert_eq!(finished.code, 0, "{finished:?}");
    finished
        .output
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

/// Expects the exit code and a message that names everything in `named`.
pub(super) fn assert_refused(finished: &Finished, code: i32, named: &[&str]) {
    assert_eq!(finished.code, code, "{finished:?}");
    for what in named {
        assert!(finished.errors.contains(what), "`{what}` is not named: {}", finished.errors);
    }
    assert!(finished.errors.len() < 2_000, "an error as long as a book: {}", finished.errors);
    assert!(!finished.errors.contains("panicked"), "{}", finished.errors);
    assert_eq!(finished.output, "", "results of a job that was refused");
}

async fn queue(stack: &Stack, name: &str) -> Value {
    let queues = json_lines(&stack.forebay(&["queues", "--json"]).await);
    queues
        .into_iter()
        .find(|queue| queue["name"] == name)
        .unwrap_or_else(|| panic!("no {name} is listed"))
}

#[tokio::test]
async fn queues_and_workers_are_listed_correctly_before_during_and_after_work() {
    let stack = Stack::start().await;
    let batch = "forebay.jobs.all-minilm-l6-v2.batch";
    let interactive = "forebay.jobs.all-minilm-l6-v2.interactive";
    for name in [batch, interactive, "forebay.dead", "forebay.unroutable"] {
        let queue = queue(&stack, name).await;
        assert_eq!((&queue["ready"], &queue["consumers"]), (&json!(0), &json!(0)), "{queue}");
    }
    assert!(json_lines(&stack.forebay(&["workers", "--json"]).await).is_empty());

    let publisher = stack.publisher().await;
    let jobs: Vec<Job> = (0..5).map(|n| Job::embed(format!("text {n}"))).collect();
    publisher.submit_all(BATCH, &jobs[..3], Codec::Json).await;
    publisher.submit_all(INTERACTIVE, &jobs[3..], Codec::Json).await;
    assert_eq!(queue(&stack, batch).await["ready"], 3);
    assert_eq!(queue(&stack, interactive).await["ready"], 2);

    let worker = stack.worker(&[]).await;
    let mut redis = stack.redis().await;
    for job in &jobs {
        result(&mut redis, job.id()).await;
    }
    let listed = until("the worker says that it has done five jobs", SOON, async || {
        let workers = json_lines(&stack.forebay(&["workers", "--json"]).await);
        assert_eq!(workers.len(), 1);
        workers.into_iter().find(|worker| worker["jobs_done"] == 5)
    })
    .await;
    let expected = json!({"model": MODEL, "state": "ready", "pid": worker.pid(), "device": "cpu", "in_flight": 0});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&listed[field], value, "{field} in {listed}");
    }
    let done = queue(&stack, batch).await;
    assert_eq!((&done["ready"], &done["consumers"]), (&json!(0), &json!(1)), "{done}");
    let table = stack.forebay(&["workers"]).await;
    assert!(table.output.contains(listed["id"].as_str().unwrap()), "{table:?}");
}

#[tokio::test]
async fn submitted_texts_come_back_as_their_vectors() {
    let fleet = SharedFleet::borrow().await;
    let row = rows().into_iter().last().unwrap();
    let finished =
        fleet.stack.forebay(&["submit", "--json", "--wait", "--model", MODEL, &row.text]).await;
    let lines = json_lines(&finished);
    assert_eq!(lines.len(), 1);
    let numbers = lines[0]["embedding"].as_array().expect("an embedding").iter();
    let vector: Vec<f32> = numbers.map(|x| x.as_f64().unwrap() as f32).collect();
    assert!(cosine(&vector, &row.embedding) >= COSINE_MIN);
}

#[tokio::test]
async fn a_job_can_be_submitted_got_and_waited_for_by_its_id() {
    let fleet = SharedFleet::borrow().await;
    let stack = &fleet.stack;
    let submitted = json_lines(
        &stack.forebay(&["submit", "--json", "--model", MODEL, "a text", "another"]).await,
    );
    assert_eq!(submitted.len(), 2);
    let id = submitted[0]["job"].as_str().unwrap();
    for command in ["wait", "get"] {
        let lines = json_lines(&stack.forebay(&[command, "--json", id]).await);
        assert_eq!((&lines[0]["id"], &lines[0]["state"]), (&json!(id), &json!("succeeded")));
    }
    let unknown = Job::embed("").id().to_owned();
    assert_refused(&stack.forebay(&["get", &unknown]).await, 1, &[&unknown]);
    assert_refused(&stack.forebay(&["wait", "--timeout", "1s", &unknown]).await, 1, &[&unknown]);
    assert_refused(&stack.forebay(&["get", "no id!"]).await, 2, &["no id!"]);
}

#[tokio::test]
async fn a_job_cancelled_by_command_before_a_worker_comes_is_not_done() {
    let stack = Stack::declared().await;
    let submitted =
        json_lines(&stack.forebay(&["submit", "--json", "--model", MODEL, "a text"]).await);
    let id = submitted[0]["job"].as_str().unwrap();
    assert_eq!(stack.forebay(&["cancel", id]).await.code, 0);
    let _worker = stack.worker(&[]).await;
    assert_eq!(result(&mut stack.redis().await, id).await.state(), "cancelled");
}

#[tokio::test]
async fn mistakes_in_a_job_are_reported_at_once_and_nothing_is_sent() {
    let stack = Stack::declared().await;
    let long = "x".repeat(SHARED_BODY_BYTES_MAX / 16);
    let cases: &[(&[&str], &[&str])] = &[
        (&["--model", "no-such-model", "text"], &["no-such-model", MODEL]),
        (&["--model", "No Model!", "text"], &["No Model!"]),
        (&["--model", MODEL, "--task", "translate", "text"], &["translate", "embed"]),
        (&["--model", MODEL, "--dimensions", "0", "text"], &["dimensions"]),
        (&["--model", MODEL, "--dimensions", "many", "text"], &["many"]),
        (&["--model", MODEL, "--batch", "3000", "text"], &["3000", "2048"]),
        (&["--model", MODEL, "--ttl", "0s", "text"], &["ttl"]),
        (&["--model", MODEL, "--lane", "fast", "text"], &["fast", "interactive"]),
        (&["--model", MODEL, "--metadata", "no-pair", "text"], &["no-pair"]),
        (&["--model", MODEL, "--file", "no-such-file.txt"], &["no-such-file.txt"]),
        (&["--model", MODEL], &["text"]),
    ];
    for (arguments, named) in cases {
        let finished = stack.forebay(&[&["submit"], *arguments].concat()).await;
        assert_refused(&finished, 2, named);
    }
    let mut limited = stack.program("forebay", &[("FOREBAY_LIMITS__BODY_BYTES_MAX", "65536")]);
    limited.args(["submit", "--model", MODEL, &long]);
    assert_refused(&stack.run(limited).await, 2, &["65536"]);
    assert_eq!(queue(&stack, "forebay.jobs.all-minilm-l6-v2.batch").await["ready"], 0);
}

#[tokio::test]
async fn a_task_that_the_model_does_not_do_fails_with_a_clear_message() {
    let fleet = SharedFleet::borrow().await;
    let finished = fleet
        .stack
        .forebay(&["submit", "--wait", "--model", MODEL, "--task", "classify", "text"])
        .await;
    assert_eq!(finished.code, 1, "{finished:?}");
    let said = [finished.output.as_str(), finished.errors.as_str()].concat();
    assert!(said.contains("task_not_supported") && said.contains("classify"), "{finished:?}");
}

#[tokio::test]
async fn wrong_configuration_ends_every_program_with_2_and_its_name() {
    let stack = Stack::start().await;
    let programs: [(&str, &[&str]); 3] = [
        ("forebay", &["queues"]),
        ("forebay-worker", &["--model", MODEL]),
        ("forebay-autoscaler", &[]),
    ];
    let wrong = [
        ("FOREBAY_WORKER__PREFETCH_BATHC", "7", "prefetch_batch"),
        ("FOREBAY_LIMITS__INPUTS_MAX", "lots", "FOREBAY_LIMITS__INPUTS_MAX"),
        ("FOREBAY_AMQP_URL", "not an address", "amqp_url"),
        ("FOREBAY_REDIS_URL", "not an address", "redis_url"),
    ];
    let mut complaints = Vec::new();
    for (program, arguments) in programs {
        for (name, value, named) in wrong {
            let mut command = stack
                .program(program, &[(name, value), ("FOREBAY_TELEMETRY__LISTEN", "127.0.0.1:0")]);
            command.args(arguments);
            let finished = stack.run(command).await;
            if finished.code != 2 || !finished.errors.contains(named) {
                complaints.push(format!("{program} with {name}: {finished:?}"));
            }
        }
        let mut command = stack.program(program, &[]);
        command.arg("--no-such-flag");
        assert_refused(&stack.run(command).await, 2, &["--no-such-flag"]);
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[tokio::test]
async fn printed_configuration_hides_the_passwords() {
    let stack = Stack::start().await;
    for program in ["forebay", "forebay-worker", "forebay-autoscaler"] {
        let mut command = stack.program(
            program,
            &[
                ("FOREBAY_AMQP_URL", "amqp://me:canary@broker.example"),
                ("FOREBAY_REDIS_URL", "redis://me:canary@store.example"),
            ],
        );
        command.arg("--print-config");
        let finished = stack.run(command).await;
        assert_eq!(finished.code, 0, "{finished:?}");
        assert!(finished.output.contains("broker.example"), "{finished:?}");
        assert!(
            !finished.output.contains("canary") && !finished.errors.contains("canary"),
            "{finished:?}"
        );
    }
}

#[tokio::test]
async fn a_worker_without_its_model_names_it_and_the_remedy() {
    require_weights();
    let stack = Stack::start().await;
    let mut command =
        stack.program("forebay-worker", &[("FOREBAY_TELEMETRY__LISTEN", "127.0.0.1:0")]);
    command.args(["--model", "no-such-model"]);
    let finished = stack.run(command).await;
    assert_ne!(finished.code, 0, "{finished:?}");
    for named in ["no-such-model", "forebay pull"] {
        assert!(finished.errors.contains(named), "{named}: {finished:?}");
    }
}

#[tokio::test]
async fn a_worker_that_starts_before_its_broker_waits_for_it() {
    let stack = Stack::start().await;
    let elsewhere =
        format!("amqp://guest:guest@127.0.0.1:{}/none", forebay_tests::ports::free_port());
    let mut worker = stack.starting_worker(&[("FOREBAY_AMQP_URL", elsewhere.as_str())]);
    until_true("it is alive and not ready", SOON, async || worker.readiness() == Some(503)).await;
    assert!(worker.is_running());
    assert_eq!(worker.get("/healthz").map(|(status, _)| status), Some(200));
    worker.signal("TERM");
    assert_eq!(worker.exit_code(SOON).await, 0);
}
