//! The command line of the simulator.
// Doc comments on arguments are help texts: no markup.
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::Args;

use super::{contender::Contender, error::SimulateError};
use crate::decide::PoolPolicy;

/// Workers that a trace from a file needs on average, if nothing else is said.
pub(super) const MEAN_WORKERS: f64 = 4.0;
/// The largest fleet that is simulated.
const WORKERS_MAX: u32 = 1_000;
/// The most sequences of a worker that are simulated.
const SEQUENCES_MAX: u32 = 1_024;

/// The options of a simulation.
#[derive(Args, Clone, Debug)]
pub struct SimulateArgs {
    /// A CSV file, or square, sparse, diurnal, flash or shifts; several with commas between.
    #[arg(long = "trace", value_name = "TRACE", required = true, value_delimiter = ',')]
    pub traces: Vec<String>,
    /// forebay[:SECONDS], messages[:SECONDS] (forebay without tokens), keda[:JOBS], sagemaker[:JOBS], fixed:WORKERS,
    /// clairvoyant[:SECONDS]; several with commas between.
    #[arg(
        long = "policy",
        value_name = "POLICY",
        default_value = "forebay",
        value_delimiter = ','
    )]
    pub policies: Vec<Contender>,
    /// From a launch to the first job; several with commas between.
    #[arg(
        long = "cold-start",
        value_name = "SECONDS",
        default_value = "20",
        value_delimiter = ','
    )]
    pub cold_starts_s: Vec<f64>,
    /// Units of work that a worker does in a second. A unit of the generated traces is a second of a worker.
    #[arg(long, value_name = "UNITS", conflicts_with = "mean_workers")]
    pub rate: Option<f64>,
    /// Sets the rate such that the trace needs this many workers on average; for files the default, with 4.
    #[arg(long, value_name = "WORKERS")]
    pub mean_workers: Option<f64>,
    /// Sequences that a worker runs side by side: more than 1 is a model that generates text.
    #[arg(long, value_name = "SEQUENCES", default_value_t = 1)]
    pub sequences: u32,
    /// Never more workers.
    #[arg(long, value_name = "WORKERS", default_value_t = 32)]
    pub workers_max: u32,
    /// Never fewer workers under Forebay's policy.
    #[arg(long, value_name = "WORKERS", default_value_t = 0)]
    pub workers_min: u32,
    /// Forebay's target wait: workers are added when the backlog would take longer to work off.
    #[arg(long = "drain", value_name = "SECONDS", default_value_t = 15.0)]
    pub target_wait_s: f64,
    /// How long Forebay's workers may idle; without it, as long as is worth it.
    #[arg(long = "idle", value_name = "SECONDS")]
    pub idle_s: Option<f64>,
    /// The rate that Forebay assumes at first, by the true one: 0.5 is half.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub prior: f64,
    /// The wait of which the share within is printed.
    #[arg(long = "target-wait", value_name = "SECONDS", default_value_t = 30.0)]
    pub reported_wait_s: f64,
    /// The price of a worker's hour.
    #[arg(long, value_name = "PRICE", default_value_t = 1.0)]
    pub cost_per_hour: f64,
    /// Of the generated traces.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print lines of JSON.
    #[arg(long)]
    pub json: bool,
    /// Draw queue and workers over time into this file; with --sweep, the frontiers into this folder.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Print on standard error why Forebay changed the size, each time.
    #[arg(long)]
    pub explain: bool,
    /// Run all policies over their knobs, and print the frontiers and how Forebay stands against its peers.
    #[arg(long, alias = "compare", conflicts_with_all = ["policies", "explain"])]
    pub sweep: bool,
}

impl SimulateArgs {
    pub(super) fn check(&self) -> Result<(), SimulateError> {
        let positive = |name: &str, value: f64, least: f64, most: f64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(SimulateError::Option(format!("{name} is {value}; give {least} to {most}")))
        };
        for cold_start_s in &self.cold_starts_s {
            positive("--cold-start", *cold_start_s, 0.0, 86_400.0)?;
        }
        positive("--drain", self.target_wait_s, 0.001, 86_400.0)?;
        positive("--idle", self.idle_s.unwrap_or(1.0), 0.001, 86_400.0)?;
        positive("--prior", self.prior, 0.001, 1_000.0)?;
        positive("--rate", self.rate.unwrap_or(1.0), 1e-9, 1e12)?;
        positive("--mean-workers", self.mean_workers.unwrap_or(1.0), 1e-3, 1e6)?;
        positive("--target-wait", self.reported_wait_s, 0.0, 1e9)?;
        positive("--sequences", f64::from(self.sequences), 1.0, f64::from(SEQUENCES_MAX))?;
        let is_clairvoyant =
            |contender: &Contender| matches!(contender, Contender::Clairvoyant { .. });
        if self.sequences > 1 && self.policies.iter().any(is_clairvoyant) {
            return Err(SimulateError::Option(
                "clairvoyant plans one job at a time; leave --sequences out, or take another policy"
                    .into(),
            ));
        }
        if self.sequences > 1 && self.sweep && self.plot.is_some() {
            return Err(SimulateError::Option(
                "--plot draws no sweep with --sequences; leave one of them out".into(),
            ));
        }
        positive("--workers-max", f64::from(self.workers_max), 1.0, f64::from(WORKERS_MAX))?;
        positive("--workers-min", f64::from(self.workers_min), 0.0, f64::from(self.workers_max))?;
        let runs = self.traces.len() * self.cold_starts_s.len() * self.policies.len();
        if self.plot.is_some() && !self.sweep && runs > 1 {
            return Err(SimulateError::Option(format!(
                "--plot draws one run, not {runs}; give one trace, cold start and policy"
            )));
        }
        Ok(())
    }

    pub(super) fn policy(&self, jobs_per_s: f64, cold_start_s: f64) -> PoolPolicy {
        PoolPolicy {
            workers_min: self.workers_min,
            workers_max: self.workers_max,
            target_wait_s: self.target_wait_s,
            idle_s: self.idle_s,
            priority: 0,
            activation_jobs: 0,
            jobs_per_s_prior: jobs_per_s * self.prior,
            cold_start_s_prior: cold_start_s,
        }
    }
}
