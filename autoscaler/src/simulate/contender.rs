//! The policies by name, and how one is run over a workload.

use std::{fmt, str::FromStr};

use super::{
    clairvoyant,
    fleet::{self, Setting},
    forebay::{Explain, Forebay},
    outcome::Outcome,
    peers::{Fixed, Keda, SageMaker},
    worker::Job,
};
use crate::decide::PoolPolicy;

/// KEDA's target if none is given; the sweep covers the others.
const KEDA_TARGET: f64 = 20.0;
/// `SageMaker`'s target if none is given; the sweep covers the others.
const SAGEMAKER_TARGET: f64 = 5.0;
/// The largest fixed fleet that is simulated.
const FIXED_MAX: u32 = 10_000;

/// A policy and its knob.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Contender {
    /// Forebay's own, by its target wait in seconds.
    Forebay {
        /// `None`: the one of the run's options.
        target_wait_s: Option<f64>,
    },
    /// Forebay's own without what workers report of tokens, by its target wait in seconds.
    Messages {
        /// `None`: the one of the run's options.
        target_wait_s: Option<f64>,
    },
    /// By messages a worker.
    Keda {
        /// Messages a worker.
        target: f64,
    },
    /// By backlog an instance.
    SageMaker {
        /// Jobs an instance.
        target: f64,
    },
    /// A fixed number of workers.
    Fixed {
        /// How many.
        workers: u32,
    },
    /// One that knows the future, by the wait that it allows.
    Clairvoyant {
        /// The wait in seconds.
        wait_s: f64,
    },
}

/// The name of an unknown policy.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no policy; give forebay[:SECONDS], messages[:SECONDS], keda[:JOBS], sagemaker[:JOBS], fixed:WORKERS or \
     clairvoyant[:SECONDS]"
)]
pub struct UnknownPolicy(String);

impl FromStr for Contender {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        let wrong = || UnknownPolicy(text.into());
        let (name, knob) = match text.split_once(':') {
            Some((name, knob)) => {
                let knob = knob.parse::<f64>().ok().filter(|knob| (0.0..=1e9).contains(knob));
                (name, Some(knob.ok_or_else(wrong)?))
            }
            None => (text, None),
        };
        let above_zero = |knob: f64| if knob > 0.0 { Ok(knob) } else { Err(wrong()) };
        Ok(match (name, knob) {
            ("forebay", None) => Self::Forebay { target_wait_s: None },
            ("forebay", Some(target_wait_s)) => {
                Self::Forebay { target_wait_s: Some(above_zero(target_wait_s)?) }
            }
            ("messages", knob) => {
                Self::Messages { target_wait_s: knob.map(above_zero).transpose()? }
            }
            ("keda", knob) => Self::Keda { target: above_zero(knob.unwrap_or(KEDA_TARGET))? },
            ("sagemaker", knob) => {
                Self::SageMaker { target: above_zero(knob.unwrap_or(SAGEMAKER_TARGET))? }
            }
            ("fixed", Some(knob)) if knob.fract() == 0.0 && knob <= f64::from(FIXED_MAX) => {
                Self::Fixed { workers: knob as u32 }
            }
            ("clairvoyant", knob) => Self::Clairvoyant { wait_s: knob.unwrap_or(0.0) },
            _ => return Err(wrong()),
        })
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forebay { target_wait_s: None } => to.write_str("forebay"),
            Self::Forebay { target_wait_s: Some(target_wait_s) } => {
                write!(to, "forebay:{}", short(*target_wait_s))
            }
            Self::Messages { target_wait_s: None } => to.write_str("messages"),
            Self::Messages { target_wait_s: Some(target_wait_s) } => {
                write!(to, "messages:{}", short(*target_wait_s))
            }
            Self::Keda { target } => write!(to, "keda:{}", short(*target)),
            Self::SageMaker { target } => write!(to, "sagemaker:{}", short(*target)),
            Self::Fixed { workers } => write!(to, "fixed:{workers}"),
            Self::Clairvoyant { wait_s } => write!(to, "clairvoyant:{}", short(*wait_s)),
        }
    }
}

/// Three digits are enough to distinguish knobs.
fn short(knob: f64) -> String {
    let digits = usize::from(knob < 100.0 && knob.fract() != 0.0);
    format!("{knob:.digits$}")
}

/// Jobs, and the fleet they are given to.
pub struct Workload<'a> {
    /// In order of arrival.
    pub jobs: &'a [Job],
    /// Of the trace.
    pub length_us: u64,
    /// From launch to first job.
    pub cold_start_us: u64,
    /// Forebay's policy; the peers take their limits from it.
    pub policy: &'a PoolPolicy,
    /// The jobs that a worker runs side by side.
    pub slots: u32,
}

impl Contender {
    /// Runs it to the end of the trace or of the last job. `explain` is called at each change of Forebay's size.
    pub fn run(self, workload: &Workload<'_>, samples: usize, explain: Option<Explain>) -> Outcome {
        let most = workload.policy.workers_max;
        let cold_start_us = workload.cold_start_us;
        let length_us = workload.length_us;
        let slots = workload.slots;
        let setting = Setting { cold_start_us, length_us, workers_at_start: 0, slots, samples };
        match self {
            Self::Forebay { target_wait_s } | Self::Messages { target_wait_s } => {
                let target_wait_s = target_wait_s.unwrap_or(workload.policy.target_wait_s);
                let policy = PoolPolicy { target_wait_s, ..workload.policy.clone() };
                let mut forebay = Forebay::new(policy);
                if matches!(self, Self::Messages { .. }) {
                    forebay = forebay.by_messages();
                }
                if let Some(explain) = explain {
                    forebay = forebay.explaining(explain);
                }
                fleet::run(workload.jobs, setting, &mut forebay)
            }
            Self::Keda { target } => {
                fleet::run(workload.jobs, setting, &mut Keda::new(target, most))
            }
            Self::SageMaker { target } => {
                fleet::run(workload.jobs, setting, &mut SageMaker::new(target, most))
            }
            Self::Fixed { workers } => {
                let setting = Setting { workers_at_start: workers, ..setting };
                fleet::run(workload.jobs, setting, &mut Fixed)
            }
            Self::Clairvoyant { wait_s } => {
                clairvoyant::plan(workload.jobs, cold_start_us, most, (wait_s * 1e6) as u64)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in [
            "forebay",
            "forebay:15",
            "messages:15",
            "keda:20",
            "sagemaker:2.5",
            "fixed:4",
            "clairvoyant:0",
        ] {
            assert_eq!(name.parse::<Contender>().unwrap().to_string(), name);
        }
        assert_eq!("keda".parse::<Contender>().unwrap(), Contender::Keda { target: 20.0 });
    }

    #[test]
    fn an_unknown_policy_is_refused_with_the_known_ones() {
        for name in
            ["", "kda", "keda:0", "keda:x", "fixed", "fixed:1.5", "forebay:-1", "fixed:99999"]
        {
            let error = name.parse::<Contender>().unwrap_err().to_string();
            assert!(error.contains("fixed:WORKERS"), "{error}");
        }
    }
}
