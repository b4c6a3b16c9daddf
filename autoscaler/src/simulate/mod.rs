//! The simulator: runs the scaling policy, and its peers, over a trace in virtual time.
//!
//! `forebay-autoscaler simulate` says how long jobs would have waited and what the workers would have cost. It calls
//! [`crate::decide::decide`], as the service does. A wait is from a job's arrival to the beginning of its service.
//! Workers serve first come first served, one job at a time, or with `--sequences` so many side by side. Worker-seconds
//! count from launch, the cold start included, to the stop; a draining encoder finishes its job, a generator gives them
//! back. A scale action is a moment at which the size wanted changes.

mod arguments;
pub mod clairvoyant;
pub mod contender;
pub mod error;
pub mod fleet;
pub mod forebay;
pub mod frontier;
pub mod generate;
pub mod outcome;
pub mod peers;
pub mod plot;
pub mod sweep;
pub mod tokens;
pub mod trace;
pub mod worker;

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use serde::Serialize;

pub use arguments::SimulateArgs;
use contender::{Contender, Workload};
pub use error::SimulateError;
use forebay::Explain;
use generate::{Shape, with_tokens};
use outcome::{Figures, Outcome};
use sweep::Sweep;
use trace::Arrival;
use worker::{Job, speed_up};

use crate::decide::PoolPolicy;

/// Samples of a plot over time: about one a pixel.
const SAMPLES: usize = 900;

/// A trace made into jobs.
struct Loaded {
    name: String,
    jobs: Vec<Job>,
    length_us: u64,
    /// Jobs that one worker does in a second.
    jobs_per_s: f64,
}

/// One run, for machines.
#[derive(Serialize)]
struct Ran {
    trace: String,
    cold_start_s: f64,
    policy: String,
    #[serde(flatten)]
    figures: Figures,
}

/// Runs the simulations that `args` ask for, and prints their figures.
pub fn run(args: &SimulateArgs) -> Result<(), SimulateError> {
    args.check()?;
    let traces = args
        .traces
        .iter()
        .map(|name| load(name, args))
        .collect::<Result<Vec<_>, SimulateError>>()?;
    match args.sweep {
        true if args.sequences > 1 => compare_units(args, &traces),
        true => sweeps(args, &traces),
        false => runs(args, &traces),
    }
}

fn runs(args: &SimulateArgs, traces: &[Loaded]) -> Result<(), SimulateError> {
    let mut out = io::stdout().lock();
    if !args.json {
        writeln!(
            out,
            "{:<12} {:>10} {:<18} {:>7} {:>9} {:>9} {:>9} {:>8} {:>14} {:>11} {:>8} {:>9}",
            "trace",
            "cold start",
            "policy",
            "jobs",
            "p50 s",
            "p95 s",
            "p99 s",
            "within",
            "worker-seconds",
            "cold starts",
            "actions",
            "cost"
        )?;
    }
    for loaded in traces {
        for cold_start_s in &args.cold_starts_s {
            for contender in &args.policies {
                let policy = args.policy(loaded.jobs_per_s, *cold_start_s);
                let workload = workload(args, loaded, *cold_start_s, &policy);
                let samples = if args.plot.is_some() { SAMPLES } else { 0 };
                let explain = args.explain.then(explain);
                let outcome = contender.run(&workload, samples, explain);
                report(&mut out, args, loaded, *cold_start_s, *contender, &outcome)?;
            }
        }
    }
    Ok(())
}

fn report(
    out: &mut impl Write,
    args: &SimulateArgs,
    loaded: &Loaded,
    cold_start_s: f64,
    contender: Contender,
    outcome: &Outcome,
) -> Result<(), SimulateError> {
    let trace = loaded.name.clone();
    let policy = contender.to_string();
    let figures = outcome.figures(args.reported_wait_s, args.cost_per_hour);
    if let Some(file) = &args.plot {
        let title = format!(
            "{trace}, {policy}, cold start {cold_start_s} s: p95 wait {:.1} s, {:.0} worker-seconds, {} scale actions",
            figures.wait_s_p95, figures.worker_s, figures.actions
        );
        save(file, &plot::run(&title, &outcome.samples))?;
    }
    let ran = Ran { trace, cold_start_s, policy, figures };
    if args.json {
        serde_json::to_writer(&mut *out, &ran).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    let f = &ran.figures;
    writeln!(
        out,
        "{:<12} {:>8} s {:<18} {:>7} {:>9.2} {:>9.2} {:>9.2} {:>7.1}% {:>14.0} {:>11} {:>8} {:>9.2}",
        ran.trace,
        ran.cold_start_s,
        ran.policy,
        f.jobs,
        f.wait_s_p50,
        f.wait_s_p95,
        f.wait_s_p99,
        f.within_target * 100.0,
        f.worker_s,
        f.cold_starts,
        f.actions,
        f.cost
    )?;
    Ok(())
}

fn sweeps(args: &SimulateArgs, traces: &[Loaded]) -> Result<(), SimulateError> {
    let mut out = io::stdout().lock();
    let mut all: Vec<Sweep> = Vec::new();
    for loaded in traces {
        let first = all.len();
        for cold_start_s in &args.cold_starts_s {
            let policy = args.policy(loaded.jobs_per_s, *cold_start_s);
            all.push(sweep::sweep(&loaded.name, &workload(args, loaded, *cold_start_s, &policy)));
        }
        if let Some(folder) = &args.plot {
            let file = folder.join(format!("frontiers-{}.svg", loaded.name));
            save(&file, &plot::frontiers(&all[first..]))?;
        }
    }
    if args.json {
        serde_json::to_writer(&mut out, &all).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    for sweep in &all {
        writeln!(out, "{}", sweep::frontiers(sweep))?;
    }
    writeln!(out, "{}\n{}", sweep::table(&all), sweep::table_at(&all, args.target_wait_s))?;
    Ok(())
}

/// Compares counting tokens with counting jobs, of models that generate text.
fn compare_units(args: &SimulateArgs, traces: &[Loaded]) -> Result<(), SimulateError> {
    let mut out = io::stdout().lock();
    let mut all = Vec::new();
    for loaded in traces {
        for cold_start_s in &args.cold_starts_s {
            let policy = args.policy(loaded.jobs_per_s, *cold_start_s);
            let workload = workload(args, loaded, *cold_start_s, &policy);
            all.push(tokens::compare(&loaded.name, &workload));
        }
    }
    if args.json {
        serde_json::to_writer(&mut out, &all).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", tokens::table(&all, args.target_wait_s))?;
    }
    Ok(())
}

fn load(name: &str, args: &SimulateArgs) -> Result<Loaded, SimulateError> {
    let (name, arrivals, length_s, rate) = if let Some(shape) = Shape::named(name) {
        // Their work is in seconds of a worker.
        (name.to_owned(), shape.draw(args.seed), shape.length_s(), args.rate.or(Some(1.0)))
    } else {
        let arrivals = trace::read(Path::new(name))?;
        let length_s = arrivals.last().map_or(0.0, |last| last.at_s).max(1e-3);
        let stem = Path::new(name).file_stem().unwrap_or_default();
        (stem.to_string_lossy().into_owned(), arrivals, length_s, args.rate)
    };
    let generates = args.sequences > 1;
    let arrivals = if generates { with_tokens(arrivals, args.seed) } else { arrivals };
    let work: f64 = arrivals.iter().map(|arrival| arrival.work).sum();
    let rate = match (args.mean_workers, rate) {
        (Some(workers), _) => work / length_s / workers,
        (None, Some(rate)) => rate,
        (None, None) => work / length_s / arguments::MEAN_WORKERS,
    };
    if !(rate.is_finite() && rate > 0.0) {
        return Err(SimulateError::Option(format!(
            "{name}: there is no work in it; give another trace"
        )));
    }
    // The rate is that of a worker which runs all it can; alone, a job has a part of that.
    let alone = speed_up(args.sequences);
    let job = |arrival: &Arrival| Job {
        at_us: (arrival.at_s * 1e6) as u64,
        service_us: (arrival.work / rate * alone * 1e6) as u64,
        tokens: arrival.tokens.filter(|_| generates),
    };
    let jobs_per_s = arrivals.len() as f64 / work * rate;
    let jobs = arrivals.iter().map(job).collect();
    Ok(Loaded { name, jobs, length_us: (length_s * 1e6) as u64, jobs_per_s })
}

fn workload<'a>(
    args: &SimulateArgs,
    loaded: &'a Loaded,
    cold_start_s: f64,
    policy: &'a PoolPolicy,
) -> Workload<'a> {
    let cold_start_us = (cold_start_s * 1e6) as u64;
    let Loaded { jobs, length_us, .. } = loaded;
    Workload { jobs, length_us: *length_us, cold_start_us, policy, slots: args.sequences }
}

/// Prints each change of size on standard error, so that figures stay alone on standard output.
fn explain() -> Explain {
    Box::new(|at_us, wanted, why| {
        // If standard error is gone, there is nothing to write to.
        let _ = writeln!(io::stderr(), "{:>9.1} s: {wanted}: {why}", at_us as f64 / 1e6);
    })
}

fn save(file: &Path, svg: &str) -> Result<(), SimulateError> {
    fs::write(file, svg).map_err(|source| SimulateError::Plot { file: file.into(), source })
}

#[cfg(test)]
mod tests;
