//! Summing up all the time, in the background of a program.

use std::time::Duration;

use metrics::{counter, gauge};
use tokio_util::sync::CancellationToken;

use crate::{Store, backoff::Backoff, config::UsageConfig};

/// The longest pause between two rounds, where nothing is amiss: so late is a sum.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after others were first, again and again, or Redis could not be reached.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Sums up usage until `stop`, in a task of its own. Every gateway and every autoscaler does; of several that are
/// there, those that come second pause longer.
pub fn keep_rolling(store: &Store, config: &UsageConfig, stop: CancellationToken) {
    if !config.enabled {
        return;
    }
    let (store, keep_days) = (store.clone(), config.keep_days);
    tokio::spawn(async move {
        let mut backoff = Backoff::new(PAUSE, PAUSE_MAX);
        let mut is_failing = false;
        let mut pause = Duration::ZERO;
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            pause = backoff.next_pause();
            // Not interrupted: a round is short.
            match store.roll_usage(keep_days).await {
                Ok(round) => {
                    is_failing = false;
                    gauge!("forebay_usage_unread").set(round.unread as f64);
                    if round.raced {
                        continue;
                    }
                    counter!("forebay_usage_summed_total").increment(round.entries as u64);
                    backoff.reset();
                    if round.is_full() {
                        pause = Duration::ZERO;
                    }
                }
                Err(error) => {
                    counter!("forebay_usage_errors_total").increment(1);
                    if !is_failing {
                        tracing::warn!(%error, "can't sum up usage; trying again");
                    }
                    is_failing = true;
                }
            }
        }
    });
}
