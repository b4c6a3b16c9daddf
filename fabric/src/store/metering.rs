//! Metering: a job's entry in the usage stream, written in one step with its terminal record.

use std::{collections::BTreeMap, sync::LazyLock};

use forebay_schemas::{JobId, State, UsageEntry, names::USAGE_STREAM};
use redis::{Cmd, Script};

use crate::config::{Config, Price, format_decimal};

/// The answer of [`WRITE`] where the record was written and its usage was not.
pub(super) const STREAM_FULL: i64 = 2;

/// Writes a record unless its job has one, and if it is the first, its usage. Redis runs a script whole or not at all,
/// and every writer of a record may try again after an error: so each record has one entry. Answers 0 where there was a
/// record, 1 where this one was written, and 2 where the stream was full.
///
/// `XADD` comes second: whatever makes Redis refuse writes, it refuses the first one already.
pub(super) static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if not redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2], 'NX') then return 0 end
         if redis.call('XLEN', KEYS[2]) >= tonumber(ARGV[3]) then return 2 end
         redis.call('XADD', KEYS[2], '*', unpack(ARGV, 4))
         return 1",
    )
});

/// How this fleet meters.
#[derive(Debug)]
pub(super) struct Metering {
    enabled: bool,
    unread_max: u64,
    prices: BTreeMap<String, Named>,
}

/// A price with its name in records.
#[derive(Debug)]
struct Named {
    price: Price,
    name: String,
}

impl Metering {
    pub(super) fn of(config: &Config) -> Self {
        let named = |price: Price| {
            let [input, output] =
                [price.input_per_million, price.output_per_million].map(format_decimal);
            Named { price, name: format!("{input}/{output}") }
        };
        let prices = config.models.iter();
        let prices = prices
            .filter_map(|(model, settings)| Some((model.to_string(), named(settings.price?))));
        let (enabled, unread_max) = (config.usage.enabled, config.usage.unread_max);
        Self { enabled, unread_max, prices: prices.collect() }
    }

    /// Whether jobs are metered at all.
    pub(super) fn is_on(&self) -> bool {
        self.enabled
    }

    /// The call that writes a job's record, kept for `ttl_s`, with its usage.
    pub(super) fn write(&self, id: &JobId, bytes: &[u8], ttl_s: u64, entry: &UsageEntry) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(WRITE.get_hash()).arg(2).arg(id.result_key()).arg(USAGE_STREAM);
        call.arg(bytes).arg(ttl_s).arg(self.unread_max);
        for (field, value) in UsageEntry::FIELDS.into_iter().zip(self.priced(entry).values()) {
            call.arg(field).arg(value);
        }
        call
    }

    /// An entry with what it costs by the price of now. Only a job that succeeded costs anything.
    fn priced(&self, entry: &UsageEntry) -> UsageEntry {
        let mut entry = entry.clone();
        if let Some(Named { price, name }) = self.prices.get(&entry.model) {
            name.clone_into(&mut entry.price);
            if entry.state == State::Succeeded {
                entry.cost = cost(*price, entry.input_tokens, entry.output_tokens);
            }
        }
        entry
    }
}

/// What tokens cost, to the nearest unit of 1e-9.
fn cost(price: Price, input_tokens: u64, output_tokens: u64) -> u64 {
    const MILLION: u128 = 1_000_000;
    let of = |tokens: u64, per_million: u64| u128::from(tokens) * u128::from(per_million);
    let input = of(input_tokens, price.input_per_million);
    let whole = input.saturating_add(of(output_tokens, price.output_per_million));
    u64::try_from(whole.saturating_add(MILLION / 2) / MILLION).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_exact_to_the_nearest_billionth() {
        let price =
            |input_per_million, output_per_million| Price { input_per_million, output_per_million };
        assert_eq!(cost(price(20_000_000, 0), 21, 9), 420);
        assert_eq!(cost(price(1, 0), 499_999, 0), 0);
        assert_eq!(cost(price(1, 0), 500_000, 0), 1);
        assert_eq!(cost(price(2_000_000, 3_000_000), 10, 1), 23);
        assert_eq!(cost(price(u64::MAX, u64::MAX), u64::MAX, u64::MAX), u64::MAX);
    }
}
