//! Tests of views and pages: from the answers of the sources to rendered lines.

use std::time::Duration;

use forebay_client::QueueInfo;
use forebay_schemas::{
    DecisionReport, FleetStatus, GenerateRecord, PoolStatus, WorkerRecord, WorkerState,
};
use tokio::time::Instant;

use super::{
    page::Page,
    past::Past,
    source::{Latest, QueuesSeen, Seen},
    view::{View, remember},
};
use crate::queue_status::QueueStatus;

const NOW_MS: u64 = 1_700_000_000_000;

fn answered<T>(value: T) -> Latest<T> {
    Latest { value: Some(value), at: Some(Instant::now()), error: None }
}

fn fails<T>(error: &str) -> Latest<T> {
    Latest { error: Some(error.to_owned()), ..Latest::default() }
}

/// A worker `heartbeat` heartbeats after its start; it does 20 jobs of 10 tokens a heartbeat.
fn worker(id: &str, heartbeat: u64) -> WorkerRecord {
    WorkerRecord {
        id: id.to_owned(),
        model: "minilm".to_owned(),
        state: WorkerState::Ready,
        device: "cpu".to_owned(),
        dtype: "f32".to_owned(),
        host: "h".to_owned(),
        pid: 1,
        version: "0".to_owned(),
        started_at_ms: 5_000,
        beat_at_ms: 5_000 + heartbeat * 2_000,
        progress_at_ms: 5_000 + heartbeat * 2_000,
        in_flight: 4,
        jobs_done: heartbeat * 20,
        tokens_done: heartbeat * 200,
        busy_ms: heartbeat * 1_500,
        load_ms: 0,
        slots_free_tokens: 0,
        gpu: None,
        remote: None,
        generate: None,
        revision: None,
    }
}

fn queue(model: Option<&str>, name: &str, ready: u64) -> QueueStatus {
    let model = model.map(|model| model.parse().unwrap());
    let info =
        QueueInfo { name: name.to_owned(), model, lane: None, ready: Some(ready), consumers: 1 };
    QueueStatus { info, unacknowledged: None }
}

fn queues(ready: u64) -> Latest<QueuesSeen> {
    let queues = vec![
        queue(Some("minilm"), "forebay.jobs.minilm.interactive", 2),
        queue(Some("minilm"), "forebay.jobs.minilm.batch", ready),
        queue(None, "forebay.dead", 3),
        queue(None, "forebay.unroutable", 0),
    ];
    answered(QueuesSeen { queues, management_error: None })
}

fn status() -> FleetStatus {
    let decision = |ago_ms: u64, before, wanted, why: &str| DecisionReport {
        at_ms: NOW_MS - ago_ms,
        before,
        wanted,
        code: "backlog".to_owned(),
        why: why.to_owned(),
    };
    FleetStatus {
        v: 1,
        leader: "as-1".to_owned(),
        leads: true,
        token: 7,
        at_ms: NOW_MS - 1_000,
        config_read_at_ms: NOW_MS - 60_000,
        problems: vec![],
        pools: vec![PoolStatus {
            model: "minilm".to_owned(),
            launcher: "process".to_owned(),
            workers_min: 0,
            workers_max: 4,
            wanted: 3,
            starting: 1,
            ready: 2,
            draining: 0,
            jobs_ready: Some(1),
            jobs_ready_interactive: None,
            jobs_unacknowledged: Some(9),
            arrivals_per_s: 12.5,
            worker_jobs_per_s: 10.0,
            backlog_tokens: None,
            job_tokens: None,
            worker_tokens_per_s: None,
            cold_start_s: 4.0,
            drain_time_s: Some(40.0),
            circuits_open: 0,
            problems: vec!["no slot is free".to_owned()],
            decisions: vec![
                decision(5_000, 2, 3, "800 jobs wait for 2 workers"),
                decision(90_000, 0, 2, "jobs wait and there is no worker"),
            ],
        }],
    }
}

/// The answers of all sources after this many heartbeats.
fn seen(heartbeat: u64) -> Seen {
    Seen {
        status: answered(Some(status())),
        workers: answered(vec![worker("w-2", heartbeat), worker("w-1", heartbeat)]),
        queues: queues(100 * heartbeat),
    }
}

fn after_looks(looks: impl IntoIterator<Item = Seen>) -> View {
    let mut past = Past::default();
    let mut last = Seen::default();
    for seen in looks {
        remember(&mut past, &seen);
        last = seen;
    }
    View::of(&last, &past, NOW_MS)
}

fn page(view: &View, width: usize, height: usize) -> Vec<String> {
    let page = Page { width: Some(width), height: Some(height) };
    page.lines(view).iter().map(|line| line.text().trim_end().to_owned()).collect()
}

#[test]
fn a_page_shows_pools_workers_and_decisions() {
    let lines = page(&after_looks((0..=3).map(seen)), 150, 40);
    let expected = [
        "forebay   leader as-1, token 7   status 1 s old, configuration read 60 s ago   models 1, workers 2   q quits",
        "! minilm: no slot is free",
        "other queues   forebay.dead 3",
        "",
        concat!(
            "MODEL   WANTED  MIN-MAX  START  READY  DRAIN  WAITING  BACKLOG  IN HAND  ",
            "IN/s  DONE/s  EACH/s  EMPTY IN  WORKERS  LAUNCHER",
        ),
        concat!(
            "minilm       3      0-4      1      2      0      302  ▂▄▆█           9    ",
            "13      20      10      40 s  ████     process",
        ),
        "",
        "WORKER  MODEL   STATE  DEVICE   IN FLIGHT  JOBS/s  TOKENS/s  BUSY  IDLE   UP",
        "w-1     minilm  ready  cpu f32          4      10       100  75 %     -  6 s",
        "w-2     minilm  ready  cpu f32          4      10       100  75 %     -  6 s",
        "",
        "AT (UTC)  MODEL   WORKERS  LAST DECISIONS",
        "22:13:15  minilm    2 > 3  800 jobs wait for 2 workers",
        "22:11:50  minilm    0 > 2  jobs wait and there is no worker",
    ];
    assert_eq!(lines, expected, "{lines:#?}");
}

#[test]
fn of_workers_that_generate_text_tokens_pages_and_prefixes_are_shown() {
    let known = GenerateRecord {
        pages: 1_200,
        pages_free: 300,
        running: 31,
        waiting: 9,
        tokens: 70_000,
        running_max: Some(64),
        running_tokens: Some(9_000),
        waiting_tokens: Some(3_500),
        tokens_per_job: Some(412),
        prompt_tokens_per_s: Some(2_100),
        output_tokens_per_s: Some(800),
        pages_held: Some(880),
        bytes_per_token: Some(23_040),
        prefix_hit_percent: Some(37),
    };
    // One of an earlier version reports less; what is unknown is not zero.
    let earlier = GenerateRecord { pages: 10, pages_free: 10, running: 1, ..Default::default() };
    let mut seen = seen(1);
    let generating = |id, record| WorkerRecord { generate: Some(record), ..worker(id, 1) };
    seen.workers =
        answered(vec![generating("g-1", known), generating("g-2", earlier), worker("w-1", 1)]);
    let lines = page(&after_looks([seen]), 150, 40);
    let from = lines.iter().position(|line| line.starts_with("GENERATOR")).unwrap();
    let expected = [
        "GENERATOR  SEQUENCES  WAIT  PROMPT/s  OUTPUT/s  TOKENS TO COME  A JOB      PAGES  PREFIX HITS",
        "g-1            31/64     9     2,100       800          12,500    412  900/1,200         37 %",
        "g-2                1     0         -         -               -      -       0/10            -",
    ];
    assert_eq!(lines[from..from + 3], expected, "{lines:#?}");
}

#[test]
fn no_line_is_wider_and_no_page_longer_than_the_terminal() {
    let mut crowd = seen(1);
    crowd.workers = answered((0..200).map(|n| worker(&format!("w-{n:03}"), 1)).collect());
    let view = after_looks([crowd]);
    for (width, height) in [(0, 0), (1, 1), (20, 3), (40, 10), (80, 24), (300, 60)] {
        let lines = page(&view, width, height);
        assert!(lines.len() <= height, "{} lines in {height}", lines.len());
        let widest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(widest <= width, "{widest} columns in {width}");
    }
    let lines = page(&view, 80, 24);
    assert_eq!(lines.len(), 24, "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("… 189 more")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("800 jobs wait")), "{lines:#?}");
}

#[test]
fn without_an_autoscaler_queues_and_workers_are_shown_all_the_same() {
    let looks = (0..=1).map(|heartbeat| Seen { status: answered(None), ..seen(heartbeat) });
    let view = after_looks(looks);
    let lines = page(&view, 120, 30).join("\n");
    assert!(lines.contains("no leader"), "{lines}");
    assert!(lines.contains("start `forebay-autoscaler`"), "{lines}");
    let pool = &view.pools[0];
    assert_eq!((pool.ready, pool.waiting, pool.in_hand), (2, Some(102), Some(8)));
    assert_eq!((pool.wanted, pool.drain_time_s, pool.done_per_s), (None, None, Some(20.0)));
}

#[test]
fn what_waits_in_a_queue_without_a_leader_is_not_shown_as_nothing() {
    let mut cut_off = seen(1);
    cut_off.status = answered(None);
    for queue in &mut cut_off.queues.value.as_mut().unwrap().queues {
        queue.info.ready = None;
    }
    let view = after_looks([cut_off]);
    assert_eq!((view.pools[0].waiting, &view.pools[0].waiting_before[..]), (None, &[None][..]));
    let lines = page(&view, 150, 40).join("\n");
    assert!(lines.contains("forebay.dead -") && lines.contains("forebay.unroutable -"), "{lines}");
}

#[test]
fn unreachable_servers_are_named_once_and_their_last_answers_stay() {
    let away = "can't reach Redis at redis://h";
    let mut gone = seen(1);
    gone.status.error = Some(away.to_owned());
    gone.workers.error = Some(away.to_owned());
    gone.queues = fails("can't reach RabbitMQ at amqp://h");
    let view = after_looks([gone]);
    assert_eq!(view.problems[..2], [away, "can't reach RabbitMQ at amqp://h"]);
    assert_eq!((view.workers.len(), view.pools[0].waiting), (2, Some(1)), "from the status");

    let nothing = Seen {
        status: fails(away),
        workers: fails(away),
        queues: fails("can't reach RabbitMQ at amqp://h"),
    };
    let lines = page(&after_looks([nothing]), 80, 24).join("\n");
    assert!(lines.contains("Redis") && lines.contains("RabbitMQ"), "{lines}");
}

#[test]
fn an_old_answer_is_shown_with_its_age() {
    let mut gone = seen(1);
    gone.workers.at = Instant::now().checked_sub(Duration::from_secs(35));
    gone.workers.error = Some("away".to_owned());
    let problems = after_looks([gone]).problems;
    assert_eq!(problems[0], "away (what is shown is 30 s old)");
}

#[test]
fn before_the_first_answer_the_page_names_the_servers_it_waits_for() {
    let view = after_looks([Seen::default()]);
    assert!(view.problems.is_empty(), "{:?}", view.problems);
    assert!(page(&view, 80, 24)[0].contains("waits for Redis and RabbitMQ"));
}

#[test]
fn names_from_outside_move_no_cursor() {
    let mut seen = seen(1);
    let evil = "w\u{1b}[2J\u{9b}1A\r\u{202e}x";
    let mut hostile = worker(evil, 1);
    evil.clone_into(&mut hostile.model);
    evil.clone_into(&mut hostile.device);
    seen.workers = answered(vec![hostile]);
    let Some(Some(status)) = &mut seen.status.value else { panic!("a status") };
    status.leader = evil.to_owned();
    status.problems = vec![evil.to_owned()];
    evil.clone_into(&mut status.pools[0].decisions[0].why);
    evil.clone_into(&mut status.pools[0].launcher);
    let lines = page(&after_looks([seen]), 200, 50).join("");
    let moves = |c: char| c.is_control() || c == '\u{202e}';
    assert!(!lines.contains(moves), "{lines:?}");
    assert!(lines.contains("w[2J1Ax"), "{lines}");
}

#[test]
fn an_idle_worker_shows_for_how_long_and_a_hung_one_is_marked() {
    let idle = |heartbeat| WorkerRecord { in_flight: 0, jobs_done: 20, ..worker("w-1", heartbeat) };
    let hangs = |heartbeat| WorkerRecord { progress_at_ms: 5_000, ..worker("w-2", heartbeat) };
    let looks = (1..=6).map(|heartbeat| Seen {
        workers: answered(vec![idle(heartbeat), hangs(heartbeat)]),
        ..seen(heartbeat)
    });
    let view = after_looks(looks);
    assert_eq!((view.workers[0].idle_ms, view.workers[0].jobs_per_s), (Some(10_000), Some(0.0)));
    assert_eq!((view.workers[1].idle_ms, view.workers[1].no_progress_ms), (None, Some(12_000)));
    let lines = page(&view, 120, 30).join("\n");
    assert!(lines.contains("no progress for 12 s"), "{lines}");
}

#[test]
fn rates_need_two_heartbeats_and_start_over_with_a_restarted_worker() {
    // The same heartbeat seen twice is one.
    assert_eq!(after_looks([seen(1), seen(1)]).workers[0].jobs_per_s, None);
    let mut restarted = seen(5);
    let again = WorkerRecord { started_at_ms: 14_000, jobs_done: 0, ..worker("w-1", 5) };
    restarted.workers = answered(vec![again, worker("w-2", 5)]);
    let view = after_looks([seen(3), seen(4), restarted]);
    assert_eq!((view.workers[0].jobs_per_s, view.workers[1].jobs_per_s), (None, Some(10.0)));
}

#[test]
fn a_view_is_one_json_object_with_the_rates_beside_the_records() {
    let json = serde_json::to_value(after_looks((0..=1).map(seen))).unwrap();
    assert_eq!(json["leader"]["id"], "as-1");
    assert_eq!(json["workers"][0]["id"], "w-1");
    assert_eq!(json["workers"][0]["jobs_per_s"], 10.0);
    assert_eq!(json["pools"][0]["waiting_before"], serde_json::json!([2, 102]));
    assert_eq!(json["decisions"][0]["why"], "800 jobs wait for 2 workers");
    assert_eq!(json["other_queues"][0]["name"], "forebay.dead");
}

#[test]
fn the_history_is_bounded_and_forgets_workers_that_are_gone() {
    let mut past = Past::default();
    for heartbeat in 0..500 {
        remember(&mut past, &seen(heartbeat));
    }
    let view = View::of(&seen(499), &past, NOW_MS);
    assert_eq!(view.pools[0].waiting_before.len(), 60);
    remember(&mut past, &Seen::default());
    assert_eq!((past.samples("minilm").count(), past.pace("w-1")), (0, None));
}
