//! `/status`: the fleet as the leader sees it, as JSON and as metrics.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use forebay_schemas::{FleetStatus, PoolStatus};
use metrics::gauge;

/// The last status of the fleet. Clones share it.
#[derive(Clone, Default)]
pub struct Board {
    last: Arc<Mutex<Option<FleetStatus>>>,
}

impl Board {
    /// Replaces the status.
    pub fn write(&self, status: FleetStatus) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }

    /// The page that shows it.
    pub fn page(&self) -> Router {
        Router::new().route("/status", get(show)).with_state(self.clone())
    }
}

async fn show(State(board): State<Board>) -> impl IntoResponse {
    match board.last.lock().unwrap_or_else(PoisonError::into_inner).clone() {
        Some(status) => Json(status).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "nothing has been seen yet\n").into_response(),
    }
}

/// Sets the metrics of one pool.
pub fn measure(pool: &PoolStatus, observed: bool, circuit_is_open: bool) {
    let model = || pool.model.clone();
    let set = |name: &'static str, value: f64| gauge!(name, "model" => model()).set(value);
    set("forebay_pool_workers_wanted", pool.wanted.into());
    set("forebay_pool_workers_min", pool.workers_min.into());
    set("forebay_pool_workers_max", pool.workers_max.into());
    let states = [("starting", pool.starting), ("ready", pool.ready), ("draining", pool.draining)];
    for (state, count) in states {
        gauge!("forebay_pool_workers", "model" => model(), "state" => state).set(count);
    }
    let jobs = [("ready", pool.jobs_ready), ("unacknowledged", pool.jobs_unacknowledged)];
    for (state, count) in jobs {
        // What could not be seen keeps its last value; `forebay_pool_observed` shows that it is old.
        if let Some(count) = count {
            gauge!("forebay_pool_jobs", "model" => model(), "state" => state).set(count as f64);
        }
    }
    set("forebay_pool_arrivals_per_second", pool.arrivals_per_s);
    set("forebay_pool_worker_jobs_per_second", pool.worker_jobs_per_s);
    let tokens = [
        ("forebay_pool_backlog_tokens", pool.backlog_tokens),
        ("forebay_pool_job_tokens", pool.job_tokens),
        ("forebay_pool_worker_tokens_per_second", pool.worker_tokens_per_s),
    ];
    for (name, value) in tokens {
        // Of pools that count jobs there is no such series.
        if let Some(value) = value {
            set(name, value);
        }
    }
    set("forebay_pool_cold_start_seconds", pool.cold_start_s);
    set("forebay_pool_drain_seconds", pool.drain_time_s.unwrap_or(0.0));
    set("forebay_pool_observed", f64::from(u8::from(observed)));
    let launcher = pool.launcher.clone();
    gauge!("forebay_launcher_circuit_open", "launcher" => launcher, "model" => model())
        .set(f64::from(u8::from(circuit_is_open)));
}
