//! `forebay top`: shows what is there, says what is not, and leaves the terminal as it was.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use forebay_tests::child_guard::{ChildGuard, Streams};
use forebay_tests::job::{Codec, Job};
use forebay_tests::patience::{SOON, until, until_true};
use forebay_tests::ports::free_port;
use forebay_tests::publisher::BATCH;
use forebay_tests::stack::Stack;
use redis::AsyncCommands as _;
use serde_json::{Value, json};

use super::commands::json_lines;

const STATUS: &str = "forebay:autoscaler:status";

/// The status that a leader would publish of one pool.
fn status() -> Value {
    let decision =
        json!({"at_ms": 1, "before": 0, "wanted": 2, "code": "backlog", "why": "3 jobs wait"});
    let pool = json!({
        "model": "all-minilm-l6-v2", "launcher": "process", "workers_min": 0, "workers_max": 4, "wanted": 2,
        "starting": 2, "ready": 0, "draining": 0, "jobs_ready": 3, "jobs_unacknowledged": 0,
        "arrivals_per_s": 1.5, "worker_jobs_per_s": 10.0, "cold_start_s": 4.0, "drain_time_s": null,
        "problems": ["no slot is free"], "decisions": [decision],
    });
    json!({
        "v": 1, "leader": "leader-a", "leads": true, "token": 7, "at_ms": 1, "config_read_at_ms": 1,
        "problems": [], "pools": [pool],
    })
}

#[tokio::test]
async fn one_frame_has_pools_with_their_decisions_queues_and_dead_letters() {
    let stack = Stack::declared().await;
    let publisher = stack.publisher().await;
    let jobs: Vec<Job> = (0..3).map(|n| Job::embed(format!("text {n}"))).collect();
    publisher.submit_all(BATCH, &jobs, Codec::Json).await;
    publisher.submit("no-such-model", &Job::embed("text"), Codec::Json).await;
    let () = stack.redis().await.set(STATUS, status().to_string()).await.unwrap();

    let frame = json_lines(&stack.forebay(&["top", "--once", "--json"]).await).remove(0);
    assert_eq!(frame["leader"]["id"], "leader-a");
    let pool =
        frame["pools"].as_array().unwrap().iter().find(|it| it["model"] == "all-minilm-l6-v2");
    let pool = pool.expect("the pool");
    assert_eq!((&pool["waiting"], &pool["wanted"]), (&json!(3), &json!(2)), "{pool}");
    assert_eq!(frame["decisions"][0]["why"], "3 jobs wait");
    assert_eq!(frame["other_queues"][0]["name"], "forebay.unroutable", "{frame}");

    let page = stack.forebay(&["top", "--once"]).await;
    assert_eq!(page.code, 0, "{page:?}");
    for named in ["leader-a", "no slot is free", "0 > 2", "3 jobs wait", "forebay.unroutable 1"] {
        assert!(page.output.contains(named), "{named}: {}", page.output);
    }
    assert!(!page.output.contains('\u{1b}'), "terminal control without a terminal: {page:?}");
}

#[tokio::test]
async fn what_is_away_is_named_and_the_rest_is_shown() {
    let stack = Stack::declared().await;
    let nowhere = free_port();
    let amqp = format!("amqp://guest:guest@127.0.0.1:{nowhere}/x");
    let redis = format!("redis://127.0.0.1:{nowhere}");
    for (variable, address, named, shown) in [
        ("FOREBAY_REDIS_URL", &redis, "can't reach Redis", "all-minilm-l6-v2"),
        ("FOREBAY_AMQP_URL", &amqp, "RabbitMQ", "no autoscaler has published a status"),
    ] {
        let away = [(variable, address.as_str()), ("FOREBAY_BROKER__CONNECT_TIMEOUT_MS", "1000")];
        let mut command = stack.program("forebay", &away);
        command.args(["top", "--once"]);
        let page = stack.run(command).await;
        assert_eq!(page.code, 0, "{page:?}");
        assert!(page.output.contains(named) && page.output.contains(shown), "{page:?}");
    }
}

#[tokio::test]
async fn an_unreadable_status_is_a_problem_with_a_name() {
    let stack = Stack::declared().await;
    let () = stack.redis().await.set(STATUS, "{").await.unwrap();
    let page = stack.forebay(&["top", "--once"]).await;
    assert!(page.output.contains(STATUS), "{page:?}");
}

#[tokio::test]
async fn frames_go_on_as_json_lines_through_a_store_that_comes_and_goes() {
    let mut stack = Stack::declared().await;
    let mut command = stack.program("forebay", &[]);
    command.args(["top", "--json", "--every", "100ms"]);
    let folder = stack.store.folder().to_owned();
    let output = folder.join("frames");
    let errors = folder.join("frames.errors");
    let streams = Streams { input: None, output: output.clone(), errors, sweep: None };
    let mut top = ChildGuard::tie(&command, &streams);
    let redis_is_away = |away: bool| {
        let frame = last_frame(&output);
        let problems = frame.map(|frame| frame["problems"].to_string());
        problems.is_some_and(|problems| problems.contains("Redis at redis://") == away)
    };
    until_true("a frame", SOON, async || redis_is_away(false)).await;
    stack.store.kill();
    until_true("a frame without Redis", SOON, async || redis_is_away(true)).await;
    stack.store.restart().await;
    until_true("a frame with Redis again", SOON, async || redis_is_away(false)).await;
    top.signal("TERM");
    assert_eq!(until("it ends", SOON, async || top.exit_code()).await, 0);
}

/// The last line that is whole.
fn last_frame(output: &Path) -> Option<Value> {
    let text = fs::read_to_string(output).ok()?;
    let whole = &text[..=text.rfind('\n')?];
    Some(serde_json::from_str(whole.lines().last()?).expect("a line of JSON"))
}

#[tokio::test]
async fn without_a_terminal_it_says_what_to_ask_for() {
    let stack = Stack::start().await;
    let finished = stack.forebay(&["top"]).await;
    assert_eq!(finished.code, 2, "{finished:?}");
    assert!(finished.errors.contains("--once") && finished.output.is_empty(), "{finished:?}");
}

/// `script` gives it a terminal of its own, and what stands in its input types.
#[tokio::test]
async fn on_a_terminal_it_draws_until_q_and_gives_the_terminal_back() {
    let stack = Stack::declared().await;
    let top = stack.program("forebay", &[]);
    let words = [top.get_program()].into_iter().chain(top.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let mut command = Command::new("script");
    stack.address(&mut command);
    let inside = format!("stty cols 70 rows 12; {} top; echo ended $?; stty -a", words.join(" "));
    command.args(["--quiet", "--return", "--command", &inside, "/dev/null"]);
    let folder = stack.store.folder().to_owned();
    let input = folder.join("keys");
    let output = folder.join("screen");
    let errors = folder.join("screen.errors");
    let made = Command::new("mkfifo").arg(&input).status().unwrap();
    assert!(made.success());
    // Open at both ends, so that neither end waits for the other or sees it close.
    let mut keys = OpenOptions::new().read(true).write(true).open(&input).unwrap();
    let streams = Streams { input: Some(input), output: output.clone(), errors, sweep: None };
    let mut session = ChildGuard::tie(&command, &streams);
    let screen = || fs::read_to_string(&output).unwrap_or_default();
    until_true("a frame", SOON, async || screen().contains("all-minilm-l6-v2")).await;
    keys.write_all(b"q").unwrap();
    assert_eq!(until("it ends", SOON, async || session.exit_code()).await, 0);
    let screen = screen();
    let (shown, after) = screen.split_once("ended 0").expect("the exit code");
    assert!(shown.contains("\u{1b}[?1049h") && shown.contains("\u{1b}[?1049l"), "{shown:?}");
    assert!(shown.rfind("\u{1b}[?25h") > shown.rfind("\u{1b}[?25l"), "the cursor is back");
    assert!(after.contains(" icanon") && after.contains(" echo "), "{after}");
}
