//! STUB for compiling the service until the policy is merged.
use serde::Serialize;
#[derive(Clone, Debug, PartialEq)]
pub struct PoolPolicy {
    pub workers_min: u32,
    pub workers_max: u32,
    pub drain_s: f64,
    pub idle_s: Option<f64>,
    pub activation_jobs: u64,
    pub jobs_per_s_prior: f64,
    pub cold_start_s_prior: f64,
}
#[derive(Clone, Copy, Debug, Default)]
pub struct Backlog {
    pub ready: u64,
    pub unacknowledged: u64,
    pub arrived_total: u64,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Ready,
    Draining,
}
#[derive(Clone, Debug)]
pub struct WorkerSeen {
    pub id: String,
    pub phase: Phase,
    pub age_ms: u64,
    pub in_flight: u64,
    pub jobs_done: u64,
    pub busy_ms: u64,
    pub cold_start_ms: Option<u64>,
}
#[derive(Clone, Debug)]
pub struct Observed {
    pub now_ms: u64,
    pub backlog: Option<Backlog>,
    pub workers: Vec<WorkerSeen>,
}
#[derive(Clone, Debug)]
pub struct Decision {
    pub wanted: u32,
    pub launch: u32,
    pub drain: Vec<String>,
    pub why: Why,
}
#[derive(Clone, Debug, Default, Serialize)]
pub struct Why {
    pub text: String,
}
#[derive(Debug, Default)]
pub struct Memory {
    idle_since: Option<u64>,
}
impl Memory {
    pub fn new() -> Self {
        Self::default()
    }
}
pub fn decide(p: &PoolPolicy, m: &mut Memory, s: &Observed) -> Decision {
    let active: Vec<_> = s.workers.iter().filter(|w| w.phase != Phase::Draining).collect();
    let n = active.len() as u32;
    let Some(b) = s.backlog else {
        return Decision { wanted: n, launch: 0, drain: vec![], why: Why::default() };
    };
    let work = b.ready + b.unacknowledged;
    if work > 0 {
        m.idle_since = None;
    } else {
        m.idle_since.get_or_insert(s.now_ms);
    }
    let idle =
        m.idle_since.is_some_and(|t| s.now_ms - t >= (p.idle_s.unwrap_or(5.0) * 1000.0) as u64);
    let want = if work > 0 {
        ((work as f64 / p.jobs_per_s_prior / p.drain_s).ceil() as u32).max(n)
    } else if idle {
        0
    } else {
        n
    };
    let want = want.clamp(p.workers_min, p.workers_max);
    let drain =
        active.iter().rev().take(n.saturating_sub(want) as usize).map(|w| w.id.clone()).collect();
    Decision {
        wanted: want,
        launch: want.saturating_sub(n),
        drain,
        why: Why { text: format!("{work} jobs") },
    }
}
impl Why {
    pub fn code(&self) -> &'static str {
        "x"
    }
    pub fn arrivals_per_s(&self) -> f64 {
        0.0
    }
    pub fn worker_jobs_per_s(&self) -> f64 {
        1.0
    }
    pub fn cold_start_s(&self) -> f64 {
        1.0
    }
}
impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
