//! [`Permit`]: what was reserved for a request, from its admission to its end.

use std::time::Duration;

use forebay_fabric::{
    Store,
    access::{Money, RequestLease},
    backoff::Backoff,
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    cost::{Cost, Tokens},
    standing::Standing,
};

/// How long a lease holds: the slots of a gateway that died are free so long after.
pub(super) const LEASE_MS: u64 = 30_000;
/// How often it is renewed: twice may fail.
const RENEWED_EVERY: Duration = Duration::from_millis(LEASE_MS / 3);
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The permit of a request that is admitted: an in-flight slot, and the tokens that it is expected to take.
///
/// [`Self::settle`] ends it. Dropped, it ends too: the slot is free, and the tokens stay counted as they were reserved,
/// since the work may be done all the same. Either way Redis hears of it in the background; no answer waits for that.
#[derive(Debug)]
pub struct Permit {
    standing: Standing,
    /// To the task that holds the lease; `None` for a tenant without limits.
    ended: Option<oneshot::Sender<Ended>>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
enum Ended {
    /// With its answer, for so many tokens.
    Took(Tokens),
    /// With a job that goes on without it.
    Submitted,
}

impl Permit {
    /// One that reserves nothing.
    pub(super) fn unlimited() -> Self {
        Self { standing: Standing::default(), ended: None }
    }

    /// One for which a task of `tasks` holds the lease.
    pub(super) fn hold(held: Held, standing: Standing, tasks: &TaskTracker) -> Self {
        let (ended, end) = oneshot::channel();
        tasks.spawn(held.until(end));
        Self { standing, ended: Some(ended) }
    }

    /// How the tenant stood when the request was admitted, this request included.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Ends the request, which took so many tokens: fewer than reserved are returned, more are counted.
    pub fn settle(mut self, tokens: impl Into<Tokens>) {
        if let Some(ended) = self.ended.take() {
            // Its task ends last: it has received.
            let _ = ended.send(Ended::Took(tokens.into()));
        }
    }

    /// Ends the request, which has submitted a job: the tokens stay counted as they were reserved, and the money is
    /// the job's from now on.
    pub fn submitted(mut self) {
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(Ended::Submitted);
        }
    }
}

/// A reservation, as the task that holds its lease knows it.
pub(super) struct Held {
    pub(super) store: Store,
    pub(super) lease: RequestLease,
    /// The slice of the window in which it is counted.
    pub(super) slice: u64,
    /// The tokens that are counted for it.
    pub(super) tokens: Tokens,
    /// The cost of its tokens.
    pub(super) cost: Option<Cost>,
}

impl Held {
    /// Renews the lease until the request ends, then settles it.
    async fn until(self, mut end: oneshot::Receiver<Ended>) {
        let ended = loop {
            tokio::select! {
                ended = &mut end => break ended.ok(),
                () = tokio::time::sleep(RENEWED_EVERY) => {
                    if let Err(error) = self.store.renew(&self.lease).await {
                        tracing::debug!(%error, "can't renew the lease of a request in flight");
                    }
                }
            }
        };
        let tokens = match ended {
            Some(Ended::Took(tokens)) => tokens,
            Some(Ended::Submitted) | None => self.tokens,
        };
        let is_submitted = matches!(ended, Some(Ended::Submitted));
        let money = self.cost.as_ref();
        let money = money.and_then(|cost| cost.settled(&self.lease, tokens, is_submitted));
        let signed = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
        let more = signed(tokens.total()) - signed(self.tokens.total());
        settle(&self.store, &self.lease, self.slice, more, money).await;
    }
}

/// Settles, and tries again until the lease has run out by itself: then there is nothing to settle.
async fn settle(
    store: &Store,
    lease: &RequestLease,
    slice: u64,
    more: i64,
    money: Option<Money<'_>>,
) {
    let until = Instant::now() + Duration::from_millis(lease.lease_ms);
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    while let Err(error) = store.settle_with(lease, slice, more, money).await {
        if Instant::now() >= until {
            tracing::warn!(%error, tenant = %lease.tenant, "a request's tokens stay counted as reserved");
            return;
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}
