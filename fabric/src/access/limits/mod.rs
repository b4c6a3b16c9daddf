//! Limits over all replicas: reserved in one script before a request is served, settled in another afterwards.
//!
//! Requests and tokens are counted in a sliding window of 240 slices by Redis' clock: never more than the limit in any
//! minute, and at most one part in 240 less in steady use. Requests in flight are leases that expire, so that a gateway
//! that dies gives its slots back. Who finds none free may wait in a line, first come, first served over all replicas.

use std::sync::LazyLock;

use forebay_schemas::{TenantId, names::TURNS_CHANNEL};
use redis::{Script, ScriptInvocation};

use super::record::TenantLimits;
use crate::{Store, store::StoreError};

#[cfg(test)]
mod tests;

/// The window of the limits per minute.
pub const WINDOW_MS: u64 = 60_000;
/// The parts of a window; `window.lua` has the same number.
const SLICES: u64 = 240;

macro_rules! script {
    ($name:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("window.lua"), include_str!($name))))
    };
}

static RESERVE: LazyLock<Script> = script!("reserve.lua");
static SETTLE: LazyLock<Script> = script!("settle.lua");
static RENEW: LazyLock<Script> = script!("renew.lua");
static LEAVE: LazyLock<Script> = script!("leave.lua");

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
    /// The most requests of its tenant that wait for an in-flight slot, this one included; 0 if it does not wait.
    pub waiting_max: u64,
    /// How long it keeps its position in the line without asking again, in milliseconds.
    pub patience_ms: u64,
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
}

/// A script's answer, as Redis returns it: `reserve.lua` names the fields.
type Answer = (String, u64, i64, i64, u64, u64, u64);

impl Store {
    /// Reserves what a request needs, all of it or nothing, in one round trip. After an error it is unknown whether
    /// that happened: settling is then in order, and harmless if it did not.
    pub async fn reserve(&self, request: &Request<'_>) -> Result<Reservation, StoreError> {
        let Request { lease, limits, tokens, patience_ms, waiting_max } = *request;
        let mut call = invoke(&RESERVE, lease);
        for limit in [limits.requests_per_minute, limits.tokens_per_minute, limits.in_flight] {
            call.arg(limit.unwrap_or(0));
        }
        call.arg(tokens).arg(lease.lease_ms).arg(patience_ms).arg(waiting_max);
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
        let mut call = invoke(&SETTLE, lease);
        call.arg(slice).arg(tokens_more);
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
    for part in ["window", "in_flight", "waiting", "waiting_until"] {
        call.key(lease.tenant.limits_key(part));
    }
    // Rounded up, so that 240 slices are never shorter than the window.
    let slice_us = (lease.window_ms * 1_000).div_ceil(SLICES);
    call.arg(&lease.id).arg(slice_us).arg(TURNS_CHANNEL);
    call
}

fn reservation(answer: Answer) -> Reservation {
    let (verdict, slice, requests, tokens, in_flight, reset_us, retry_us) = answer;
    let verdict = match verdict.as_str() {
        "granted" => Verdict::Granted,
        "waiting" => Verdict::Waiting,
        "requests" => Verdict::Requests,
        "tokens" => Verdict::Tokens,
        // The script has no other verdict.
        _ => Verdict::InFlight,
    };
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    let usage = Usage { requests: count(requests), tokens: count(tokens), in_flight, reset_us };
    Reservation { verdict, slice, usage, retry_us }
}
