//! How decoders turn queries and keys by position: the frequencies, what stretches them for longer texts, and the
//! fields that say so, in the words of transformers 5 (`rope_parameters`) and of older versions (`rope_scaling`).
//!
//! Whatever the model, it ends as a frequency for each pair of values that turns, and one amplitude.

use std::f64::consts::TAU;

use forebay_kernels::Rotary;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::EngineError;
use crate::load::fields::Fields;

/// The largest factor, position count or base that is read: a thousand times what models have.
const NUMBER_MAX: f64 = 1e12;

/// The rotation of one kind of layers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DecoderRope {
    theta: f64,
    /// Values of a head that turn, from the first on.
    turned: usize,
    scaling: Scaling,
    /// The amplitude of scores that is not in what turns (`mscale_all_dim`), which latent attention has.
    pub(super) score_amplitude: f64,
}

/// How frequencies are stretched.
#[derive(Debug, Clone, PartialEq)]
enum Scaling {
    None,
    Linear { factor: f64 },
    Llama3(Llama3),
    Yarn(Yarn),
    Long(LongRope),
}

/// Slow pairs are slowed by the factor, fast ones are not, and those between by a share of it.
#[derive(Debug, Clone, PartialEq)]
struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    trained: f64,
}

/// `YaRN` (Peng et al. 2023): as Llama's, by how often a pair turns within the trained length.
#[derive(Debug, Clone, PartialEq)]
struct Yarn {
    factor: f64,
    fast: f64,
    slow: f64,
    truncates: bool,
    trained: f64,
    amplitude: f64,
}

/// `LongRoPE` (Ding et al. 2024): a factor for each pair, one table of them for texts up to the trained length and one
/// for longer texts.
#[derive(Debug, Clone, PartialEq)]
struct LongRope {
    short: Vec<f64>,
    long: Vec<f64>,
    trained: usize,
    amplitude: f64,
}

/// The fields that the parameters of a rotation are read beside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside {
    /// The base where the parameters have none.
    pub(super) theta: f64,
    /// The share of a head that turns where the parameters don't say it.
    pub(super) partial: f64,
    /// Values of a head.
    pub(super) head_dim: usize,
    /// `max_position_embeddings`
    pub(super) positions: usize,
    /// The trained length, where it stands beside the parameters.
    pub(super) trained: Option<usize>,
}

/// `rope_parameters`, or `rope_scaling` of older versions.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
    short_factor: Option<Vec<f64>>,
    long_factor: Option<Vec<f64>>,
}

const FIELD: &str = "rope_parameters";

impl DecoderRope {
    /// Reads the parameters; everything that is not known is refused by name.
    pub(super) fn parse(
        fields: &Fields,
        mut parameters: Map<String, Value>,
        beside: Beside,
    ) -> Result<Self, EngineError> {
        // Old configurations have the type under both names.
        if parameters.get("rope_type").is_some_and(|kind| !kind.is_null()) {
            parameters.remove("type");
        } else {
            parameters.remove("rope_type");
        }
        let these = Parameters::deserialize(Value::Object(parameters))
            .map_err(|error| fields.problem(format!("{FIELD}: {error}")))?;
        let theta = these.rope_theta.unwrap_or(beside.theta);
        let partial = these.partial_rotary_factor.unwrap_or(beside.partial);
        let turned = (beside.head_dim as f64 * partial) as usize;
        if !(theta > 1.0 && theta < NUMBER_MAX) || turned < 2 || turned > beside.head_dim {
            let problem = format!(
                "{FIELD}: rope_theta {theta}, of heads of {} values {turned} turn; the base must be above 1, and a \
                 part of a head must turn",
                beside.head_dim
            );
            return Err(fields.problem(problem));
        }
        let turned = turned / 2 * 2;
        let score_amplitude = these.score_amplitude();
        if !(score_amplitude > 0.0 && score_amplitude < NUMBER_MAX) {
            let problem =
                format!("{FIELD}: mscale_all_dim makes an amplitude of {score_amplitude}");
            return Err(fields.problem(problem));
        }
        let scaling = these.scaling(fields, beside, turned)?;
        Ok(Self { theta, turned, scaling, score_amplitude })
    }

    /// The most positions that this rotation is meant for, where it is meant for fewer than the model's.
    pub(super) fn positions_max(&self) -> Option<usize> {
        match &self.scaling {
            // Longer texts turn by other factors from their first token on, so which ones are right isn't known when
            // a text begins: transformers computes all of it again where it grows beyond the trained length.
            Scaling::Long(long) => Some(long.trained),
            _ => None,
        }
    }

    /// The angles of so many positions.
    pub(super) fn table(&self, positions: usize) -> Result<Rotary, EngineError> {
        Ok(Rotary::of_scaled_frequencies(
            &self.frequencies(positions),
            self.amplitude(),
            positions,
        )?)
    }

    fn amplitude(&self) -> f64 {
        match &self.scaling {
            Scaling::Yarn(yarn) => yarn.amplitude,
            Scaling::Long(long) => long.amplitude,
            Scaling::None | Scaling::Linear { .. } | Scaling::Llama3(_) => 1.0,
        }
    }

    fn frequencies(&self, positions: usize) -> Vec<f64> {
        let plain = |pair: usize| self.theta.powf(-2.0 * pair as f64 / self.turned as f64);
        let scaled = |pair: usize| match &self.scaling {
            Scaling::None => plain(pair),
            Scaling::Linear { factor } => plain(pair) / factor,
            Scaling::Llama3(llama) => llama.scaled(plain(pair)),
            Scaling::Yarn(yarn) => yarn.scaled(plain(pair), pair, self.turned, self.theta),
            Scaling::Long(long) => {
                let factors = if positions > long.trained { &long.long } else { &long.short };
                plain(pair) / factors[pair]
            }
        };
        (0..self.turned / 2).map(scaled).collect()
    }
}

impl Parameters {
    fn scaling(
        self,
        fields: &Fields,
        beside: Beside,
        turned: usize,
    ) -> Result<Scaling, EngineError> {
        let trained = beside.trained.or(self.original_max_position_embeddings);
        let trained = trained.unwrap_or(beside.positions);
        let number = |name: &str, value: Option<f64>| match value {
            Some(value) if value > 0.0 && value < NUMBER_MAX => Ok(value),
            Some(value) => Err(fields.problem(format!("{FIELD}: {name} = {value}, not above 0"))),
            None => Err(fields.problem(format!("{FIELD}: {name} is missing"))),
        };
        if trained < 2 {
            return Err(fields.problem(format!("{FIELD}: a trained length of {trained}")));
        }
        // The ratio of the lengths is the factor of a configuration that has none.
        let ratio = self.factor.or(Some(beside.positions as f64 / trained as f64));
        match self.rope_type.as_deref().unwrap_or("default") {
            "default" => Ok(Scaling::None),
            "linear" => Ok(Scaling::Linear { factor: number("factor", self.factor)? }),
            "llama3" => Ok(Scaling::Llama3(Llama3 {
                factor: number("factor", self.factor)?,
                low: number("low_freq_factor", self.low_freq_factor)?,
                high: number("high_freq_factor", self.high_freq_factor)?,
                trained: trained as f64,
            })),
            "yarn" => {
                let factor = number("factor", ratio)?;
                let amplitude = self.attention_factor.unwrap_or_else(|| self.mscale_of(factor));
                Ok(Scaling::Yarn(Yarn {
                    factor,
                    fast: number("beta_fast", self.beta_fast.or(Some(32.0)))?,
                    slow: number("beta_slow", self.beta_slow.or(Some(1.0)))?,
                    truncates: self.truncate.unwrap_or(true),
                    trained: trained as f64,
                    amplitude: number("attention_factor", Some(amplitude))?,
                }))
            }
            "longrope" | "su" => {
                let factor = number("factor", ratio)?;
                let amplitude = self.attention_factor.unwrap_or_else(|| {
                    let more = factor.ln() / (trained as f64).ln();
                    if factor > 1.0 { (1.0 + more).sqrt() } else { 1.0 }
                });
                let table = |name: &str, factors: Option<Vec<f64>>| {
                    let factors = factors.unwrap_or_default();
                    if factors.len() != turned / 2 {
                        let problem = format!(
                            "{FIELD}: {name} has {} values, not {}",
                            factors.len(),
                            turned / 2
                        );
                        return Err(fields.problem(problem));
                    }
                    factors.into_iter().map(|factor| number(name, Some(factor))).collect()
                };
                Ok(Scaling::Long(LongRope {
                    short: table("short_factor", self.short_factor)?,
                    long: table("long_factor", self.long_factor)?,
                    trained,
                    amplitude: number("attention_factor", Some(amplitude))?,
                }))
            }
            other => {
                let supported = "default, linear, llama3, yarn, longrope";
                Err(fields.not_supported(FIELD, &format!("rope_type: {other}"), &supported))
            }
        }
    }

    /// The amplitude of `YaRN` where it isn't given.
    fn mscale_of(&self, factor: f64) -> f64 {
        match (self.mscale, self.mscale_all_dim) {
            (Some(one), Some(all)) if one != 0.0 && all != 0.0 => {
                mscale(factor, one) / mscale(factor, all)
            }
            _ => mscale(factor, 1.0),
        }
    }

    fn score_amplitude(&self) -> f64 {
        match (self.rope_type.as_deref(), self.factor, self.mscale_all_dim) {
            (None | Some("default"), ..) | (_, None, _) | (.., None) => 1.0,
            (_, Some(factor), Some(all)) => mscale(factor, all),
        }
    }
}

fn mscale(factor: f64, by: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 }
}

impl Llama3 {
    fn scaled(&self, frequency: f64) -> f64 {
        let turns = self.trained * frequency / TAU;
        if turns < self.low {
            frequency / self.factor
        } else if turns > self.high {
            frequency
        } else {
            let share = (turns - self.low) / (self.high - self.low);
            (1.0 - share) * frequency / self.factor + share * frequency
        }
    }
}

impl Yarn {
    fn scaled(&self, frequency: f64, pair: usize, turned: usize, theta: f64) -> f64 {
        let dim = turned as f64;
        // The pair that turns so often within the trained length.
        let pair_of = |turns: f64| dim * (self.trained / (turns * TAU)).ln() / (2.0 * theta.ln());
        let [low, high] = [pair_of(self.fast), pair_of(self.slow)];
        let [low, high] = if self.truncates { [low.floor(), high.ceil()] } else { [low, high] };
        let [low, mut high] = [low.max(0.0), high.min(dim - 1.0)];
        if high <= low {
            high = low + 0.001; // as transformers has it where they are one
        }
        let slowed = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
        frequency / self.factor * slowed + frequency * (1.0 - slowed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp)]
    use super::*;

    const BESIDE: Beside =
        Beside { theta: 1e4, partial: 1.0, head_dim: 16, positions: 4096, trained: None };

    fn parse(json: &str) -> Result<DecoderRope, EngineError> {
        let fields = Fields::parse("config.json".as_ref(), b"{}").unwrap();
        DecoderRope::parse(&fields, serde_json::from_str(json).unwrap(), BESIDE)
    }

    #[test]
    fn old_names_and_new_ones_are_one() {
        let one = parse(r#"{"type": "linear", "factor": 2.0}"#).unwrap();
        assert_eq!(one, parse(r#"{"rope_type": "linear", "factor": 2.0}"#).unwrap());
        assert_eq!(
            one,
            parse(r#"{"rope_type": "linear", "type": "linear", "factor": 2}"#).unwrap()
        );
        assert_eq!(one.frequencies(10)[0], 0.5);
        assert_eq!(
            parse("{}").unwrap(),
            parse(r#"{"rope_type": "default", "rope_theta": 1e4}"#).unwrap()
        );
    }

    #[test]
    fn slow_pairs_are_slowed_and_fast_ones_are_not() {
        for scaled in [
            r#"{"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                "original_max_position_embeddings": 512}"#,
            r#"{"rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 512}"#,
        ] {
            let scaled = parse(scaled).unwrap().frequencies(4096);
            let plain = parse("{}").unwrap().frequencies(4096);
            let ratios: Vec<f64> =
                plain.iter().zip(&scaled).map(|(plain, scaled)| plain / scaled).collect();
            assert!((ratios[0] - 1.0).abs() < 1e-9 && (ratios[7] - 8.0).abs() < 1e-9, "{ratios:?}");
            assert!(ratios.is_sorted(), "{ratios:?}");
        }
    }

    #[test]
    fn texts_beyond_the_trained_length_have_factors_of_their_own() {
        let rope = parse(
            r#"{"rope_type": "longrope", "short_factor": [1,1,1,1,1,1,1,1], "long_factor": [2,2,2,2,2,2,2,2],
                "original_max_position_embeddings": 64}"#,
        );
        let rope = rope.unwrap();
        assert_eq!(rope.positions_max(), Some(64));
        assert_eq!([rope.frequencies(64)[0], rope.frequencies(65)[0]], [1.0, 0.5]);
        assert_eq!(rope.amplitude(), 2_f64.sqrt());
    }

    #[test]
    fn what_is_not_known_or_means_nothing_is_refused_by_name() {
        for (json, named) in [
            (r#"{"rope_type": "dynamic", "factor": 2.0}"#, "dynamic"),
            (r#"{"rope_type": "linear"}"#, "factor"),
            (r#"{"rope_type": "linear", "factor": 0.0}"#, "factor"),
            (r#"{"rope_type": "default", "surprise": 1}"#, "surprise"),
            (r#"{"rope_theta": 0.5}"#, "rope_theta"),
            (r#"{"partial_rotary_factor": 1.5}"#, "turn"),
            (
                r#"{"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}"#,
                "short_factor",
            ),
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.contains(named), "{json}: {error}");
        }
    }
}
