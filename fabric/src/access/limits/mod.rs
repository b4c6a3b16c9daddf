//! Limits over all replicas: reserved in one script before a request is served, settled in another afterwards.
//!
//! Requests and tokens are counted in a sliding window of 240 slices by Redis' clock: never more than the limit in any
//! minute, and at most one part in 240 less in steady use. Requests in flight are leases that expire, so that a gateway
//! that dies gives its slots back. Who finds none free may wait in a line, first come, first served over all replicas.

use std::sync::LazyLock;

use forebay_schemas::{
    TenantId,
    names::{TURNS_CHANNEL, usage_key},
};
use redis::{Script, ScriptInvocation};

use super::record::TenantLimits;
use crate::{Store, clock::now_ms, store::StoreError, usage::Hour};

#[cfg(test)]
mod tests;

/// The window of the limits per minute.
pub const WINDOW_MS: u64 = 60_000;
/// The parts of a window; `window.lua` has the same number.
const SLICES: u64 = 240;

macro_rules! script {
    ($name:literal) => {
        LazyLock::new(|| {
            let parts =
                [include_str!("window.lua"), include_str!("money.lua"), include_str!($name)];
            Script::new(&parts.concat())
        })
    };
}

static RESERVE: LazyLock<Script> = script!("reserve.lua");
static SETTLE: LazyLock<Script> = script!("settle.lua");
static RENEW: LazyLock<Script> = script!("renew.lua");
static LEAVE: LazyLock<Script> = script!("leave.lua");

/// The parts of a tenant's limits that have reservations of money.
const MONEY: &str = "money";
const AMOUNTS: &str = "amounts";

/// The lease of a request in flight, or of one that asks to be.
#[derive(Debug, Clone)]
pub struct RequestLease {
    /// Who asks.
    pub tenant: TenantId,
    /// The name of this lease, equal to no other's.
    pub id: String,
    /// How long it holds unless renewed, in milliseconds.
    pub lease_ms: u64,
    /// The length of the window, in milliseconds: [`WINDOW_MS`], but for tests.
    pub window_ms: u64,
}

/// A request whose needs are to be reserved.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its lease.
    pub lease: &'a RequestLease,
    /// The tenant's limits.
    pub limits: TenantLimits,
    /// The tokens that it is expected to take.
    pub tokens: u64,
    /// The money that it is expected to cost; nothing where its model has no price.
    pub money: Option<Money<'a>>,
    /// The most requests of its tenant that wait for an in-flight slot, this one included; 0 if it does not wait.
    pub waiting_max: u64,
    /// How long it keeps its position in the line without asking again, in milliseconds.
    pub patience_ms: u64,
}

/// Money that is reserved within a tenant's budget, until what it is for is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money<'a> {
    /// The reservation's name: a lease's, or a job's id. A job's ends when its usage is summed up.
    pub name: &'a str,
    /// The amount, in units of 1e-9.
    pub amount: u64,
    /// How long it holds unless it ends before, in milliseconds.
    pub lease_ms: u64,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is reserved.
    Granted,
    /// The line has it: it asks again within its patience, or when its lease is named on [`TURNS_CHANNEL`].
    Waiting,
    /// The limit on requests is reached.
    Requests,
    /// The limit on tokens is reached.
    Tokens,
    /// All in-flight slots are taken, and it may not wait.
    InFlight,
    /// The month's budget is spent, or reserved.
    Budget,
}

/// A verdict, and what of its limits the tenant uses with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The verdict.
    pub verdict: Verdict,
    /// The slice of the window that it was counted in, if it was.
    pub slice: u64,
    /// The use of the limits, this request included if it was granted.
    pub usage: Usage,
    /// When as much as was asked for fits, in microseconds from now; 0 unless requests or tokens were refused.
    pub retry_us: u64,
}

/// The use of a tenant's limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests in the window.
    pub requests: u64,
    /// Tokens in the window.
    pub tokens: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// When all that is counted has left the window, in microseconds from now.
    pub reset_us: u64,
    /// The money that is spent this month or reserved, as far as that was asked, in units of 1e-9.
    pub spent: u64,
}

/// A script's answer, as Redis returns it: `reserve.lua` names the fields.
type Answer = (String, u64, i64, i64, u64, u64, u64, i64);

impl Store {
    /// Reserves what a request needs, all of it or nothing, in one round trip. After an error it is unknown whether
    /// that happened: settling is then in order, and harmless if it did not.
    pub async fn reserve(&self, request: &Request<'_>) -> Result<Reservation, StoreError> {
        let Request { lease, limits, tokens, money, patience_ms, waiting_max } = *request;
        let mut call = invoke(&RESERVE, lease);
        for limit in [limits.requests_per_minute, limits.tokens_per_minute, limits.in_flight] {
            call.arg(limit.unwrap_or(0));
        }
        call.arg(tokens).arg(lease.lease_ms).arg(patience_ms).arg(waiting_max);
        let Money { name, amount, lease_ms } =
            money.unwrap_or(Money { name: "", amount: 0, lease_ms: 0 });
        call.arg(limits.budget.unwrap_or(0)).arg(Hour::of_ms(now_ms()).day().month());
        call.arg(name).arg(amount).arg(lease_ms);
        let answer: Answer =
            self.run(async |connection| call.invoke_async(connection).await).await?;
        Ok(reservation(answer))
    }

    /// Settles a request that was granted, with the tokens that it took beyond those reserved, or fewer: its in-flight
    /// slot is free again. Whether it was in flight until now: settled before, or after its lease, it changes nothing,
    /// so settling is idempotent.
    pub async fn settle(
        &self,
        lease: &RequestLease,
        slice: u64,
        tokens_more: i64,
    ) -> Result<bool, StoreError> {
        self.settle_with(lease, slice, tokens_more, None).await
    }

    /// Settles a request that was granted, and its reservation of money: to what it cost, held until that is summed
    /// up; or to nothing.
    pub async fn settle_with(
        &self,
        lease: &RequestLease,
        slice: u64,
        tokens_more: i64,
        money: Option<Money<'_>>,
    ) -> Result<bool, StoreError> {
        let mut call = invoke(&SETTLE, lease);
        call.arg(slice).arg(tokens_more);
        let Money { name, amount, lease_ms } =
            money.unwrap_or(Money { name: "", amount: 0, lease_ms: 0 });
        call.arg(name).arg(amount).arg(lease_ms);
        self.run(async |connection| call.invoke_async(connection).await).await
    }

    /// Renews the lease of a request that is in flight, or enters it again after it ran out or was lost.
    pub async fn renew(&self, lease: &RequestLease) -> Result<(), StoreError> {
        let mut call = invoke(&RENEW, lease);
        call.arg(lease.lease_ms);
        self.run(async |connection| call.invoke_async(connection).await).await
    }

    /// Takes a request that waits no longer out of the line.
    pub async fn leave_line(&self, lease: &RequestLease) -> Result<(), StoreError> {
        let call = invoke(&LEAVE, lease);
        self.run(async |connection| call.invoke_async(connection).await).await
    }
}

/// A call with what all of these scripts begin with.
fn invoke<'a>(script: &'a Script, lease: &RequestLease) -> ScriptInvocation<'a> {
    let mut call = script.prepare_invoke();
    for part in ["window", "in_flight", "waiting", "waiting_until", MONEY, AMOUNTS] {
        call.key(lease.tenant.limits_key(part));
    }
    call.key(usage_key(lease.tenant.as_str()));
    // Rounded up, so that 240 slices are never shorter than the window.
    let slice_us = (lease.window_ms * 1_000).div_ceil(SLICES);
    call.arg(&lease.id).arg(slice_us).arg(TURNS_CHANNEL);
    call
}

fn reservation(answer: Answer) -> Reservation {
    let (verdict, slice, requests, tokens, in_flight, reset_us, retry_us, spent) = answer;
    let verdict = match verdict.as_str() {
        "granted" => Verdict::Granted,
        "waiting" => Verdict::Waiting,
        "requests" => Verdict::Requests,
        "tokens" => Verdict::Tokens,
        "budget" => Verdict::Budget,
        // The script has no other verdict.
        _ => Verdict::InFlight,
    };
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    let usage = Usage {
        requests: count(requests),
        tokens: count(tokens),
        in_flight,
        reset_us,
        spent: count(spent),
    };
    Reservation { verdict, slice, usage, retry_us }
}
