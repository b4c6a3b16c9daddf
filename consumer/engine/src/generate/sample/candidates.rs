//! Which tokens stay candidates by `top_k` and `top_p`, and the draw among them.
//!
//! Nothing is sorted but the tokens of about one likelihood. First the tokens are left out that no limit can reach,
//! which are nearly all of a model's. Of the others a histogram says in which of its buckets a limit falls, and only
//! that bucket's members are put in order. Weights are probabilities times a constant: the likeliest token's is 1, and
//! an excluded token's 0.

use std::cmp::Ordering;

use super::math;

/// Buckets are the leading bits of a weight: its exponent and four bits of its mantissa, so that the weights of a
/// bucket are within a sixteenth of each other.
const BUCKET_SHIFT: u32 = 19;
const BUCKETS: usize = (1.0f32.to_bits() >> BUCKET_SHIFT) as usize + 1;
/// Numbers whose sum is known, to find where a draw falls without adding up all.
const BLOCK: usize = 256;
/// Numbers of which the largest is compared for `top_k`.
const GROUP: usize = 64;

/// A token with its weight. In order the likeliest come first, and of equally likely ones those with lower ids.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    weight: f32,
    token: u32,
}

impl Candidate {
    fn order(self, other: Self) -> Ordering {
        other.weight.total_cmp(&self.weight).then(self.token.cmp(&other.token))
    }

    fn bucket(self) -> usize {
        ((self.weight.to_bits() >> BUCKET_SHIFT) as usize).min(BUCKETS - 1)
    }
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    count: usize,
    sum: f64,
}

/// Draws a token at a share of [0, 1) of the weights that `top_k` (0: all stay) and then `top_p` (1: all stay) leave.
/// `top_p` counts in shares of what `top_k` left, as vLLM's does. `None` if all weights are 0.
pub(super) fn draw_restricted(
    weights: &[f32],
    top_k: usize,
    top_p: f32,
    share: f64,
) -> Option<u32> {
    match restricted(weights, top_k, top_p) {
        None => draw(weights, share),
        Some(candidates) => {
            let weights: Vec<f32> = candidates.iter().map(|candidate| candidate.weight).collect();
            draw(&weights, share).map(|at| candidates[at as usize].token)
        }
    }
}

/// The candidates in the order of their ids; `None` if both limits leave all.
fn restricted(weights: &[f32], top_k: usize, top_p: f32) -> Option<Vec<Candidate>> {
    let limits_k = top_k > 0 && top_k < weights.len();
    let limits_p = top_p < 1.0;
    let mut candidates = if limits_k {
        reachable(weights, least_of_top_k(weights, top_k))
    } else if limits_p {
        let total = math::sum_of(weights, |weight| weight);
        // Together the tokens below this have less than the share that `top_p` leaves out. The factor is for rounding.
        let least = (1.0 - f64::from(top_p)).min(1.0) * total / weights.len() as f64 * 0.999;
        reachable(weights, least as f32)
    } else {
        return None;
    };
    if limits_k {
        let last = last_of_top_k(&candidates, top_k);
        keep_up_to(&mut candidates, last);
    }
    if limits_p {
        let total = if limits_k {
            candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
        } else {
            math::sum_of(weights, |weight| weight)
        };
        let last = last_of_share(&candidates, f64::from(top_p) * total);
        keep_up_to(&mut candidates, last);
    }
    Some(candidates)
}

/// The tokens that have at least this weight, and any at all.
fn reachable(weights: &[f32], least: f32) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for (token, &weight) in weights.iter().enumerate() {
        if weight >= least && weight > 0.0 {
            candidates.push(Candidate { weight, token: token as u32 });
        }
    }
    candidates
}

/// A weight that the `top_k` likeliest tokens have at least: so many groups have a token that likely.
fn least_of_top_k(weights: &[f32], top_k: usize) -> f32 {
    let mut largest: Vec<f32> = weights.chunks(GROUP).map(math::largest).collect();
    if top_k > largest.len() {
        return 0.0;
    }
    let (_, least, _) = largest.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a));
    *least
}

fn keep_up_to(candidates: &mut Vec<Candidate>, last: Option<Candidate>) {
    if let Some(last) = last {
        candidates.retain(|candidate| candidate.order(last) != Ordering::Greater);
    }
}

fn histogram(candidates: &[Candidate]) -> Vec<Bucket> {
    let mut buckets = vec![Bucket::default(); BUCKETS];
    for candidate in candidates {
        let bucket = &mut buckets[candidate.bucket()];
        bucket.count += 1;
        bucket.sum += f64::from(candidate.weight);
    }
    buckets
}

/// The members of a bucket in order.
fn members(candidates: &[Candidate], bucket: usize) -> Vec<Candidate> {
    let members = candidates.iter().filter(|candidate| candidate.bucket() == bucket);
    let mut members: Vec<Candidate> = members.copied().collect();
    members.sort_unstable_by(|a, b| a.order(*b));
    members
}

/// The last of the `top_k` likeliest; `None` if there are no more than those.
fn last_of_top_k(candidates: &[Candidate], top_k: usize) -> Option<Candidate> {
    let buckets = histogram(candidates);
    let mut left = top_k;
    for at in (0..BUCKETS).rev() {
        let count = buckets[at].count;
        if count >= left {
            return members(candidates, at).get(left - 1).copied();
        }
        left -= count;
    }
    None
}

/// The last of the fewest likeliest tokens whose weights reach `wanted`: at least one token.
fn last_of_share(candidates: &[Candidate], wanted: f64) -> Option<Candidate> {
    let buckets = histogram(candidates);
    let mut reached = 0.0;
    for at in (0..BUCKETS).rev() {
        if buckets[at].count == 0 || reached + buckets[at].sum < wanted {
            reached += buckets[at].sum;
            continue;
        }
        let members = members(candidates, at);
        let last = members.iter().find(|member| {
            reached += f64::from(member.weight);
            reached >= wanted
        });
        return last.or(members.last()).copied();
    }
    None
}

/// The token at a share of [0, 1) of all weights, which lie end to end in the order of ids; `None` if all are 0.
fn draw(weights: &[f32], share: f64) -> Option<u32> {
    let sums: Vec<f64> =
        weights.chunks(BLOCK).map(|block| math::sum_of(block, |weight| weight)).collect();
    let wanted = share * sums.iter().sum::<f64>();
    let mut before = 0.0;
    let mut found = None;
    for (block, (chunk, &sum)) in weights.chunks(BLOCK).zip(&sums).enumerate() {
        if sum == 0.0 {
            continue;
        }
        if before + sum <= wanted {
            // The block before may be the last one with weights: rounding can leave nothing for a draw to fall on.
            found = Some((block, chunk));
            before += sum;
            continue;
        }
        return in_block(chunk, wanted - before).map(|at| (block * BLOCK + at) as u32);
    }
    let (block, chunk) = found?;
    in_block(chunk, f64::INFINITY).map(|at| (block * BLOCK + at) as u32)
}

/// The first position at which the weights exceed `wanted`, or else the last that has one.
fn in_block(weights: &[f32], wanted: f64) -> Option<usize> {
    let mut before = 0.0;
    let mut last = None;
    for (at, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        before += f64::from(weight);
        last = Some(at);
        if before > wanted {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The specification: sort everything.
    fn sorted(weights: &[f32], top_k: usize, top_p: f32) -> Vec<f32> {
        let mut order: Vec<usize> = (0..weights.len()).filter(|&at| weights[at] > 0.0).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
        if top_k > 0 {
            order.truncate(top_k);
        }
        let total: f64 = order.iter().map(|&at| f64::from(weights[at])).sum();
        let mut before = 0.0;
        if top_p < 1.0 {
            let mut kept = 0;
            for &at in &order {
                before += f64::from(weights[at]);
                kept += 1;
                if before >= f64::from(top_p) * total {
                    break;
                }
            }
            order.truncate(kept);
        }
        let mut left = vec![0.0; weights.len()];
        for at in order {
            left[at] = weights[at];
        }
        left
    }

    /// The weights with 0 for those that are left out.
    fn ours(weights: &[f32], top_k: usize, top_p: f32) -> Vec<f32> {
        let Some(candidates) = restricted(weights, top_k, top_p) else { return weights.to_vec() };
        let mut left = vec![0.0; weights.len()];
        for candidate in candidates {
            left[candidate.token as usize] = candidate.weight;
        }
        left
    }

    /// Weights whose sums are exact, so that both ways of adding agree; many are equal.
    fn weights() -> impl Strategy<Value = Vec<f32>> {
        let weight = prop_oneof![
            Just(0.0f32),
            Just(1.0f32),
            (0u32..20).prop_map(|power| 0.5f32.powi(power as i32)),
            (1u32..4096).prop_map(|number| number as f32 / 4096.0),
        ];
        proptest::collection::vec(weight, 1..700)
    }

    proptest! {
        #[test]
        fn candidates_are_those_of_a_full_sort(
            weights in weights(),
            top_k in 0usize..750,
            top_p in prop_oneof![Just(1.0f32), Just(0.0f32), Just(0.5f32), 0.0f32..1.0],
        ) {
            prop_assert_eq!(ours(&weights, top_k, top_p), sorted(&weights, top_k, top_p));
        }

        #[test]
        fn a_draw_falls_where_the_weights_added_up_say(weights in weights(), share in 0.0f64..1.0) {
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            let mut before = 0.0;
            let right = weights.iter().position(|&weight| {
                before += f64::from(weight);
                before > share * total
            });
            prop_assert_eq!(draw(&weights, share).map(|token| token as usize), right);
        }

        #[test]
        fn what_is_excluded_is_never_drawn(
            weights in proptest::collection::vec(prop_oneof![Just(0.0f32), 0.0f32..1.0], 1..600),
            share in prop_oneof![Just(0.0), Just(1.0 - f64::EPSILON), 0.0f64..1.0],
        ) {
            match draw(&weights, share) {
                Some(token) => prop_assert!(weights[token as usize] > 0.0),
                None => prop_assert!(weights.iter().all(|&weight| weight == 0.0)),
            }
        }
    }

    #[test]
    fn equally_likely_tokens_stay_by_their_ids() {
        let weights = vec![1.0; 100];
        let left = ours(&weights, 7, 1.0);
        assert!((0..100).all(|at| (left[at] > 0.0) == (at < 7)));
        let left = ours(&weights, 0, 0.25);
        assert_eq!(left.iter().filter(|&&weight| weight > 0.0).count(), 25);
    }
}
