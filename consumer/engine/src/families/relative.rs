//! Attention biases that depend only on the distance between a key and its query.

use candle_core::{Device, Tensor};

use crate::error::EngineError;

/// `[heads, 2 * tokens - 1]`, the middle column for a distance of 0: `bias(head, key - query)`.
fn by_distance(
    heads: usize,
    tokens: usize,
    bias: impl Fn(usize, isize) -> f32,
) -> Result<Tensor, EngineError> {
    let reach = tokens as isize - 1;
    let row = |head| (-reach..=reach).map(move |distance| (head, distance));
    let values: Vec<f32> =
        (0..heads).flat_map(row).map(|(head, distance)| bias(head, distance)).collect();
    Ok(Tensor::from_vec(values, (heads, 2 * tokens - 1), &Device::Cpu)?)
}

/// `MPNet`'s relative position bias: `table` is `[buckets, heads]`.
pub(super) fn bucketed(table: &Tensor, tokens: usize) -> Result<Tensor, EngineError> {
    let (buckets, heads) = table.dims2()?;
    let values: Vec<f32> = table.flatten_all()?.to_vec1()?;
    by_distance(heads, tokens, |head, distance| values[bucket(distance, buckets) * heads + head])
}

/// Half of the buckets for each side; of a side the nearer half one distance each, the others growing with the
/// logarithm up to 128 tokens, as in T5.
fn bucket(key_minus_query: isize, buckets: usize) -> usize {
    const DISTANCE_MAX: f32 = 128.0;
    let side = buckets / 2;
    let exact = side / 2;
    let after = if key_minus_query > 0 { side } else { 0 };
    let distance = key_minus_query.unsigned_abs();
    if distance < exact {
        return after + distance;
    }
    // In f32, as PyTorch takes it: the cut to a whole number depends on it.
    let exact_f32 = exact as f32;
    let share = (distance as f32 / exact_f32).ln() / (DISTANCE_MAX / exact_f32).ln();
    let far = exact + (share * (side - exact) as f32) as usize;
    after + far.min(side - 1)
}

/// `ALiBi` on both sides (Press et al. 2021, as Jina uses it): each head falls off with a slope of its own.
pub(super) fn alibi(heads: usize, tokens: usize) -> Result<Tensor, EngineError> {
    let slopes = slopes(heads);
    by_distance(heads, tokens, |head, distance| -(distance.unsigned_abs() as f32) * slopes[head])
}

/// For a power of two a geometric series; for other numbers that of the power below, and every second one of the
/// power above.
fn slopes(heads: usize) -> Vec<f32> {
    let series = |count: usize| {
        let start = 2_f64.powf(-8.0 / count as f64);
        (1..=count).map(move |power| start.powi(power as i32) as f32)
    };
    let below = 1 << heads.ilog2();
    series(below).chain(series(2 * below).step_by(2)).take(heads).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_have_buckets_of_their_own_and_far_ones_share() {
        let of = |distance| bucket(distance, 32);
        assert_eq!([0, -1, -7].map(of), [0, 1, 7]);
        assert_eq!([1, 7].map(of), [17, 23]);
        assert_eq!([-8, -11, -12, -127, -500].map(of), [8, 8, 9, 15, 15]);
        assert_eq!(of(10_000), 31);
    }

    #[test]
    fn slopes_are_those_of_the_paper() {
        assert_eq!(slopes(8)[..3], [0.5, 0.25, 0.125]);
        let twelve = slopes(12);
        assert_eq!(twelve.len(), 12);
        assert!((twelve[8] - 0.5_f32.sqrt()).abs() < 1e-6, "{twelve:?}");
    }
}
