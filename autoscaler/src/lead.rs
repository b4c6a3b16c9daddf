//! Leader election: a task that takes and renews the lease, and the permit that is asked for before each action.

use std::{sync::Arc, time::Duration};

use forebay_fabric::Store;
use metrics::{counter, gauge};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

/// Our own lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The fencing token.
    pub token: u64,
    /// Until when it holds for sure, by our own clock.
    pub until: Instant,
}

/// The leader, as far as is known.
#[derive(Debug, Clone, Default)]
pub struct Leader {
    /// The id of the one that leads; empty while none is known.
    pub id: String,
    /// Our lease, if we lead.
    pub held: Option<Held>,
    /// Why Redis could not be asked.
    pub error: Option<String>,
}

/// Takes part in the election and knows who leads. Clones share it.
#[derive(Clone)]
pub struct Lead {
    store: Arc<Store>,
    leader: watch::Receiver<Leader>,
}

impl Lead {
    /// Takes part as `id`: renews every `every` a lease that ends `lease` after it was renewed last, until `stop`,
    /// and gives it up then.
    pub fn start(
        store: Arc<Store>,
        id: String,
        every: Duration,
        lease: Duration,
        stop: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, leader) = watch::channel(Leader::default());
        let keeper = Keeper { store: store.clone(), id, every, lease, leader: sender };
        let task = tokio::spawn(keeper.run(stop));
        (Self { store, leader }, task)
    }

    /// Who leads, as of the last renewal.
    pub fn leader(&self) -> Leader {
        self.leader.borrow().clone()
    }

    /// Our lease, if we lead and it has not ended by our own clock.
    pub fn held(&self) -> Option<Held> {
        self.leader.borrow().held.filter(|held| Instant::now() < held.until)
    }

    /// The right to act on what was decided under `token`.
    pub fn permit(&self, token: u64) -> Permit {
        Permit { lead: self.clone(), token, without_store: false }
    }

    /// The right to take down workers that are processes on this host, when this autoscaler stops. Without Redis no
    /// autoscaler leads, and what this one launched is still its own to end.
    pub fn permit_to_stop(&self, token: u64) -> Permit {
        Permit { lead: self.clone(), token, without_store: true }
    }

    /// Whether an action decided under `token` may still be done. A process that was paused in the middle of a
    /// decision has lost its lease by the time that it goes on: its clock says so, and Redis does.
    pub async fn may_act(&self, token: u64) -> bool {
        let is_ours = |held: Held| held.token == token;
        if !self.held().is_some_and(is_ours) {
            return false;
        }
        let asked = self.store.holds_lease(token).await;
        // The answer may have taken long.
        asked.is_ok_and(|holds| holds) && self.held().is_some_and(is_ours)
    }
}

/// The right to end, drain and launch workers. It is asked for before every action.
#[derive(Clone)]
pub struct Permit {
    lead: Lead,
    token: u64,
    /// Whether it also holds while Redis can't be asked.
    without_store: bool,
}

impl Permit {
    /// Whether the action may still be done.
    pub async fn holds(&self) -> bool {
        self.lead.may_act(self.token).await
            || (self.without_store && self.lead.leader().error.is_some())
    }
}

struct Keeper {
    store: Arc<Store>,
    id: String,
    every: Duration,
    lease: Duration,
    leader: watch::Sender<Leader>,
}

impl Keeper {
    async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.renew().await;
        }
        let held = self.leader.borrow().held;
        if let Some(held) = held
            && let Err(error) = self.store.release_lease(held.token).await
        {
            tracing::debug!(%error, "the lease could not be given up; it ends by itself");
        }
        self.leader.send_replace(Leader::default());
    }

    async fn renew(&self) {
        let asked_at = Instant::now();
        let lease_ms = self.lease.as_millis() as u64;
        // Past a whole lease the answer is of no use.
        let take = tokio::time::timeout(self.lease, self.store.take_lease(&self.id, lease_ms));
        let before = self.leader.borrow().clone();
        let now = match take.await.map_err(|_| "Redis does not answer".to_owned()) {
            Ok(Ok(lease)) => {
                let until = asked_at + self.lease;
                let mine = lease.holder == self.id;
                let held = mine.then_some(Held { token: lease.token, until });
                Leader { id: lease.holder, held, error: None }
            }
            failed => {
                let error = match failed {
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error,
                    Ok(Ok(_)) => return,
                };
                // No other autoscaler can have taken it before it ended.
                let held = before.held.filter(|held| Instant::now() < held.until);
                Leader { id: before.id.clone(), held, error: Some(error) }
            }
        };
        report_changes(&self.id, &before, &now);
        self.leader.send_replace(now);
    }
}

fn report_changes(id: &str, before: &Leader, now: &Leader) {
    gauge!("forebay_autoscaler_leads").set(f64::from(u8::from(now.held.is_some())));
    let token = |leader: &Leader| leader.held.map(|held| held.token);
    if token(before) == token(now) && before.id == now.id {
        return;
    }
    counter!("forebay_lease_changes_total").increment(1);
    match (now.held, before.held) {
        (Some(held), _) => tracing::info!(id, token = held.token, "became leader"),
        (None, Some(_)) => tracing::warn!(leader = now.id, "lost leadership"),
        (None, None) => tracing::info!(leader = now.id, "standing by: another autoscaler leads"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::testing::store_with_lease;

    const LEASE: Duration = Duration::from_secs(60);

    /// One that has taken the lease with this token, from a Redis that answers after a while.
    async fn leading(token: &Arc<AtomicU64>, answers_after: Duration) -> Lead {
        let store = store_with_lease(token.clone(), answers_after).await;
        let stop = CancellationToken::new();
        let (mut lead, _) = Lead::start(store, "me".into(), LEASE / 2, LEASE, stop);
        let taken = lead.leader.wait_for(|leader| leader.held.is_some());
        tokio::time::timeout(LEASE, taken).await.unwrap().unwrap();
        lead
    }

    #[tokio::test]
    async fn a_lease_ends_by_our_clock_counted_from_before_it_was_asked_for() {
        let answers_after = Duration::from_secs(1);
        let lead = leading(&Arc::new(AtomicU64::new(7)), answers_after).await;
        let answered_at = Instant::now();
        let held = lead.held().unwrap();
        assert_eq!((held.token, lead.leader().id.as_str()), (7, "me"));
        let left = held.until - answered_at;
        assert!(left + answers_after <= LEASE, "{left:?} are left once it was answered");
    }

    #[tokio::test]
    async fn a_permit_holds_for_the_token_of_our_lease_while_redis_says_so() {
        let token = Arc::new(AtomicU64::new(7));
        let lead = leading(&token, Duration::ZERO).await;
        assert!(lead.permit(7).holds().await);
        assert!(!lead.permit(6).holds().await, "decided under an earlier lease");
        token.store(8, Ordering::Relaxed);
        assert!(!lead.permit(7).holds().await, "another leads, whatever our clock says");
        assert!(!lead.permit(8).holds().await);
    }
}
