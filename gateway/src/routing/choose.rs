//! The choice among a route's targets. Pure.
//!
//! Tiers come first, then prices where the route prefers them, then weights: within a tier each target draws an
//! exponential time with its weight as the rate, and the earliest is first. So a target comes first with the share of
//! its weight, and so it does among those that are left when others are passed over. Draws that are hashes of a caller
//! make the choice the caller's own; it changes only where the target itself goes or comes (rendezvous hashing).

use std::{cmp::Ordering, time::Duration};

use forebay_fabric::config::Price;
use forebay_schemas::ModelId;
use sha2::{Digest, Sha256};

/// A model that a route leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The model.
    pub model: ModelId,
    /// Its tier; lower ones come first.
    pub tier: u32,
    /// Its share among those of its tier.
    pub weight: u32,
    /// Its price, where the route prefers cheap ones.
    pub price: Option<Price>,
}

/// The outlook of one more request to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// Nothing is known: it counts neither for the model nor against it.
    Unknown,
    /// It will wait so long before it is computed.
    Wait(Duration),
    /// Its endpoint fails, and no worker calls it at present.
    Away,
}

impl Outlook {
    /// The predicted wait, where there is one.
    pub fn wait(self) -> Option<Duration> {
        match self {
            Self::Wait(wait) => Some(wait),
            Self::Unknown | Self::Away => None,
        }
    }
}

/// Why a model was asked. Part of an answer's header, and a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It was the first by tier, price and weight.
    First,
    /// The one before would have kept the request waiting for longer than its bound.
    PredictedWait,
    /// The one before is a remote model whose endpoint fails.
    CircuitOpen,
    /// All would keep the request waiting for longer than its bound, and this one the shortest.
    ShortestWait,
    /// The one before failed.
    Failure,
    /// The one before did not answer in its time.
    Timeout,
}

impl Reason {
    /// The word in headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::PredictedWait => "predicted_wait",
            Self::CircuitOpen => "circuit_open",
            Self::ShortestWait => "shortest_wait",
            Self::Failure => "failure",
            Self::Timeout => "timeout",
        }
    }
}

/// The targets to ask, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// All targets, by their indices.
    pub order: Vec<usize>,
    /// Why the first of them is the first.
    pub reason: Reason,
}

/// Chooses among `targets`, whose outlooks are in the same order: those whose predicted wait is over `bound` come last.
/// `draw` is a number between 0 and 1 for each target.
pub fn choose(
    targets: &[Target],
    outlooks: &[Outlook],
    bound: Duration,
    draw: impl Fn(&Target) -> f64,
) -> Choice {
    let times: Vec<f64> =
        targets.iter().map(|target| -draw(target).ln() / f64::from(target.weight.max(1))).collect();
    let mut preferred: Vec<usize> = (0..targets.len()).collect();
    preferred.sort_by(|&a, &b| {
        let by_rank = rank(&targets[a]).cmp(&rank(&targets[b]));
        by_rank.then(times[a].total_cmp(&times[b]))
    });
    let outlook = |index: usize| outlooks.get(index).copied().unwrap_or(Outlook::Unknown);
    let is_passed_over = |index: &usize| match outlook(*index) {
        Outlook::Unknown => false,
        Outlook::Wait(wait) => wait > bound,
        Outlook::Away => true,
    };
    let (mut last, mut order): (Vec<usize>, Vec<usize>) =
        preferred.iter().copied().partition(is_passed_over);
    let reason = match (order.first(), preferred.first()) {
        (Some(first), Some(best)) if first != best => match outlook(*best) {
            Outlook::Away => Reason::CircuitOpen,
            Outlook::Wait(_) | Outlook::Unknown => Reason::PredictedWait,
        },
        (Some(_), _) => Reason::First,
        (None, _) => {
            // Stable: where no wait is known, the preferred one stays the first.
            last.sort_by(|&a, &b| by_wait(outlook(a), outlook(b)));
            if last.first() == preferred.first() { Reason::First } else { Reason::ShortestWait }
        }
    };
    order.append(&mut last);
    Choice { order, reason }
}

/// The rank, which comes before weights: the tier, then the prices.
fn rank(target: &Target) -> (u32, u64, u64) {
    let price = |of: fn(&Price) -> u64| target.price.as_ref().map_or(0, of);
    (target.tier, price(|price| price.input_per_million), price(|price| price.output_per_million))
}

fn by_wait(a: Outlook, b: Outlook) -> Ordering {
    match (a.wait(), b.wait()) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// The draw of a caller for a target of a route: the same on every replica and in every version.
pub fn sticky_draw(route: &str, caller: &str, model: &ModelId) -> f64 {
    let mut hash = Sha256::new();
    for part in [route, caller, model.as_str()] {
        // With their lengths: no two triples are one text.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let bits = digest.iter().take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    // 52 bits and a half: a float of the open interval, whatever the bits are.
    ((bits >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

#[cfg(test)]
mod tests;
