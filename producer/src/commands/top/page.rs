//! Renders a view as lines: a pure function of the view and of the size of the page.

use forebay_schemas::{
    WorkerState,
    names::{DEAD, UNROUTABLE},
};

use super::{
    line::{Cell, Line, Style, bars, cell, foreign, table},
    view::{DecisionView, PoolView, View, WorkerView},
};
use crate::output::{grouped, span};

/// The size of a page; `None` is unlimited.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Page {
    pub(super) width: Option<usize>,
    pub(super) height: Option<usize>,
}

const MODEL_WIDTH: usize = 32;
const WORKER_WIDTH: usize = 40;
const DEVICE_WIDTH: usize = 16;
const SENTENCE_WIDTH: usize = 240;
const BARS_WIDTH: usize = 20;
/// Problems and decisions on a page of limited height.
const PROBLEMS_MAX: usize = 6;
const DECISIONS_MAX: usize = 6;
/// Decisions on a page of unlimited height.
const DECISIONS_ALL: usize = 20;
/// A worker that has jobs in flight and completes none for this long is highlighted.
const NO_PROGRESS_MS: u64 = 10_000;

impl Page {
    /// The lines of the page, the most urgent first, and no more than fit.
    pub(super) fn lines(&self, view: &View) -> Vec<Line> {
        let room = self.height.unwrap_or(usize::MAX);
        let mut lines = vec![header(view, self.height.is_some())];
        let problems = view
            .problems
            .iter()
            .map(|it| Line::of(Style::Bad, format!("! {}", foreign(it, SENTENCE_WIDTH))));
        lines.extend(shortened(problems.collect(), PROBLEMS_MAX.min(room / 4)));
        lines.extend(other_queues(view));
        let sections = [
            pools(&view.pools),
            workers(&view.workers),
            generators(&view.workers),
            decisions(view, self.height),
        ];
        let left = room.saturating_sub(lines.len());
        for section in share(sections, left) {
            if !section.is_empty() {
                lines.push(Line::default());
                lines.extend(section);
            }
        }
        lines.truncate(room);
        let width = self.width.unwrap_or(usize::MAX);
        lines.into_iter().map(|line| line.fitted(width)).collect()
    }
}

/// Shares the lines of a page: pools get up to half of them, decisions up to half of the rest, generators up to half of
/// what is left then, workers the others.
fn share([pools, workers, generators, decisions]: [Vec<Line>; 4], room: usize) -> [Vec<Line>; 4] {
    // With the blank line before each.
    let part = |lines: Vec<Line>, room: usize| {
        let lines = shortened(lines, (room / 2).saturating_sub(1));
        let taken = if lines.is_empty() { 0 } else { lines.len() + 1 };
        (lines, room.saturating_sub(taken))
    };
    let pools = shortened(pools, (room / 2).saturating_sub(1));
    let room = room.saturating_sub(pools.len() + 1);
    let (decisions, room) = part(decisions, room);
    let (generators, room) = part(generators, room);
    [pools, shortened(workers, room.saturating_sub(1)), generators, decisions]
}

fn shortened(mut lines: Vec<Line>, most: usize) -> Vec<Line> {
    if lines.len() > most {
        let missing = lines.len() - most.saturating_sub(1);
        lines.truncate(most.saturating_sub(1));
        if most > 0 {
            lines.push(Line::of(Style::Dim, format!("… {missing} more")));
        }
    }
    lines
}

fn header(view: &View, live: bool) -> Line {
    let mut cells = vec![cell(Style::Head, "forebay")];
    let mut add = |style, text: String| cells.push(cell(style, format!("   {text}")));
    match &view.leader {
        Some(leader) => {
            let id = foreign(&leader.id, WORKER_WIDTH);
            add(Style::Good, format!("leader {id}, token {}", leader.token));
            let age = span(leader.age_ms);
            let read = span(leader.config_age_ms);
            add(Style::Plain, format!("status {age} old, configuration read {read} ago"));
        }
        None if view.waits_for.contains(&"Redis") => {}
        None => add(Style::Warn, "no leader".to_owned()),
    }
    if !view.waits_for.is_empty() {
        add(Style::Dim, format!("waits for {}", view.waits_for.join(" and ")));
    }
    let [models, workers] = [view.pools.len(), view.workers.len()].map(|n| grouped(n as u64));
    add(Style::Plain, format!("models {models}, workers {workers}"));
    if live {
        add(Style::Dim, "q quits".to_owned());
    }
    Line(cells)
}

/// Dead and other messages, if there are any.
fn other_queues(view: &View) -> Option<Line> {
    let mut cells = vec![cell(Style::Head, "other queues")];
    cells.extend(view.other_queues.iter().map(|queue| {
        let style = match queue.info.name.as_str() {
            DEAD => Style::Bad,
            UNROUTABLE => Style::Warn,
            _ => Style::Plain,
        };
        let name = foreign(&queue.info.name, MODEL_WIDTH);
        cell(style, format!("   {name} {}", queue.info.ready.map_or_else(unknown, grouped)))
    }));
    (cells.len() > 1).then_some(Line(cells))
}

const POOL_HEADS: [&str; 15] = [
    "MODEL",
    "WANTED>",
    "MIN-MAX>",
    "START>",
    "READY>",
    "DRAIN>",
    "WAITING>",
    "BACKLOG",
    "IN HAND>",
    "IN/s>",
    "DONE/s>",
    "EACH/s>",
    "EMPTY IN>",
    "WORKERS",
    "LAUNCHER",
];

fn pools(pools: &[PoolView]) -> Vec<Line> {
    if pools.is_empty() {
        return Vec::new();
    }
    table(POOL_HEADS, pools.iter().map(pool).collect())
}

fn pool(pool: &PoolView) -> [Cell; 15] {
    let plain = |text: String| cell(Style::Plain, text);
    let count = |style, workers: u32| {
        cell(if workers == 0 { Style::Dim } else { style }, workers.to_string())
    };
    let bounds = pool.workers_min.zip(pool.workers_max);
    let bounds = bounds.map_or_else(unknown, |(min, max)| format!("{min}-{max}"));
    let has_no_worker = pool.waiting > Some(0) && pool.starting + pool.ready == 0;
    let waiting_style = if has_no_worker { Style::Bad } else { Style::Plain };
    let at_most = pool.wanted.is_some() && pool.wanted == pool.workers_max;
    let empty_in = pool.drain_time_s.map_or_else(unknown, |s| span((s.max(0.0) * 1e3) as u64));
    [
        cell(Style::Head, foreign(&pool.model, MODEL_WIDTH)),
        cell(
            if at_most { Style::Warn } else { Style::Plain },
            pool.wanted.map_or_else(unknown, |wanted| wanted.to_string()),
        ),
        plain(bounds),
        count(Style::Warn, pool.starting),
        count(Style::Good, pool.ready),
        count(Style::Warn, pool.draining),
        cell(waiting_style, pool.waiting.map_or_else(unknown, grouped)),
        plain(bars(pool.waiting_before.iter().copied(), BARS_WIDTH)),
        plain(pool.in_hand.map_or_else(unknown, grouped)),
        plain(rate(pool.arrivals_per_s)),
        plain(rate(pool.done_per_s)),
        plain(rate(pool.worker_jobs_per_s)),
        plain(empty_in),
        plain(bars(pool.workers_before.iter().copied().map(Some), BARS_WIDTH)),
        plain(pool.launcher.as_deref().map_or_else(unknown, |name| foreign(name, DEVICE_WIDTH))),
    ]
}

fn workers(workers: &[WorkerView]) -> Vec<Line> {
    if workers.is_empty() {
        return vec![Line::of(Style::Dim, "no worker is alive")];
    }
    let heads = [
        "WORKER",
        "MODEL",
        "STATE",
        "DEVICE",
        "IN FLIGHT>",
        "JOBS/s>",
        "TOKENS/s>",
        "BUSY>",
        "IDLE>",
        "UP>",
    ];
    table(heads, workers.iter().map(worker).collect())
}

fn worker(worker: &WorkerView) -> [Cell; 10] {
    let plain = |text: String| cell(Style::Plain, text);
    let record = &worker.record;
    let stuck_ms = worker.no_progress_ms.filter(|ms| *ms >= NO_PROGRESS_MS);
    let state = match (record.state, stuck_ms) {
        (_, Some(ms)) => cell(Style::Bad, format!("no progress for {}", span(ms))),
        (WorkerState::Starting, None) => cell(Style::Warn, "starting"),
        (WorkerState::Ready, None) => cell(Style::Good, "ready"),
        (WorkerState::Draining, None) => cell(Style::Warn, "draining"),
    };
    let busy = worker.busy.map_or_else(unknown, |busy| format!("{:.0} %", busy * 100.0));
    [
        plain(foreign(&record.id, WORKER_WIDTH)),
        plain(foreign(&record.model, MODEL_WIDTH)),
        state,
        plain(foreign(&format!("{} {}", record.device, record.dtype), DEVICE_WIDTH)),
        plain(grouped(record.in_flight)),
        plain(rate(worker.jobs_per_s)),
        plain(rate(worker.tokens_per_s)),
        plain(busy),
        cell(Style::Dim, worker.idle_ms.map_or_else(unknown, span)),
        plain(span(record.beat_at_ms.saturating_sub(record.started_at_ms))),
    ]
}

/// A line for each worker whose model generates text, if there are any.
fn generators(workers: &[WorkerView]) -> Vec<Line> {
    let rows: Vec<[Cell; 9]> = workers.iter().filter_map(generator).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let heads = [
        "GENERATOR",
        "SEQUENCES>",
        "WAIT>",
        "PROMPT/s>",
        "OUTPUT/s>",
        "TOKENS TO COME>",
        "A JOB>",
        "PAGES>",
        "PREFIX HITS>",
    ];
    table(heads, rows)
}

fn generator(worker: &WorkerView) -> Option<[Cell; 9]> {
    let it = worker.record.generate?;
    let plain = |text: String| cell(Style::Plain, text);
    let number = |count: Option<u64>| plain(count.map_or_else(unknown, grouped));
    let running = grouped(it.running);
    let sequences = it.running_max.map_or(running.clone(), |most| format!("{running}/{most}"));
    let to_come = it.running_tokens.zip(it.waiting_tokens);
    let to_come = to_come.map(|(running, waiting)| running.saturating_add(waiting));
    // Those that only remember prefixes are free as soon as they are needed.
    let used = it.pages.saturating_sub(it.pages_free);
    let pages = format!("{}/{}", grouped(used), grouped(it.pages));
    let full = it.pages > 0 && used.saturating_mul(10) >= it.pages.saturating_mul(9);
    let hits = it.prefix_hit_percent.map_or_else(unknown, |percent| format!("{percent} %"));
    Some([
        plain(foreign(&worker.record.id, WORKER_WIDTH)),
        plain(sequences),
        plain(grouped(it.waiting)),
        number(it.prompt_tokens_per_s),
        number(it.output_tokens_per_s),
        number(to_come),
        number(it.tokens_per_job),
        cell(if full { Style::Warn } else { Style::Plain }, pages),
        plain(hits),
    ])
}

fn decisions(view: &View, height: Option<usize>) -> Vec<Line> {
    if view.decisions.is_empty() {
        return Vec::new();
    }
    let most = if height.is_some() { DECISIONS_MAX } else { DECISIONS_ALL };
    let shown = view.decisions.iter().take(most).map(decision).collect();
    table(["AT (UTC)", "MODEL", "WORKERS>", "LAST DECISIONS"], shown)
}

fn decision(decision: &DecisionView) -> [Cell; 4] {
    let report = &decision.report;
    let style = if report.wanted > report.before { Style::Good } else { Style::Warn };
    [
        cell(Style::Plain, time_of_day(report.at_ms)),
        cell(Style::Plain, foreign(&decision.model, MODEL_WIDTH)),
        cell(style, format!("{} > {}", report.before, report.wanted)),
        cell(Style::Plain, foreign(&report.why, SENTENCE_WIDTH)),
    ]
}

fn unknown() -> String {
    "-".to_owned()
}

/// `0.3`, `41`, `1,200`
fn rate(per_s: Option<f64>) -> String {
    match per_s.filter(|per_s| per_s.is_finite() && *per_s >= 0.0) {
        None => unknown(),
        Some(per_s @ 0.0..9.95) => format!("{per_s:.1}"),
        Some(per_s) => grouped(per_s.round() as u64),
    }
}

/// `14:03:22`
fn time_of_day(at_ms: u64) -> String {
    let s = at_ms / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}
