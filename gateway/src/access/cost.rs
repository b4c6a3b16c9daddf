//! [`Cost`]: the money that a request is expected to cost, and its reservation within the tenant's budget.

use forebay_fabric::{
    access::{Money, RequestLease},
    config::Price,
};
use forebay_schemas::JobId;

/// How long the money of a request that has ended stays reserved, in milliseconds: until its usage is surely summed up,
/// which takes seconds.
const SUMMED_UP_WITHIN_MS: u64 = 15_000;
const MILLION: u128 = 1_000_000;

/// Tokens that a request takes, or is expected to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Those that are read.
    pub input: u64,
    /// Those that are written.
    pub output: u64,
}

impl Tokens {
    /// Both together, which limits count.
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

impl From<u64> for Tokens {
    /// Of a task that writes none.
    fn from(input: u64) -> Self {
        Self { input, output: 0 }
    }
}

/// The cost of a request's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// The price of the model's tokens.
    pub price: Price,
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
    pub(super) fn reserved<'a>(&'a self, lease: &'a RequestLease, tokens: Tokens) -> Money<'a> {
        let lease_ms = self.job.as_ref().map_or(lease.lease_ms, |job| job.lease_ms);
        Money { name: self.name(lease), amount: self.of(tokens), lease_ms }
    }

    /// The reservation of a request that has ended, if it is to be changed. The job that it submitted has the money
    /// from then on; one that was not submitted needs none.
    pub(super) fn settled<'a>(
        &'a self,
        lease: &'a RequestLease,
        tokens: Tokens,
        is_submitted: bool,
    ) -> Option<Money<'a>> {
        let name = self.name(lease);
        match &self.job {
            Some(_) if is_submitted => None,
            Some(_) => Some(Money { name, amount: 0, lease_ms: 0 }),
            None => Some(Money { name, amount: self.of(tokens), lease_ms: SUMMED_UP_WITHIN_MS }),
        }
    }

    /// The cost of so many tokens, rounded up.
    pub fn of(&self, tokens: Tokens) -> u64 {
        let of = |tokens: u64, per_million: u64| u128::from(tokens) * u128::from(per_million);
        let input = of(tokens.input, self.price.input_per_million);
        let whole = input.saturating_add(of(tokens.output, self.price.output_per_million));
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

    fn price(input_per_million: u64) -> Price {
        Price { input_per_million, output_per_million: 3_000_000 }
    }

    #[test]
    fn text_that_is_written_costs_what_it_costs() {
        let cost = Cost { price: price(1_000_000), job: None };
        let tokens = Tokens { input: 5, output: 7 };
        assert_eq!((cost.of(tokens), tokens.total()), (26, 12));
        let endless = Tokens { input: u64::MAX, output: u64::MAX };
        assert_eq!((cost.of(endless), endless.total()), (u64::MAX, u64::MAX));
    }

    #[test]
    fn a_request_s_money_is_what_it_took_until_that_is_summed_up() {
        let cost = Cost { price: price(20_000_000), job: None };
        let lease = lease();
        let reserved = Money { name: "lease", amount: 200, lease_ms: 30_000 };
        assert_eq!(cost.reserved(&lease, 10.into()), reserved);
        let settled = Money { name: "lease", amount: 140, lease_ms: SUMMED_UP_WITHIN_MS };
        assert_eq!(cost.settled(&lease, 7.into(), false), Some(settled));
        let cheap = Cost { price: price(1), job: None };
        assert_eq!(cheap.reserved(&lease, 1.into()).amount, 1, "rounded up");
    }

    #[test]
    fn the_money_of_a_job_that_was_submitted_is_left_and_of_one_that_was_not_is_free() {
        let job = SubmittedJob { id: "j1".parse().unwrap(), lease_ms: 5 };
        let cost = Cost { price: price(1_000_000), job: Some(job) };
        let lease = lease();
        assert_eq!(cost.reserved(&lease, 3.into()), Money { name: "j1", amount: 3, lease_ms: 5 });
        assert_eq!(cost.settled(&lease, 3.into(), true), None);
        let free = Money { name: "j1", amount: 0, lease_ms: 0 };
        assert_eq!(cost.settled(&lease, 3.into(), false), Some(free));
    }
}
