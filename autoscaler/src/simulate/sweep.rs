//! Sweeps every policy over its knob, and compares Forebay's frontier with the better one of its peers.

use std::fmt::Write;

use serde::Serialize;

use super::{
    contender::{Contender, Workload},
    frontier::{Frontier, Point},
};

/// Jobs a worker, from one to more than any backlog here.
const TARGETS: (f64, f64, i32) = (1.0, 1.25, 41);
/// Target waits, one second to some seven minutes.
const TARGET_WAITS_S: (f64, f64, i32) = (1.0, 1.35, 21);
/// Waits that the clairvoyant allows: 0, and 1 to 512 s.
const WAITS_S: (f64, f64, i32) = (1.0, 2.0, 10);
/// A scale action more or less is no difference to a peer that takes hardly any.
const ACTIONS_MIN: f64 = 1.0;
/// Below this, waits are as good as none.
const WAIT_S_MIN: f64 = 1e-3;

/// The policies over one trace with one cold start.
#[derive(Debug, Serialize)]
pub struct Sweep {
    /// The trace.
    pub trace: String,
    /// From launch to first job.
    pub cold_start_s: f64,
    /// Seconds of work, equal for all policies: none costs less.
    pub busy_s: f64,
    /// All points of Forebay's sweep.
    pub forebay: Vec<Point>,
    /// KEDA's frontier.
    pub keda: Frontier,
    /// `SageMaker`'s frontier.
    pub sagemaker: Frontier,
    /// Fleets of fixed size.
    pub fixed: Frontier,
    /// The limit.
    pub clairvoyant: Frontier,
    /// The criteria that Forebay is to meet.
    pub criteria: Criteria,
    /// Forebay against the better of KEDA and `SageMaker`, point by point.
    pub compared: Vec<Compared>,
}

/// The criteria at one cold start.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Criteria {
    /// Of the waits at equal worker-seconds.
    pub wait_ratio_max: f64,
    /// Of the worker-seconds at equal waits.
    pub cost_ratio_max: f64,
    /// Of KEDA's scale actions at equal worker-seconds.
    pub action_ratio_max: f64,
}

impl Criteria {
    fn at(cold_start_s: f64) -> Self {
        let wait_ratio_max = match cold_start_s {
            ..=2.0 => 0.5,
            ..=20.0 => 0.75,
            _ => 1.0,
        };
        Self { wait_ratio_max, cost_ratio_max: 0.75, action_ratio_max: 2.0 }
    }
}

/// A point of Forebay's against its peers. Nothing where the peers don't get there at all.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Forebay's p95 wait by that of the better peer at equal worker-seconds.
    pub wait_ratio: Option<f64>,
    /// Forebay's worker-seconds by those of the better peer at an equal p95 wait.
    pub cost_ratio: Option<f64>,
    /// The clairvoyant's worker-seconds by those of the better peer at that wait: how much room there is.
    pub cost_ratio_limit: Option<f64>,
    /// Forebay's scale actions by KEDA's at equal worker-seconds.
    pub action_ratio: Option<f64>,
    /// The clairvoyant's p95 wait at equal worker-seconds.
    pub clairvoyant_wait_s_p95: Option<f64>,
}

/// The settings of a knob: the first, the factor from one to the next, and how many.
pub(super) fn knobs((first, factor, count): (f64, f64, i32)) -> impl Iterator<Item = f64> {
    (0..count).map(move |n| first * factor.powi(n))
}

/// One policy with one setting over a workload.
pub(super) fn point(contender: Contender, workload: &Workload<'_>) -> Point {
    let outcome = contender.run(workload, 0, None);
    Point {
        policy: contender.to_string(),
        worker_s: outcome.worker_us as f64 / 1e6,
        wait_s_p95: outcome.wait_s(0.95),
        actions: outcome.actions,
    }
}

/// Runs everything.
pub fn sweep(trace: &str, workload: &Workload<'_>) -> Sweep {
    let point = |contender| point(contender, workload);
    let frontier =
        |contenders: &mut dyn Iterator<Item = Contender>| Frontier::of(contenders.map(point));
    let keda = frontier(&mut knobs(TARGETS).map(|target| Contender::Keda { target }));
    let sagemaker = frontier(&mut knobs(TARGETS).map(|target| Contender::SageMaker { target }));
    let sizes = 1..=workload.policy.workers_max;
    let fixed = frontier(&mut sizes.map(|workers| Contender::Fixed { workers }));
    let waits = [0.0].into_iter().chain(knobs(WAITS_S));
    let clairvoyant = frontier(&mut waits.map(|wait_s| Contender::Clairvoyant { wait_s }));
    let targets = knobs(TARGET_WAITS_S)
        .map(|target_wait_s| Contender::Forebay { target_wait_s: Some(target_wait_s) });
    let forebay: Vec<Point> = targets.map(point).collect();
    let better = Frontier::of(keda.0.iter().chain(&sagemaker.0).cloned());
    let compared =
        forebay.iter().map(|point| compare(point, &better, &keda, &clairvoyant)).collect();
    let cold_start_s = workload.cold_start_us as f64 / 1e6;
    Sweep {
        trace: trace.into(),
        cold_start_s,
        busy_s: workload.jobs.iter().map(|job| job.service_us as f64 / 1e6).sum(),
        forebay,
        keda,
        sagemaker,
        fixed,
        clairvoyant,
        criteria: Criteria::at(cold_start_s),
        compared,
    }
}

fn compare(point: &Point, better: &Frontier, keda: &Frontier, clairvoyant: &Frontier) -> Compared {
    let worker_s = point.worker_s;
    let wait_s = point.wait_s_p95.max(WAIT_S_MIN);
    let peer_s = better.at_wait_s(wait_s);
    let limit_s = clairvoyant.at_wait_s(wait_s);
    Compared {
        wait_ratio: better.at_worker_s(worker_s).map(|(peer, _)| wait_s / peer.max(WAIT_S_MIN)),
        cost_ratio: peer_s.map(|peer| worker_s / peer),
        cost_ratio_limit: peer_s.zip(limit_s).map(|(peer, limit)| limit / peer),
        action_ratio: keda
            .at_worker_s(worker_s)
            .map(|(_, actions)| point.actions as f64 / actions.max(ACTIONS_MIN)),
        clairvoyant_wait_s_p95: clairvoyant.at_worker_s(worker_s).map(|(wait_s, _)| wait_s),
    }
}

/// A ratio over the sweep: the middle, the worst, and how many points keep the line.
struct Line {
    /// Nothing if no peer gets to half of the points.
    middle: Option<f64>,
    worst: f64,
    kept: usize,
    points: usize,
}

impl Line {
    /// A point that no peer gets to is better than any ratio.
    fn of(ratios: impl Iterator<Item = Option<f64>>, most: f64) -> Option<Self> {
        let mut sorted: Vec<f64> = ratios.map(|ratio| ratio.unwrap_or(f64::NEG_INFINITY)).collect();
        sorted.sort_by(f64::total_cmp);
        let known = |ratio: &f64| Some(*ratio).filter(|ratio| ratio.is_finite());
        Some(Self {
            middle: known(sorted.get(sorted.len() / 2)?),
            worst: known(sorted.last()?)?,
            kept: sorted.partition_point(|ratio| *ratio <= most),
            points: sorted.len(),
        })
    }
}

/// The table of the criteria, as Markdown.
pub fn table(sweeps: &[Sweep]) -> String {
    let mut text = String::from(
        "| trace | cold start | p95 wait at equal cost | cost at equal p95 wait | the clairvoyant's \
         | scale actions of KEDA's |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for sweep in sweeps {
        let all = || sweep.compared.iter();
        let asked = sweep.criteria;
        let wait = asked.wait_ratio_max;
        let cost = asked.cost_ratio_max;
        let limits = all().filter(|point| point.cost_ratio_limit.is_some());
        let limit = Line::of(limits.map(|point| point.cost_ratio_limit), cost);
        // Where KEDA never costs so little, there is nothing to count.
        let actions = all().filter(|point| point.action_ratio.is_some());
        let actions = actions.map(|point| point.action_ratio);
        let cells = [
            cell(Line::of(all().map(|point| point.wait_ratio), wait), wait),
            cell(Line::of(all().map(|point| point.cost_ratio), cost), cost),
            limit
                .and_then(|line| line.middle)
                .map_or("–".into(), |middle| format!("{middle:.2}")),
            cell(Line::of(actions, asked.action_ratio_max), asked.action_ratio_max),
        ];
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {} s | {} |",
            sweep.trace,
            sweep.cold_start_s,
            cells.join(" | ")
        );
    }
    text
}

fn cell(line: Option<Line>, most: f64) -> String {
    let Some(line) = line else {
        return "no peer gets there".into();
    };
    let middle = match line.middle {
        Some(middle) if middle > most => format!("**{middle:.2}**"),
        Some(middle) => format!("{middle:.2}"),
        None => "no peer".into(),
    };
    format!("{middle} (worst {:.2}; {}/{} within {most})", line.worst, line.kept, line.points)
}

/// One setting of Forebay's beside what the others reach at its cost, as Markdown.
pub fn table_at(sweeps: &[Sweep], target_wait_s: f64) -> String {
    let mut text = String::from(
        "| trace | cold start | worker-seconds (busy) | p95 wait | KEDA | SageMaker | fixed | clairvoyant | actions \
         | KEDA's |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let nearest = |sweep: &Sweep| {
        let distance =
            |n: i32| (TARGET_WAITS_S.0 * TARGET_WAITS_S.1.powi(n) / target_wait_s).ln().abs();
        let at = (0..TARGET_WAITS_S.2).min_by(|a, b| distance(*a).total_cmp(&distance(*b)));
        sweep.forebay.get(at.unwrap_or(0) as usize).cloned()
    };
    for sweep in sweeps {
        let Some(point) = nearest(sweep) else { continue };
        let wait = |frontier: &Frontier| match frontier.at_worker_s(point.worker_s) {
            Some((wait_s, _)) => format!("{wait_s:.1} s"),
            None => "costs more".into(),
        };
        let keda_actions = sweep.keda.at_worker_s(point.worker_s);
        let _ = writeln!(
            text,
            "| {} | {} s | {:.0} ({:.0}) | {:.1} s | {} | {} | {} | {} | {} | {} |",
            sweep.trace,
            sweep.cold_start_s,
            point.worker_s,
            sweep.busy_s,
            point.wait_s_p95,
            wait(&sweep.keda),
            wait(&sweep.sagemaker),
            wait(&sweep.fixed),
            wait(&sweep.clairvoyant),
            point.actions,
            keda_actions.map_or("–".into(), |(_, actions)| format!("{actions:.0}")),
        );
    }
    text
}

/// The frontiers point by point, as text.
pub fn frontiers(sweep: &Sweep) -> String {
    let mut text = format!("{}, cold start {} s\n", sweep.trace, sweep.cold_start_s);
    let named = [
        ("keda", &sweep.keda),
        ("sagemaker", &sweep.sagemaker),
        ("fixed", &sweep.fixed),
        ("clairvoyant", &sweep.clairvoyant),
        ("forebay", &Frontier(sweep.forebay.clone())),
    ];
    for (_, Frontier(points)) in named {
        for point in points {
            let _ = writeln!(
                text,
                "  {:<18} {:>10.0} worker-seconds  p95 {:>9.1} s  {:>5} actions",
                point.policy, point.worker_s, point.wait_s_p95, point.actions
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_peer_reaches_is_better_than_any_ratio() {
        let line = Line::of([Some(0.9), None, Some(0.4)].into_iter(), 0.5).unwrap();
        assert_eq!((line.middle, line.kept, line.points), (Some(0.4), 2, 3));
        assert!((line.worst - 0.9).abs() < 1e-9);
        assert!(Line::of([None, None].into_iter(), 0.5).is_none());
    }

    #[test]
    fn the_line_follows_the_cold_start() {
        let most = [2.0, 20.0, 120.0].map(|cold_start_s| Criteria::at(cold_start_s).wait_ratio_max);
        assert!(
            most.into_iter().zip([0.5, 0.75, 1.0]).all(|(most, asked)| (most - asked).abs() < 1e-9)
        );
    }
}
