//! [`Cost`]: the money that a request is expected to cost, and its reservation within the tenant's budget.

use forebay_fabric::access::{Money, RequestLease};
use forebay_schemas::JobId;

/// How long the money of a request that has ended stays reserved, in milliseconds: until its usage is surely summed up,
/// which takes seconds.
const SUMMED_UP_WITHIN_MS: u64 = 15_000;
const MILLION: u128 = 1_000_000;

/// What the tokens of a request cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// The price of a million tokens, in units of 1e-9.
    pub per_million: u64,
    /// The job that the request submits, if it does not wait for it.
    pub job: Option<SubmittedJob>,
}

/// A job that outlives its request: its money stays reserved until its usage is summed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmittedJob {
    /// The job.
    pub id: JobId,
    /// How long it may take, in milliseconds.
    pub lease_ms: u64,
}

impl Cost {
    /// The name of the reservation.
    pub(super) fn name<'a>(&'a self, lease: &'a RequestLease) -> &'a str {
        self.job.as_ref().map_or(&lease.id, |job| job.id.as_str())
    }

    /// The reservation of a request that is expected to take so many tokens.
    pub(super) fn reserved<'a>(&'a self, lease: &'a RequestLease, tokens: u64) -> Money<'a> {
        let lease_ms = self.job.as_ref().map_or(lease.lease_ms, |job| job.lease_ms);
        Money { name: self.name(lease), amount: self.of(tokens), lease_ms }
    }

    /// The reservation of a request that has ended, if it is to be changed. The job that it submitted has the money from
    /// then on; one that was not submitted needs none.
    pub(super) fn settled<'a>(
        &'a self,
        lease: &'a RequestLease,
        tokens: u64,
        is_submitted: bool,
    ) -> Option<Money<'a>> {
        let name = self.name(lease);
        match &self.job {
            Some(_) if is_submitted => None,
            Some(_) => Some(Money { name, amount: 0, lease_ms: 0 }),
            None => Some(Money { name, amount: self.of(tokens), lease_ms: SUMMED_UP_WITHIN_MS }),
        }
    }

    /// What so many tokens cost, rounded up.
    fn of(&self, tokens: u64) -> u64 {
        let whole = u128::from(tokens) * u128::from(self.per_million);
        u64::try_from(whole.div_ceil(MILLION)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> RequestLease {
        RequestLease {
            tenant: "acme".parse().unwrap(),
            id: "lease".to_owned(),
            lease_ms: 30_000,
            window_ms: 60_000,
        }
    }

    #[test]
    fn a_request_s_money_is_what_it_took_until_that_is_summed_up() {
        let (cost, lease) = (Cost { per_million: 20_000_000, job: None }, lease());
        let reserved = Money { name: "lease", amount: 200, lease_ms: 30_000 };
        assert_eq!(cost.reserved(&lease, 10), reserved);
        let settled = Money { name: "lease", amount: 140, lease_ms: SUMMED_UP_WITHIN_MS };
        assert_eq!(cost.settled(&lease, 7, false), Some(settled));
        assert_eq!(Cost { per_million: 1, job: None }.reserved(&lease, 1).amount, 1, "rounded up");
    }

    #[test]
    fn the_money_of_a_job_that_was_submitted_is_left_and_of_one_that_was_not_is_free() {
        let job = SubmittedJob { id: "j1".parse().unwrap(), lease_ms: 5 };
        let (cost, lease) = (Cost { per_million: 1_000_000, job: Some(job) }, lease());
        assert_eq!(cost.reserved(&lease, 3), Money { name: "j1", amount: 3, lease_ms: 5 });
        assert_eq!(cost.settled(&lease, 3, true), None);
        let free = Money { name: "j1", amount: 0, lease_ms: 0 };
        assert_eq!(cost.settled(&lease, 3, false), Some(free));
    }
}
