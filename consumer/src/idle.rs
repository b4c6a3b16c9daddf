//! Ends a worker that has had nothing to do for too long: the net for one whose autoscaler is gone.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::stats::Stats;

/// How often it looks; a job that comes and goes between two looks is seen by the count of those done.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Cancels `stop` once nothing was in hand for `idle_max`, unless an autoscaler leads, which decides that better; never if that is
/// zero.
pub async fn stop_after(
    idle_max: Duration,
    stats: Arc<Stats>,
    stop: CancellationToken,
    is_led: impl AsyncFn() -> bool,
) {
    if idle_max.is_zero() {
        return;
    }
    let (mut busy_at, mut jobs_done) = (Instant::now(), 0);
    let mut look = tokio::time::interval(LOOK_EVERY);
    while stop.run_until_cancelled(look.tick()).await.is_some() {
        let now = stats.snapshot();
        if now.in_flight > 0 || now.jobs_done != jobs_done {
            (busy_at, jobs_done) = (Instant::now(), now.jobs_done);
        }
        if busy_at.elapsed() >= idle_max {
            if is_led().await {
                busy_at = Instant::now();
                continue;
            }
            tracing::info!(idle_s = idle_max.as_secs(), "nothing to do for too long: stopping");
            stop.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_without_work_stops_when_its_time_is_up_and_not_before() {
        let (stats, stop) = (Arc::new(Stats::default()), CancellationToken::new());
        let (idle_max, nobody_leads) = (Duration::from_secs(60), async || false);
        tokio::spawn(stop_after(idle_max, stats.clone(), stop.clone(), nobody_leads));
        tokio::time::sleep(Duration::from_secs(50)).await;
        // A job begins the time anew, and holds it while it is in hand.
        stats.taken();
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(!stop.is_cancelled(), "it has a job");
        stats.settled(1);
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert!(!stop.is_cancelled(), "its time is not up yet");
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert!(stop.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_a_worker_stays() {
        let stop = CancellationToken::new();
        stop_after(Duration::ZERO, Arc::default(), stop.clone(), async || false).await;
        assert!(!stop.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn while_an_autoscaler_leads_a_worker_stays() {
        let stop = CancellationToken::new();
        let leads = async || true;
        tokio::spawn(stop_after(Duration::from_secs(60), Arc::default(), stop.clone(), leads));
        tokio::time::sleep(Duration::from_secs(1_000)).await;
        assert!(!stop.is_cancelled());
    }
}
