//! Which tokens stay candidates by `top_k` and `top_p`, and the draw among them.
//!
//! Nothing is sorted but the tokens of about one likelihood: a histogram says in which of its buckets a limit falls,
//! and only that bucket's members are put in order. Weights are probabilities times a constant: the likeliest token's
//! is 1, and an excluded token's 0.

use std::cmp::Ordering;

use super::math;

/// Buckets are the leading bits of a weight: its exponent and four bits of its mantissa, so that the weights of a
/// bucket are within a sixteenth of each other.
const BUCKET_SHIFT: u32 = 19;
const BUCKETS: usize = (1.0f32.to_bits() >> BUCKET_SHIFT) as usize + 1;
/// Numbers whose sum is known, to find where a draw falls without adding up all.
const BLOCK: usize = 256;

/// The last token that stays: likelier ones do too, and so do equally likely ones with lower ids.
#[derive(Clone, Copy, Debug)]
struct Last {
    weight: f32,
    token: u32,
}

impl Last {
    fn keeps(self, weight: f32, token: u32) -> bool {
        match weight.total_cmp(&self.weight) {
            Ordering::Greater => true,
            Ordering::Equal => token <= self.token,
            Ordering::Less => false,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    count: usize,
    sum: f64,
}

fn bucket_of(weight: f32) -> usize {
    ((weight.to_bits() >> BUCKET_SHIFT) as usize).min(BUCKETS - 1)
}

/// Sets the weights of all tokens to 0 that `top_k` (0: all stay) and then `top_p` (1: all stay) exclude. `top_p`
/// counts in shares of what `top_k` left, as vLLM's does.
pub(super) fn restrict(weights: &mut [f32], top_k: usize, top_p: f32) {
    let limits_k = top_k > 0 && top_k < weights.len();
    let limits_p = top_p < 1.0;
    if !limits_k && !limits_p {
        return;
    }
    let mut buckets = vec![Bucket::default(); BUCKETS];
    for &weight in weights.iter().filter(|&&weight| weight > 0.0) {
        let bucket = &mut buckets[bucket_of(weight)];
        bucket.count += 1;
        bucket.sum += f64::from(weight);
    }
    let mut last = None;
    if limits_k {
        last = last_of_top_k(weights, &mut buckets, top_k);
    }
    if limits_p {
        last = last_of_top_p(weights, &buckets, last, top_p).or(last);
    }
    let Some(last) = last else { return };
    for (token, weight) in weights.iter_mut().enumerate() {
        *weight = if last.keeps(*weight, token as u32) { *weight } else { 0.0 };
    }
}

/// The members of a bucket, likeliest first, without those that come after `last`.
fn members(weights: &[f32], bucket: usize, last: Option<Last>) -> Vec<Last> {
    let mut members = Vec::new();
    for (token, &weight) in weights.iter().enumerate() {
        let token = token as u32;
        if weight > 0.0
            && bucket_of(weight) == bucket
            && last.is_none_or(|last| last.keeps(weight, token))
        {
            members.push(Last { weight, token });
        }
    }
    members.sort_unstable_by(|a, b| b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token)));
    members
}

/// The last of the `top_k` likeliest; `None` if there are no more than those. What comes after it leaves the buckets.
fn last_of_top_k(weights: &[f32], buckets: &mut [Bucket], top_k: usize) -> Option<Last> {
    let mut left = top_k;
    let at = (0..BUCKETS).rev().find(|&at| {
        let is_here = buckets[at].count >= left;
        left -= if is_here { 0 } else { buckets[at].count };
        is_here
    })?;
    let mut members = members(weights, at, None);
    members.truncate(left);
    buckets[..at].fill(Bucket::default());
    buckets[at].count = members.len();
    buckets[at].sum = members.iter().map(|member| f64::from(member.weight)).sum();
    members.last().copied()
}

/// The last of the fewest likeliest tokens whose share reaches `top_p`: at least one token.
fn last_of_top_p(
    weights: &[f32],
    buckets: &[Bucket],
    last: Option<Last>,
    top_p: f32,
) -> Option<Last> {
    let total: f64 = buckets.iter().rev().map(|bucket| bucket.sum).sum();
    let wanted = f64::from(top_p) * total;
    let mut reached = 0.0;
    let at = (0..BUCKETS).rev().find(|&at| {
        let is_here = buckets[at].count > 0 && reached + buckets[at].sum >= wanted;
        reached += if is_here { 0.0 } else { buckets[at].sum };
        is_here
    })?;
    let members = members(weights, at, last);
    let found = members.iter().find(|member| {
        reached += f64::from(member.weight);
        reached >= wanted
    });
    found.or(members.last()).copied()
}

/// The token at a share of [0, 1) of all weights, which lie end to end in the order of ids; `None` if all are 0.
pub(super) fn draw(weights: &[f32], share: f64) -> Option<u32> {
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
    fn restricted(weights: &[f32], top_k: usize, top_p: f32) -> Vec<f32> {
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
            let mut ours = weights.clone();
            restrict(&mut ours, top_k, top_p);
            prop_assert_eq!(ours, restricted(&weights, top_k, top_p));
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
        let mut weights = vec![1.0; 100];
        restrict(&mut weights, 7, 1.0);
        assert!((0..100).all(|at| (weights[at] > 0.0) == (at < 7)));
        let mut weights = vec![1.0; 100];
        restrict(&mut weights, 0, 0.25);
        assert_eq!(weights.iter().filter(|&&weight| weight > 0.0).count(), 25);
    }
}
