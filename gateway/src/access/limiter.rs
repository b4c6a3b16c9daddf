//! [`Limiter`]: reserves what a request needs of its tenant's limits, and lets it wait for an in-flight slot.
//!
//! Each attempt is one script call, exact over all replicas. Where Redis is away no request is admitted: without it no
//! answer could be returned either.

use std::{sync::Arc, time::Duration};

use forebay_fabric::{
    Store,
    access::{Money, Request, RequestLease, Reservation, Tenant, Verdict, WINDOW_MS},
    store::StoreError,
};
use forebay_schemas::JobId;
use tokio::{runtime::Handle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    cost::{Cost, Tokens},
    line::{Line, Waiter},
    permit::{Held, LEASE_MS, Permit},
    standing::{Reason, Refusal, Standing},
};

/// The most requests of one tenant that wait, over all replicas.
const WAITING_PER_TENANT_MAX: u64 = 256;
/// How often a waiting request asks by itself, should the message of its turn be lost.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// How long it keeps its position without asking: a gateway that died holds up no other's requests for longer.
const PATIENCE_MS: u64 = 5_000;
/// When one comes back that found no in-flight slot. When one becomes free is not known.
const RETRY_IN_FLIGHT_MS: u64 = 1_000;

/// The limits can't be asked.
#[derive(Debug, thiserror::Error)]
#[error("limits can't be checked at present; try again in a moment")]
pub struct Unavailable(#[source] Box<StoreError>);

/// The needs of a request.
#[derive(Debug, Clone, Default)]
pub struct Need {
    /// The tokens that it is expected to take: rather too many, since more than these are counted only when it ends.
    pub tokens: Tokens,
    /// The cost of these; nothing where the model has no price.
    pub cost: Option<Cost>,
    /// How long it may wait for an in-flight slot; not at all unless set.
    pub wait_until: Option<Instant>,
}

/// The answer to a request.
#[derive(Debug)]
pub enum Outcome {
    /// It is admitted.
    Granted(Permit),
    /// It is not admitted.
    Refused(Refusal),
}

/// Reserves what requests need. Clones share it.
#[derive(Clone)]
pub struct Limiter {
    store: Store,
    line: Arc<Line>,
    /// Those that hold leases, and settle them.
    tasks: TaskTracker,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Limiter {
    /// A limiter whose counts are in `store`, which hears of turns until `stop`. Must be called inside a Tokio runtime.
    pub fn start(store: &Store, stop: &CancellationToken) -> Self {
        Self { store: store.clone(), line: Line::start(store, stop), tasks: TaskTracker::new() }
    }

    /// Waits until all permits have ended and are settled. Call it last, with a time-out.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Reserves what a request needs, all of it or nothing. It may be dropped at any time, as when the client leaves.
    pub async fn reserve(&self, tenant: &Tenant, need: Need) -> Result<Outcome, Unavailable> {
        let limits = &tenant.limits;
        if limits.is_empty() {
            return Ok(Outcome::Granted(Permit::unlimited()));
        }
        if let Some(limit) = limits.tokens_per_minute.filter(|limit| need.tokens.total() > *limit) {
            let reason = Reason::NeverFits { tokens: need.tokens.total(), limit };
            // Redis was not asked: how the tenant stands is not known.
            let standing = Standing::default();
            let tenant = tenant.id.clone();
            return Ok(Outcome::Refused(Refusal { tenant, reason, standing, retry_ms: None }));
        }
        let mut attempt = Attempt::new(self, tenant, need.cost.as_ref());
        let answer = loop {
            let until = need.wait_until.filter(|until| *until > Instant::now());
            let answer = attempt.ask(tenant, &need, until.is_some()).await?;
            match until {
                Some(until) if answer.verdict == Verdict::Waiting => {
                    if !attempt.wait(until).await {
                        break answer;
                    }
                }
                _ => break answer,
            }
        };
        let standing = Standing::new(limits, &answer.usage);
        let refused = |reason, retry_us: u64| {
            let retry_ms = Some(retry_us.div_ceil(1_000));
            Outcome::Refused(Refusal { tenant: tenant.id.clone(), reason, standing, retry_ms })
        };
        attempt.leaves = attempt.stands_in_line(&answer.verdict);
        Ok(match answer.verdict {
            Verdict::Granted => {
                let held = Held {
                    store: self.store.clone(),
                    lease: attempt.lease.clone(),
                    slice: answer.slice,
                    tokens: need.tokens,
                    cost: need.cost,
                };
                Outcome::Granted(Permit::hold(held, standing, &self.tasks))
            }
            Verdict::Requests => refused(Reason::Requests, answer.retry_us),
            Verdict::Tokens => refused(Reason::Tokens, answer.retry_us),
            Verdict::InFlight | Verdict::Waiting => {
                refused(Reason::InFlight, RETRY_IN_FLIGHT_MS * 1_000)
            }
            Verdict::Budget => {
                let budget = limits.budget.unwrap_or(0);
                let spent = answer.usage.spent;
                let reason = Reason::Budget { budget, spent };
                let tenant = tenant.id.clone();
                Outcome::Refused(Refusal { tenant, reason, standing, retry_ms: None })
            }
        })
    }
}

/// A request that asks. Dropped in between, because the client left or Redis did not answer, it takes out of Redis what
/// may be there of it: its position in the line, or the slot that it was granted without hearing of it.
struct Attempt<'a> {
    limiter: &'a Limiter,
    lease: RequestLease,
    /// The name of its reservation of money, if it has one.
    money: Option<String>,
    waiter: Option<Waiter>,
    leaves: bool,
}

impl<'a> Attempt<'a> {
    fn new(limiter: &'a Limiter, tenant: &Tenant, cost: Option<&Cost>) -> Self {
        let lease = RequestLease {
            tenant: tenant.id.clone(),
            id: JobId::random().to_string(),
            lease_ms: LEASE_MS,
            window_ms: WINDOW_MS,
        };
        let money = cost.map(|cost| cost.name(&lease).to_owned());
        Self { limiter, lease, money, waiter: None, leaves: true }
    }

    async fn ask(
        &self,
        tenant: &Tenant,
        need: &Need,
        waits: bool,
    ) -> Result<Reservation, Unavailable> {
        let request = Request {
            lease: &self.lease,
            limits: tenant.limits,
            tokens: need.tokens.total(),
            money: need.cost.as_ref().map(|cost| cost.reserved(&self.lease, need.tokens)),
            waiting_max: if waits { WAITING_PER_TENANT_MAX } else { 0 },
            patience_ms: PATIENCE_MS,
        };
        let answer = self.limiter.store.reserve(&request).await;
        answer.map_err(|error| Unavailable(Box::new(error)))
    }

    /// Whether Redis has it in the line after this verdict. With all others it takes it out itself.
    fn stands_in_line(&self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Waiting => true,
            Verdict::InFlight => self.waiter.is_some(),
            _ => false,
        }
    }

    /// Returns when it is time to ask again; `false` if too many requests of this replica wait already.
    async fn wait(&mut self, until: Instant) -> bool {
        if let Some(waiter) = &self.waiter {
            let until = until.min(Instant::now() + ASKED_EVERY);
            // Either way it asks again.
            let _ = tokio::time::timeout_at(until, waiter.turn()).await;
            return true;
        }
        // It asks again at once: its turn may have come before it listened.
        self.waiter = self.limiter.line.enter(&self.lease.tenant, &self.lease.id);
        self.waiter.is_some()
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        // Without a runtime the program ends, and the lease by itself.
        let Some(runtime) = self.leaves.then(Handle::try_current).and_then(Result::ok) else {
            return;
        };
        let Limiter { store, tasks, .. } = self.limiter.clone();
        let lease = self.lease.clone();
        let money = self.money.take();
        let leave = async move {
            if let Err(error) = store.leave_line(&lease).await {
                tracing::debug!(%error, "can't leave the line; it forgets those that do not ask");
            }
            // Once: if Redis is away, the lease runs out by itself.
            let money = money.as_deref().map(|name| Money { name, amount: 0, lease_ms: 0 });
            if let Err(error) = store.settle_with(&lease, 0, 0, money).await {
                tracing::debug!(%error, "can't free a slot; its lease runs out");
            }
        };
        tasks.spawn_on(leave, &runtime);
    }
}
