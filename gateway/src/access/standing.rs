//! How a tenant stands with its limits, and why a request is refused.

use std::fmt;

use forebay_fabric::{
    access::{TenantLimits, Usage},
    config::format_decimal,
};
use forebay_schemas::TenantId;

/// A limit, and what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The limit.
    pub limit: u64,
    /// The part that is not used.
    pub remaining: u64,
    /// When all of it is there again if nothing else is asked for, in milliseconds from now.
    pub reset_ms: u64,
}

/// How a tenant stands with each of its limits; `None` for those that it does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// With requests in a minute.
    pub requests: Option<Share>,
    /// With tokens in a minute.
    pub tokens: Option<Share>,
    /// With requests in flight. When one ends is not known: its reset is 0.
    pub in_flight: Option<Share>,
}

impl Standing {
    pub(super) fn new(limits: &TenantLimits, usage: &Usage) -> Self {
        let share = |limit: Option<u64>, used: u64, reset_us: u64| {
            let share = |limit: u64| Share {
                limit,
                remaining: limit.saturating_sub(used),
                reset_ms: if used == 0 { 0 } else { reset_us.div_ceil(1_000) },
            };
            limit.map(share)
        };
        Self {
            requests: share(limits.requests_per_minute, usage.requests, usage.reset_us),
            tokens: share(limits.tokens_per_minute, usage.tokens, usage.reset_us),
            in_flight: share(limits.in_flight, usage.in_flight, 0),
        }
    }
}

/// The limit that a request is refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Requests in a minute.
    Requests,
    /// Tokens in a minute.
    Tokens,
    /// Requests in flight.
    InFlight,
    /// The month's budget.
    Budget {
        /// The budget, in units of 1e-9.
        budget: u64,
        /// The part of it that is spent, or reserved for requests and jobs under way.
        spent: u64,
    },
    /// It needs more tokens than the tenant may ever have in a minute.
    NeverFits {
        /// The tokens that it needs.
        tokens: u64,
        /// The tenant's limit.
        limit: u64,
    },
}

/// A refusal. Its text is the message for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The tenant.
    pub tenant: TenantId,
    /// The limit.
    pub reason: Reason,
    /// How the tenant stands, as far as that was asked.
    pub standing: Standing,
    /// When it fits, in milliseconds from now; `None` if never.
    pub retry_ms: Option<u64>,
}

impl Refusal {
    /// The HTTP status: 429, or 400 where the request can never fit. Clients come back on a 429 unless a header says
    /// that it is of no use, as it is where the budget is spent.
    pub fn status(&self) -> u16 {
        if self.retry_ms.is_some() || self.is_of_budget() { 429 } else { 400 }
    }

    /// The error code, as clients of OpenAI's API know it.
    pub fn code(&self) -> &'static str {
        if self.is_of_budget() {
            return "insufficient_quota";
        }
        if self.retry_ms.is_some() { "rate_limit_exceeded" } else { "request_too_large" }
    }
}

impl Refusal {
    fn is_of_budget(&self) -> bool {
        matches!(self.reason, Reason::Budget { .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = |share: Option<Share>| share.map_or(0, |share| share.limit);
        let tenant = &self.tenant;
        let Standing { requests, tokens, in_flight } = self.standing;
        match self.reason {
            Reason::Requests => {
                write!(f, "tenant {tenant} may make {} requests a minute", limit(requests))?;
            }
            Reason::Tokens => {
                write!(f, "tenant {tenant} may use {} tokens a minute", limit(tokens))?;
            }
            Reason::InFlight => write!(
                f,
                "tenant {tenant} may have {} requests in flight, and has them",
                limit(in_flight)
            )?,
            Reason::Budget { budget, spent } => write!(
                f,
                "tenant {tenant} has a budget of {} a month, of which {} are spent or reserved: this request does not \
                 fit; ask for a higher budget, or come back next month",
                format_decimal(budget),
                format_decimal(spent)
            )?,
            Reason::NeverFits { tokens, limit } => write!(
                f,
                "this request needs {tokens} tokens, and tenant {tenant} may use {limit} a minute: make it smaller"
            )?,
        }
        match self.retry_ms {
            Some(ms) => write!(f, "; try again in {} s", ms.div_ceil(1_000).max(1)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(reason: Reason, retry_ms: Option<u64>) -> Refusal {
        let limits = TenantLimits {
            requests_per_minute: Some(60),
            tokens_per_minute: Some(1_000),
            in_flight: Some(4),
            budget: Some(5_000_000_000),
        };
        let usage =
            Usage { requests: 60, tokens: 1_200, in_flight: 4, reset_us: 59_000_001, spent: 0 };
        let standing = Standing::new(&limits, &usage);
        Refusal { tenant: "acme".parse().unwrap(), reason, standing, retry_ms }
    }

    #[test]
    fn what_is_left_is_never_below_zero_and_an_unused_limit_needs_no_reset() {
        let standing = refusal(Reason::Tokens, None).standing;
        assert_eq!(standing.tokens, Some(Share { limit: 1_000, remaining: 0, reset_ms: 59_001 }));
        let limits = TenantLimits { tokens_per_minute: Some(9), ..TenantLimits::default() };
        let unused = Usage { requests: 1, reset_us: 1_000, ..Usage::default() };
        let standing = Standing::new(&limits, &unused);
        assert_eq!(standing.tokens, Some(Share { limit: 9, remaining: 9, reset_ms: 0 }));
        assert_eq!((standing.requests, standing.in_flight), (None, None));
    }

    #[test]
    fn a_refusal_names_the_tenant_the_limit_and_when_to_come_back() {
        for (reason, retry_ms, named, status) in [
            (Reason::Requests, Some(1_200), ["60 requests a minute", "in 2 s"], 429),
            (Reason::Tokens, Some(1), ["1000 tokens a minute", "in 1 s"], 429),
            (Reason::InFlight, Some(1_000), ["4 requests in flight", "in 1 s"], 429),
            (
                Reason::Budget { budget: 5_000_000_000, spent: 4_999_999_000 },
                None,
                ["budget of 5 a month", "4.999999 are spent"],
                429,
            ),
            (
                Reason::NeverFits { tokens: 2_000, limit: 1_000 },
                None,
                ["2000 tokens", "smaller"],
                400,
            ),
        ] {
            let refusal = refusal(reason, retry_ms);
            let text = refusal.to_string();
            assert!(text.contains("tenant acme"), "{text}");
            assert!(named.iter().all(|named| text.contains(named)), "{text}");
            assert_eq!(refusal.status(), status);
        }
    }
}
