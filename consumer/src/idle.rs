//! Ends a worker that has been idle for too long: the safety net for one whose autoscaler is gone.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::in_hand::InHand;

/// How often the jobs in hand are looked at. A job that comes and goes in between shows in the count of jobs done.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Cancels `stop` once no job was in hand for `idle_max`; never if that is zero. While an autoscaler leads (`is_led`),
/// the worker stays: scaling in is the autoscaler's decision.
pub async fn stop_after(
    idle_max: Duration,
    in_hand: Arc<InHand>,
    stop: CancellationToken,
    is_led: impl AsyncFn() -> bool,
) {
    if idle_max.is_zero() {
        return;
    }
    let mut busy_at = Instant::now();
    let mut jobs_done = 0;
    let mut look = tokio::time::interval(LOOK_EVERY);
    while stop.run_until_cancelled(look.tick()).await.is_some() {
        if in_hand.jobs() > 0 || in_hand.jobs_done() != jobs_done {
            busy_at = Instant::now();
            jobs_done = in_hand.jobs_done();
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
        let in_hand = Arc::new(InHand::default());
        let stop = CancellationToken::new();
        let idle_max = Duration::from_secs(60);
        tokio::spawn(stop_after(idle_max, in_hand.clone(), stop.clone(), async || false));
        tokio::time::sleep(Duration::from_secs(50)).await;
        // A job resets the time, and holds it while it is in hand.
        in_hand.taken();
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(!stop.is_cancelled(), "it has a job");
        in_hand.settled(1);
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
