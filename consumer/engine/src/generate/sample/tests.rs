//! Picks as a whole.

use proptest::prelude::*;

use super::*;

/// Draws of which the frequencies of tokens are counted.
const DRAWS: u64 = 50_000;
const NOTHING: History<'_> = History { prompt: &[], output: &[] };

fn token(logits: &[f32], sampling: &Sampling, history: History<'_>) -> u32 {
    pick(&mut logits.to_vec(), sampling, history, None).unwrap().token
}

/// Logits that look like a model's: most tokens are unlikely.
fn spread(count: usize) -> Vec<f32> {
    (0..count as u32)
        .map(|at| ((at.wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0 - 0.5) * 24.0)
        .collect()
}

#[test]
fn greedy_takes_the_first_of_the_likeliest() {
    let sampling = Sampling::default();
    assert_eq!(token(&[1.0, 3.0, 3.0, 2.0], &sampling, NOTHING), 1);
    let warm = Sampling { temperature: 1.0, top_k: 1, ..Sampling::default() };
    assert_eq!(token(&[1.0, 3.0, 3.0, 2.0], &warm, NOTHING), 1);
    let tiny = Sampling { temperature: 1e-9, ..Sampling::default() };
    assert_eq!(token(&[1.0, 3.0, 3.0, 2.0], &tiny, NOTHING), 1);
}

/// A change of these values changes the answers of every job with a seed: only on purpose.
#[test]
fn drawn_tokens_are_the_bits_of_seed_and_position() {
    let logits = spread(50_000);
    let sampling = Sampling { temperature: 0.8, top_p: 0.95, seed: 7, ..Sampling::default() };
    let output = [0; 12];
    let drawn: Vec<u32> = (0..12)
        .map(|at| token(&logits, &sampling, History { prompt: &[1, 2], output: &output[..at] }))
        .collect();
    assert_eq!(
        drawn,
        [47732, 20350, 309, 19528, 14517, 16965, 40132, 13538, 652, 28424, 37917, 39658]
    );
}

#[test]
fn tokens_are_drawn_as_often_as_they_are_likely() {
    let logits = [2.0, 0.0, -1.0, 1.0, f32::NEG_INFINITY];
    let temperature = 0.7;
    let weights = logits.map(|logit: f32| f64::from(logit / temperature).exp());
    let sum: f64 = weights.iter().sum();
    let mut counts = [0u32; 5];
    for seed in 0..DRAWS {
        let sampling = Sampling { temperature, seed, ..Sampling::default() };
        counts[token(&logits, &sampling, NOTHING) as usize] += 1;
    }
    for (count, weight) in counts.iter().zip(weights) {
        let share = weight / sum;
        let deviation = (DRAWS as f64 * share * (1.0 - share)).sqrt();
        assert!((f64::from(*count) - DRAWS as f64 * share).abs() <= 4.0 * deviation, "{counts:?}");
    }
}

#[test]
fn log_probabilities_are_the_models_own() {
    let logits = spread(1_000);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    let right = |token: u32| f64::from(logits[token as usize]) - sum.ln();
    let sampling = Sampling {
        temperature: 1.5,
        logit_bias: vec![(3, 100.0)],
        logprobs: Some(5),
        ..Sampling::default()
    };
    let picked = pick(&mut logits.clone(), &sampling, NOTHING, None).unwrap();
    assert_eq!(picked.token, 3);
    assert!((f64::from(picked.logprob) - right(3)).abs() < 1e-5);
    let mut order: Vec<u32> = (0..1_000).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    assert_eq!(picked.top.iter().map(|&(token, _)| token).collect::<Vec<_>>(), order[..5]);
    for (token, logprob) in picked.top {
        assert!((f64::from(logprob) - right(token)).abs() < 1e-5);
    }
}

#[test]
fn ends_wait_until_there_are_enough_tokens() {
    let sampling = Sampling {
        min_tokens: 2,
        end_token_ids: vec![1],
        stop_token_ids: vec![2],
        ..Sampling::default()
    };
    let logits = [0.0, 5.0, 4.0];
    assert_eq!(token(&logits, &sampling, History { prompt: &[], output: &[0] }), 0);
    assert_eq!(token(&logits, &sampling, History { prompt: &[], output: &[0, 0] }), 1);
    assert!(sampling.ends(1) && sampling.ends(2) && !sampling.ends(0));
    let on = Sampling { ignore_eos: true, ..sampling };
    assert!(!on.ends(1) && on.ends(2));
}

#[test]
fn what_cannot_be_picked_is_an_error() {
    let sampling = Sampling { logprobs: Some(2), temperature: 1.0, ..Sampling::default() };
    let none = TokenMask::of([]);
    let pick = |logits: &[f32], mask| pick(&mut logits.to_vec(), &sampling, NOTHING, mask);
    assert_eq!(pick(&[0.0; 3], Some(&none)), Err(PickError::NothingAllowed { position: 0 }));
    assert_eq!(pick(&[], None), Err(PickError::NothingAllowed { position: 0 }));
    let mut logits = vec![0.0; 3_000];
    logits[2_500] = f32::NAN;
    assert_eq!(pick(&logits, None), Err(PickError::NotANumber { token: 2_500 }));
    logits[1] = f32::INFINITY;
    assert_eq!(pick(&logits, None), Err(PickError::NotANumber { token: 1 }));
}

fn any_sampling() -> impl Strategy<Value = Sampling> {
    let number = || prop_oneof![Just(0.0f32), Just(1.0), 0.0f32..2.0, -2.0f32..0.0, any::<f32>()];
    let numbers = (number(), number(), number(), number(), number(), number());
    (
        numbers,
        0usize..40,
        any::<u64>(),
        proptest::collection::vec((0u32..80, number()), 0..4),
        0usize..4,
    )
        .prop_map(
            |(
                (temperature, top_p, min_p, presence, frequency, repetition),
                top_k,
                seed,
                logit_bias,
                min_tokens,
            )| Sampling {
                temperature,
                top_k,
                top_p,
                min_p,
                presence_penalty: presence,
                frequency_penalty: frequency,
                repetition_penalty: repetition,
                logit_bias,
                seed,
                logprobs: (seed % 3 > 0).then_some(seed as usize % 7),
                min_tokens,
                ignore_eos: seed % 2 == 0,
                stop_token_ids: vec![seed as u32 % 90],
                end_token_ids: vec![2, 1_000],
            },
        )
}

proptest! {
    #[test]
    fn whatever_the_parameters_an_allowed_token_is_picked_and_again_the_next_time(
        logits in proptest::collection::vec(-30.0f32..30.0, 1..80),
        sampling in any_sampling(),
        prompt in proptest::collection::vec(0u32..90, 0..20),
        output in proptest::collection::vec(0u32..90, 0..5),
        allowed in proptest::option::of(proptest::collection::vec(0u32..90, 1..9)),
    ) {
        let mask = allowed.map(TokenMask::of);
        let history = History { prompt: &prompt, output: &output };
        let first = pick(&mut logits.clone(), &sampling, history, mask.as_ref());
        let second = pick(&mut logits.clone(), &sampling, history, mask.as_ref());
        prop_assert_eq!(&first, &second);
        let fits = |token: u32| (token as usize) < logits.len() && mask.as_ref().is_none_or(|mask| mask.allows(token));
        match first {
            Ok(picked) => {
                prop_assert!(fits(picked.token));
                prop_assert!(picked.top.iter().all(|&(token, logprob)| fits(token) && logprob <= 1e-6));
                prop_assert!(picked.top.len() <= sampling.logprobs.unwrap_or(0));
            }
            Err(PickError::NothingAllowed { .. }) => {
                let bans = |bias: f32| bias.is_nan() || bias <= -1e38;
                let biases = &sampling.logit_bias;
                let banned = |token| biases.iter().any(|&(id, bias)| id == token && bans(bias));
                prop_assert!((0..logits.len() as u32).all(|token| !fits(token) || banned(token)
                    || sampling.stop_token_ids.contains(&token) || sampling.end_token_ids.contains(&token)));
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    /// A token that others of the vocabulary don't change: what the mask excludes could as well not be there.
    #[test]
    fn excluded_tokens_change_nothing(
        logits in proptest::collection::vec(-5.0f32..5.0, 1..40),
        others in proptest::collection::vec(-50.0f32..50.0, 0..40),
        seed in any::<u64>(),
        top_p in 0.0f32..1.0,
    ) {
        let sampling = Sampling { temperature: 0.9, top_p, seed, logprobs: Some(3), ..Sampling::default() };
        let mask = TokenMask::of(0..logits.len() as u32);
        let mut more = [logits.clone(), others].concat();
        let alone = pick(&mut logits.clone(), &sampling, NOTHING, None).unwrap();
        let among = pick(&mut more, &sampling, NOTHING, Some(&mask)).unwrap();
        prop_assert_eq!(alone.token, among.token);
    }
}
