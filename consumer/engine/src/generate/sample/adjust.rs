//! Changes of single logits before a token is picked: the mask, bans, biases and penalties.

use super::mask::TokenMask;
use super::sampling::{History, Sampling};

/// Excludes the tokens that the mask doesn't allow.
pub(super) fn apply_mask(logits: &mut [f32], mask: &TokenMask) {
    let mut words = mask.words().iter().copied();
    for chunk in logits.chunks_mut(u32::BITS as usize) {
        match words.next().unwrap_or(0) {
            0 => chunk.fill(f32::NEG_INFINITY),
            u32::MAX => {}
            word => {
                for (bit, logit) in chunk.iter_mut().enumerate() {
                    if word >> bit & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}

/// Excludes the tokens that would end the sequence while it has too few, unless no others are allowed: a guide that is
/// at its end allows nothing else.
pub(super) fn ban_ends(logits: &mut [f32], sampling: &Sampling) {
    let ends = || {
        sampling.stop_token_ids.iter().chain(&sampling.end_token_ids).map(|&token| token as usize)
    };
    let mut banned = Vec::new();
    for token in ends() {
        if let Some(logit) = logits.get_mut(token) {
            banned.push((token, *logit));
            *logit = f32::NEG_INFINITY;
        }
    }
    if logits.iter().all(|&logit| logit == f32::NEG_INFINITY) {
        // Backwards, as a token that stands twice was excluded when it came the second time.
        for (token, logit) in banned.into_iter().rev() {
            logits[token] = logit;
        }
    }
}

/// Adds the biases.
pub(super) fn add_biases(logits: &mut [f32], biases: &[(u32, f32)]) {
    for &(token, bias) in biases {
        if let Some(logit) = logits.get_mut(token as usize) {
            change(logit, |logit| logit + bias);
        }
    }
}

/// Applies the penalties: repetition first, then frequency and presence, as vLLM does.
pub(super) fn apply_penalties(logits: &mut [f32], sampling: &Sampling, history: History<'_>) {
    let Sampling { presence_penalty: presence, frequency_penalty: frequency, .. } = *sampling;
    let repetition = sampling.repetition_penalty;
    let repeats = (repetition - 1.0).abs() > 0.0;
    if !repeats && presence == 0.0 && frequency == 0.0 {
        return;
    }
    // Times that the output has a token, with one added if the token was seen at all.
    let mut seen = vec![0u32; logits.len()];
    for &token in history.output {
        if let Some(count) = seen.get_mut(token as usize) {
            *count = if *count == 0 { 2 } else { count.saturating_add(1) };
        }
    }
    for &token in history.prompt {
        if let Some(count) = seen.get_mut(token as usize) {
            *count = (*count).max(1);
        }
    }
    for &token in history.prompt.iter().chain(history.output) {
        let Some(count) = seen.get_mut(token as usize).map(std::mem::take) else { continue };
        if count == 0 {
            continue; // it was handled when it came first
        }
        let logit = &mut logits[token as usize];
        if repeats {
            change(
                logit,
                |logit| if logit > 0.0 { logit / repetition } else { logit * repetition },
            );
        }
        if count > 1 {
            change(logit, |logit| logit - frequency * (count - 1) as f32 - presence);
        }
    }
}

/// Changes a logit of a token that is not excluded. Parameters that would make it no number leave it as it is.
fn change(logit: &mut f32, by: impl FnOnce(f32) -> f32) {
    let changed = by(*logit);
    if *logit != f32::NEG_INFINITY && !changed.is_nan() {
        *logit = changed.min(f32::MAX);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)]

    use super::*;

    const OUT: f32 = f32::NEG_INFINITY;

    #[test]
    fn a_mask_excludes_what_it_does_not_allow_and_what_it_does_not_reach() {
        let mut logits = vec![1.0; 70];
        apply_mask(&mut logits, &TokenMask::of([0, 33, 63]));
        let left: Vec<usize> = (0..70).filter(|&at| logits[at] != OUT).collect();
        assert_eq!(left, [0, 33, 63]);
        let mut logits = vec![1.0; 70];
        apply_mask(&mut logits, &TokenMask::from_words(vec![u32::MAX, u32::MAX]));
        assert!((0..70).all(|at| (logits[at] == OUT) == (at >= 64)));
    }

    #[test]
    fn penalties_are_those_of_their_formulas() {
        let sampling = Sampling {
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            repetition_penalty: 2.0,
            ..Sampling::default()
        };
        let mut logits = vec![4.0, 4.0, -4.0, -4.0, 4.0];
        let history = History { prompt: &[0, 2, 2, 99], output: &[1, 1, 3, 1, 98] };
        apply_penalties(&mut logits, &sampling, history);
        assert_eq!(logits, [2.0, 2.0 - 0.75 - 0.5, -8.0, -8.0 - 0.25 - 0.5, 4.0]);
    }

    #[test]
    fn the_last_tokens_are_not_banned() {
        let sampling =
            Sampling { end_token_ids: vec![1, 9], stop_token_ids: vec![1], ..Sampling::default() };
        let mut logits = vec![1.0, 2.0, 3.0];
        ban_ends(&mut logits, &sampling);
        assert_eq!(logits, [1.0, OUT, 3.0]);
        let mut logits = vec![OUT, 2.0, OUT];
        ban_ends(&mut logits, &sampling);
        assert_eq!(logits, [OUT, 2.0, OUT]);
    }

    #[test]
    fn absurd_parameters_leave_numbers() {
        for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0] {
            let sampling = Sampling {
                presence_penalty: number,
                frequency_penalty: number,
                repetition_penalty: number,
                ..Sampling::default()
            };
            let mut logits = vec![4.0, 0.0, -4.0, OUT];
            let history = History { prompt: &[0, 1, 2, 3], output: &[0, 0, 1, 1, 2, 2, 3, 3] };
            apply_penalties(&mut logits, &sampling, history);
            add_biases(&mut logits, &[(0, number), (1, number), (2, number), (3, number)]);
            assert!(
                logits.iter().all(|logit| !logit.is_nan() && *logit <= f32::MAX),
                "{number}: {logits:?}"
            );
            assert_eq!(logits[3], OUT);
        }
    }
}
