//! Counting tokens beside counting jobs: the same policy with and without what workers report of tokens.

use std::fmt::Write;

use serde::Serialize;

use super::{
    contender::{Contender, Workload},
    frontier::{Frontier, Point},
    sweep::{knobs, point},
};

/// Target waits, one second to some two minutes.
const TARGET_WAITS_S: (f64, f64, i32) = (1.0, 1.35, 17);
/// Jobs a worker, of KEDA.
const TARGETS: (f64, f64, i32) = (1.0, 1.4, 21);
/// Below this, waits are as good as none.
const WAIT_S_MIN: f64 = 0.1;

/// One trace with one cold start.
#[derive(Debug, Serialize)]
pub struct Units {
    /// The trace.
    pub trace: String,
    /// From launch to first job.
    pub cold_start_s: f64,
    /// Forebay's points, by tokens.
    pub tokens: Vec<Point>,
    /// Forebay's points, by jobs.
    pub messages: Vec<Point>,
    /// KEDA's frontier, by messages.
    pub keda: Frontier,
    /// Fleets of fixed size.
    pub fixed: Frontier,
}

/// Runs all of them.
pub fn compare(trace: &str, workload: &Workload<'_>) -> Units {
    let point = |contender| point(contender, workload);
    let targets = || knobs(TARGET_WAITS_S).map(Some);
    let tokens = targets().map(|target_wait_s| point(Contender::Forebay { target_wait_s }));
    let messages = targets().map(|target_wait_s| point(Contender::Messages { target_wait_s }));
    let keda = knobs(TARGETS).map(|target| point(Contender::Keda { target }));
    let fixed = 1..=workload.policy.workers_max;
    let fixed = fixed.map(|workers| point(Contender::Fixed { workers }));
    Units {
        trace: trace.into(),
        cold_start_s: workload.cold_start_us as f64 / 1e6,
        tokens: tokens.collect(),
        messages: messages.collect(),
        keda: Frontier::of(keda),
        fixed: Frontier::of(fixed),
    }
}

/// The wait at a frontier for this cost, as text.
fn wait_at(frontier: &Frontier, worker_s: f64) -> String {
    match frontier.at_worker_s(worker_s) {
        Some((wait_s, _)) => format!("{wait_s:.1} s"),
        None => "costs more".into(),
    }
}

/// A table as Markdown: the setting nearest to a target wait, what the others wait at its cost, and the ratio of waits
/// at equal costs over the whole sweep.
pub fn table(all: &[Units], target_wait_s: f64) -> String {
    let mut text = String::from(
        "| trace | cold start | worker-hours | p95 wait by tokens | by messages | KEDA | fixed | actions | by messages \
         | ratio of waits over the sweep |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for units in all {
        let distance =
            |n: i32| (TARGET_WAITS_S.0 * TARGET_WAITS_S.1.powi(n) / target_wait_s).ln().abs();
        let nearest = (0..TARGET_WAITS_S.2).min_by(|a, b| distance(*a).total_cmp(&distance(*b)));
        let Some(point) = units.tokens.get(nearest.unwrap_or(0) as usize) else { continue };
        let messages = Frontier::of(units.messages.iter().cloned());
        let actions = messages.at_worker_s(point.worker_s);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {} s | {:.1} | {:.1} s | {} | {} | {} | {} | {} | {} |",
            units.trace,
            units.cold_start_s,
            point.worker_s / 3_600.0,
            point.wait_s_p95,
            wait_at(&messages, point.worker_s),
            wait_at(&units.keda, point.worker_s),
            wait_at(&units.fixed, point.worker_s),
            point.actions,
            actions.map_or("–".into(), |(_, actions)| format!("{actions:.0}")),
            ratios(&units.tokens, &messages),
        );
    }
    text
}

/// The middle and the worst ratio of waits at equal costs, and at how many points tokens wait no longer.
fn ratios(tokens: &[Point], messages: &Frontier) -> String {
    let ratio = |point: &Point| {
        let (wait_s, _) = messages.at_worker_s(point.worker_s)?;
        Some(point.wait_s_p95.max(WAIT_S_MIN) / wait_s.max(WAIT_S_MIN))
    };
    // Where counting jobs costs more at any target, there is nothing to compare with.
    let mut ratios: Vec<f64> = tokens.iter().filter_map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let kept = ratios.iter().filter(|ratio| **ratio <= 1.0).count();
    match (ratios.get(ratios.len() / 2), ratios.last()) {
        (Some(middle), Some(worst)) => {
            format!("{middle:.2} (worst {worst:.2}; {kept}/{} at most 1)", ratios.len())
        }
        _ => "by messages it always costs more".into(),
    }
}
