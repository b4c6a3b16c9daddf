//! The requests of this replica that wait for an in-flight slot.
//!
//! The line itself is in Redis, one for each tenant, over all replicas. When a slot becomes free, Redis names the first
//! of the line on a channel; the replica that has that request wakes it, and it asks again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use forebay_fabric::Store;
use forebay_schemas::{TenantId, names::TURNS_CHANNEL};
use metrics::{gauge, histogram};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::subscribe::{Event, subscribe};

/// The most requests of this replica that wait. Each asks Redis once a second.
const WAITING_MAX: usize = 1_024;
/// So many of those positions are for tenants that have few: some tenants whose requests fill the others keep no
/// tenant from waiting.
const FOR_FEW: usize = WAITING_MAX / 4;
/// The most requests of a tenant that has few.
const FEW: usize = 16;

/// The waiting requests.
#[derive(Default)]
pub(super) struct Line(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// By their leases' ids.
    turns: HashMap<String, Arc<Notify>>,
    /// How many each tenant has.
    of_tenants: HashMap<TenantId, usize>,
}

/// A request in the line, until this is dropped.
pub(super) struct Waiter {
    line: Arc<Line>,
    tenant: TenantId,
    lease: String,
    turn: Arc<Notify>,
    since: Instant,
}

impl Line {
    /// A line whose requests are woken by what `store` publishes, until `stop`.
    pub(super) fn start(store: &Store, stop: &CancellationToken) -> Arc<Self> {
        let line = Arc::<Self>::default();
        let called = line.clone();
        subscribe(store.clone(), TURNS_CHANNEL, stop.clone(), move |event| match event {
            Event::Message(lease) => called.call(lease),
            // Turns were missed. Each request asks by itself within a second.
            Event::Subscribed => {}
        });
        line
    }

    /// Lets a request of a tenant wait for its turn; `None` if too many wait.
    pub(super) fn enter(self: &Arc<Self>, tenant: &TenantId, lease: &str) -> Option<Waiter> {
        let mut waiting = self.waiting();
        let own = waiting.of_tenants.get(tenant).copied().unwrap_or_default();
        let most = if own < FEW { WAITING_MAX } else { WAITING_MAX - FOR_FEW };
        if waiting.turns.len() >= most {
            return None;
        }
        let turn = Arc::new(Notify::new());
        waiting.turns.insert(lease.to_owned(), turn.clone());
        waiting.of_tenants.insert(tenant.clone(), own + 1);
        gauge!("forebay_gateway_waiting").set(waiting.turns.len() as f64);
        let (line, tenant, lease) = (self.clone(), tenant.clone(), lease.to_owned());
        Some(Waiter { line, tenant, lease, turn, since: Instant::now() })
    }

    fn call(&self, lease: &str) {
        if let Some(turn) = self.waiting().turns.get(lease) {
            // Kept for one that is asking just now.
            turn.notify_one();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Returns when it is this request's turn.
    pub(super) async fn turn(&self) {
        self.turn.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.line.waiting();
        waiting.turns.remove(&self.lease);
        if let Some(own) = waiting.of_tenants.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                waiting.of_tenants.remove(&self.tenant);
            }
        }
        gauge!("forebay_gateway_waiting").set(waiting.turns.len() as f64);
        let ms = self.since.elapsed().as_secs_f64() * 1e3;
        histogram!("forebay_gateway_wait_ms").record(ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn the_one_that_is_named_is_woken_also_if_it_listens_later() {
        let line = Arc::<Line>::default();
        let one = line.enter(&tenant("acme"), "a").unwrap();
        let two = line.enter(&tenant("acme"), "b").unwrap();
        line.call("b");
        line.call("of another replica");
        two.turn().await;
        assert!(futures_util::FutureExt::now_or_never(one.turn()).is_none());
        drop(one);
        drop(two);
        let waiting = line.waiting();
        assert!(waiting.turns.is_empty() && waiting.of_tenants.is_empty());
    }

    #[test]
    fn a_replica_s_line_is_bounded_and_tenants_that_fill_it_keep_no_other_out() {
        let line = Arc::<Line>::default();
        let many = WAITING_MAX - FOR_FEW;
        let enter = |name: &str, n: usize| line.enter(&tenant(name), &format!("{name}-{n}"));
        let mut all: Vec<Waiter> = (0..many).map(|n| enter("many", n).unwrap()).collect();
        assert!(enter("many", many).is_none());
        for name in 0..FOR_FEW / FEW {
            let name = format!("few-{name}");
            all.extend((0..FEW).map(|n| enter(&name, n).unwrap()));
            assert!(enter(&name, FEW).is_none(), "it has no longer few");
        }
        assert_eq!(all.len(), WAITING_MAX);
        assert!(enter("one-more", 0).is_none());
        all.remove(0);
        assert!(enter("many", many).is_none());
        assert!(enter("one-more", 0).is_some());
    }
}
