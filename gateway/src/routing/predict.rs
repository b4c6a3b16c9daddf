//! How long one more request to a model will wait, from what the autoscaler reports of its queues and workers.

use std::{sync::Arc, time::Duration};

use forebay_client::Client;
use forebay_schemas::{FleetStatus, Lane, ModelId, PoolStatus};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::choose::Outlook;

/// How long a status is used. The autoscaler writes one each tick, half a second by default.
const FRESH: Duration = Duration::from_secs(1);
/// The longest that requests wait for a newer one, once in that time. A store that takes longer has other troubles.
const READ_MAX: Duration = Duration::from_millis(250);

/// The outlooks of all models. Replicas each ask Redis once a second while requests come, and not otherwise.
#[derive(Debug)]
pub struct Outlooks {
    client: Client,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    status: Option<Arc<FleetStatus>>,
    asked_at: Option<Instant>,
}

impl Outlooks {
    /// The outlooks that the fleet behind `client` reports.
    pub fn new(client: Client) -> Self {
        Self { client, kept: Mutex::default() }
    }

    /// The outlook of one more job of each model in a lane; unknown where no autoscaler reports it.
    pub async fn of<'a>(
        &self,
        models: impl Iterator<Item = &'a ModelId>,
        lane: Lane,
    ) -> Vec<Outlook> {
        let status = self.status().await;
        let of_one = |model: &ModelId| {
            let pools = status.iter().flat_map(|status| &status.pools);
            let pool = pools.into_iter().find(|pool| pool.model == model.as_str());
            pool.map_or(Outlook::Unknown, |pool| outlook(pool, lane))
        };
        models.map(of_one).collect()
    }

    /// The last status, at most [`FRESH`] old; `None` where there is none, or it can't be read.
    async fn status(&self) -> Option<Arc<FleetStatus>> {
        // While one request asks, others wait: for as long as it waits itself.
        let mut kept = self.kept.lock().await;
        if kept.asked_at.is_none_or(|at| at.elapsed() >= FRESH) {
            let status = match timeout(READ_MAX, self.client.status()).await {
                Ok(Ok(status)) => status,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the autoscaler's status can't be read");
                    None
                }
                Err(_) => None,
            };
            *kept = Kept { status: status.map(Arc::new), asked_at: Some(Instant::now()) };
        }
        kept.status.clone()
    }
}

/// The outlook of one more job in a lane of this pool.
///
/// A job of the interactive lane goes before all of the batch lane; one of the batch lane after all that waits. With
/// workers, what waits is divided by what they do in a second together. Without any, a cold start comes first, and one
/// worker is expected; the time that a worker which starts has behind it is not known here, so it is not taken off.
pub fn outlook(pool: &PoolStatus, lane: Lane) -> Outlook {
    if pool.ready > 0 && pool.circuits_open >= pool.ready {
        return Outlook::Away;
    }
    let waiting = match lane {
        Lane::Interactive => pool.jobs_ready_interactive,
        Lane::Batch => pool.jobs_ready,
    };
    let rate = pool.worker_jobs_per_s;
    let Some(waiting) = waiting.filter(|_| rate.is_finite() && rate > 0.0) else {
        return Outlook::Unknown;
    };
    let takes = waiting as f64 / (rate * f64::from(pool.ready.max(1)));
    let wait_s = match (pool.ready, pool.workers_max) {
        // No worker will ever come.
        (0, 0) => return Outlook::Unknown,
        (0, _) => pool.cold_start_s + takes,
        _ => takes,
    };
    Duration::try_from_secs_f64(wait_s).map_or(Outlook::Unknown, Outlook::Wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(ready: u32, interactive: Option<u64>) -> PoolStatus {
        PoolStatus {
            model: "m".into(),
            launcher: "process".into(),
            workers_min: 0,
            workers_max: 4,
            wanted: ready,
            starting: 0,
            ready,
            draining: 0,
            jobs_ready: Some(1_000),
            jobs_ready_interactive: interactive,
            jobs_unacknowledged: Some(0),
            arrivals_per_s: 0.0,
            worker_jobs_per_s: 10.0,
            backlog_tokens: None,
            job_tokens: None,
            worker_tokens_per_s: None,
            cold_start_s: 30.0,
            drain_time_s: None,
            circuits_open: 0,
            problems: vec![],
            decisions: vec![],
        }
    }

    fn wait(s: f64) -> Outlook {
        Outlook::Wait(Duration::from_secs_f64(s))
    }

    #[test]
    fn a_lane_s_own_jobs_are_what_a_job_waits_for() {
        assert_eq!(outlook(&pool(2, Some(40)), Lane::Interactive), wait(2.0));
        assert_eq!(outlook(&pool(2, Some(40)), Lane::Batch), wait(50.0));
        assert_eq!(outlook(&pool(2, Some(0)), Lane::Interactive), wait(0.0));
    }

    #[test]
    fn without_a_worker_a_cold_start_comes_first() {
        assert_eq!(outlook(&pool(0, Some(0)), Lane::Interactive), wait(30.0));
        assert_eq!(outlook(&pool(0, Some(40)), Lane::Interactive), wait(34.0));
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        assert_eq!(outlook(&pool(2, None), Lane::Interactive), Outlook::Unknown);
        let no_rate = PoolStatus { worker_jobs_per_s: 0.0, ..pool(2, Some(1)) };
        assert_eq!(outlook(&no_rate, Lane::Interactive), Outlook::Unknown);
        let none_ever = PoolStatus { workers_max: 0, ..pool(0, Some(1)) };
        assert_eq!(outlook(&none_ever, Lane::Interactive), Outlook::Unknown);
        let odd = PoolStatus { cold_start_s: f64::NAN, ..pool(0, Some(1)) };
        assert_eq!(outlook(&odd, Lane::Interactive), Outlook::Unknown);
    }

    #[test]
    fn a_remote_model_is_away_once_all_its_workers_say_so() {
        let one_of_two = PoolStatus { circuits_open: 1, ..pool(2, Some(0)) };
        assert_eq!(outlook(&one_of_two, Lane::Interactive), wait(0.0));
        let all = PoolStatus { circuits_open: 2, ..pool(2, Some(0)) };
        assert_eq!(outlook(&all, Lane::Interactive), Outlook::Away);
    }
}
