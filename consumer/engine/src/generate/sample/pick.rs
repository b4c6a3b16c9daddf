//! One pick. The order of the steps is vLLM's (docs, "Logits processors and sampling"): mask, log-probabilities, bans,
//! biases, penalties; then the likeliest token, or temperature, `min_p`, `top_k`, `top_p` and a draw.

use super::mask::TokenMask;
use super::sampling::{History, Sampling};
use super::{adjust, candidates, math, philox};

/// Temperatures below this take the likeliest token, as in vLLM.
const TEMPERATURE_MIN: f32 = 1e-5;
/// Above this all candidates are equally likely anyway.
const TEMPERATURE_MAX: f32 = 1e30;

/// A picked token.
#[derive(Clone, Debug, PartialEq)]
pub struct Picked {
    /// Its id: an index of the logits.
    pub token: u32,
    /// Its log-probability by the model, among the tokens that the mask allows; bias, penalties and temperature don't
    /// count. 0 where [`Sampling::logprobs`] is `None`.
    pub logprob: f32,
    /// The likeliest tokens with their log-probabilities, likeliest first: as many as [`Sampling::logprobs`] says, or
    /// fewer if the mask allows fewer.
    pub top: Vec<(u32, f32)>,
}

/// Why no token could be picked. It is an error of this sequence alone.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PickError {
    /// The model computed numbers that mean nothing.
    #[error("the logit of token {token} is not a finite number")]
    NotANumber {
        /// The first such token.
        token: usize,
    },
    /// Mask and bias together leave no token.
    #[error(
        "no token is allowed at output position {position}: mask and logit_bias exclude them all"
    )]
    NothingAllowed {
        /// The position in the output.
        position: usize,
    },
}

/// Picks the next token from the logits of the last one, which it changes on the way.
pub fn pick(
    logits: &mut [f32],
    sampling: &Sampling,
    history: History<'_>,
    mask: Option<&TokenMask>,
) -> Result<Picked, PickError> {
    check(logits)?;
    if let Some(mask) = mask {
        adjust::apply_mask(logits, mask);
    }
    let by_model = sampling.logprobs.map(|top| ByModel::of(logits, top));
    if history.output.len() < sampling.min_tokens {
        adjust::ban_ends(logits, sampling);
    }
    adjust::add_biases(logits, &sampling.logit_bias);
    adjust::apply_penalties(logits, sampling, history);
    let position = history.output.len();
    let token = choose(logits, sampling, position).ok_or(PickError::NothingAllowed { position })?;
    Ok(match by_model {
        Some(by_model) => Picked { token, logprob: by_model.logprob(token), top: by_model.top },
        None => Picked { token, logprob: 0.0, top: Vec::new() },
    })
}

/// Refuses NaN and positive infinity. (Some models exclude tokens by a negative infinity.)
fn check(logits: &[f32]) -> Result<(), PickError> {
    const CHUNK: usize = 1024;
    let is_wrong = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    for (chunk, numbers) in logits.chunks(CHUNK).enumerate() {
        // All of a chunk first, without a branch in between: loops like this are vectorized.
        if numbers.iter().fold(false, |wrong, logit| wrong | is_wrong(logit)) {
            let at = numbers.iter().position(is_wrong).unwrap_or_default();
            return Err(PickError::NotANumber { token: chunk * CHUNK + at });
        }
    }
    Ok(())
}

/// The log-probabilities before anything but the mask changed them.
struct ByModel {
    logits: Vec<f32>,
    largest: f32,
    log_sum: f64,
    top: Vec<(u32, f32)>,
}

impl ByModel {
    fn of(logits: &[f32], top: usize) -> Self {
        let largest = math::largest(logits);
        // Without any allowed token nothing is asked of this.
        let sum = math::sum_of_exp(logits, largest);
        let log_sum = if sum > 0.0 { math::ln(sum) } else { 0.0 };
        let mut it = Self { logits: logits.to_vec(), largest, log_sum, top: Vec::new() };
        it.top =
            likeliest(logits, top).into_iter().map(|token| (token, it.logprob(token))).collect();
        it
    }

    fn logprob(&self, token: u32) -> f32 {
        (f64::from(self.logits[token as usize] - self.largest) - self.log_sum) as f32
    }
}

/// The allowed tokens with the largest logits, largest first, those with lower ids first among equals.
fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut found: Vec<(f32, u32)> = Vec::new();
    let mut least = f32::NEG_INFINITY;
    for (token, &logit) in logits.iter().enumerate() {
        if logit > least && count > 0 {
            found.truncate(count - 1);
            let at = found.partition_point(|&(other, _)| other >= logit);
            found.insert(at, (logit, token as u32));
            if found.len() == count {
                least = found[count - 1].0;
            }
        }
    }
    found.into_iter().map(|(_, token)| token).collect()
}

/// The likeliest token or a drawn one; `None` if all are excluded.
fn choose(logits: &mut [f32], sampling: &Sampling, position: usize) -> Option<u32> {
    let largest = math::largest(logits);
    if largest == f32::NEG_INFINITY {
        return None;
    }
    // NaN counts as 0.
    if sampling.temperature.is_nan()
        || sampling.temperature < TEMPERATURE_MIN
        || sampling.top_k == 1
    {
        return logits.iter().position(|&logit| logit >= largest).map(|token| token as u32);
    }
    let inverse = 1.0 / sampling.temperature.min(TEMPERATURE_MAX);
    // The likeliest token always stays.
    let min_p = if sampling.min_p > 1.0 { 1.0 } else { sampling.min_p };
    for logit in &mut *logits {
        let weight = math::exp((*logit - largest) * inverse);
        *logit = if weight < min_p { 0.0 } else { weight };
    }
    let share = philox::uniform(sampling.seed, position as u64);
    candidates::draw_restricted(logits, sampling.top_k, sampling.top_p, share)
}
