//! NTK-aware scaling of rotary positions, for longer texts than a model was trained with first: slow pairs of a head's
//! values turn slower yet, fast ones nearly as before. It is the same for texts of any length.
//!
//! Source: <https://kexue.fm/archives/9706>

use serde::Deserialize;
use serde_json::Value;

use crate::error::EngineError;
use crate::families::rope::RotaryBase;
use crate::load::fields::Fields;

/// Scaled rotary frequencies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ntk {
    base: f64,
    factor: f64,
    /// Without it the factor goes into the base ("fixed"), with it each pair is slowed by a power of its number
    /// ("mixed").
    mixed_b: Option<f64>,
}

/// The map `rope_scaling` of a `config.json`.
#[derive(Debug, Deserialize)]
struct RopeScaling {
    #[serde(rename = "type", alias = "rope_type")]
    kind: Option<String>,
    factor: Option<f64>,
    mixed_b: Option<f64>,
}

impl Ntk {
    /// Takes the scaling that a configuration asks for; `None` where there is nothing to stretch. A kind other than
    /// `ntk` is refused by name.
    pub(super) fn parse(fields: &mut Fields, base: f64) -> Result<Option<Self>, EngineError> {
        const FIELD: &str = "rope_scaling";
        let scaling: Option<RopeScaling> = fields.get(FIELD)?;
        let Some(RopeScaling { kind, factor, mixed_b }) = scaling else { return Ok(None) };
        if kind.as_deref() != Some("ntk") {
            let kind = kind.map_or(Value::Null, Value::from);
            return Err(fields.not_supported(FIELD, &format!("type: {kind}"), &"type: ntk, null"));
        }
        let factor = factor.unwrap_or(1.0);
        if !(1.0..=1e6).contains(&factor) {
            let problem = format!("rope_scaling has the factor {factor}; it must be 1 or more");
            return Err(fields.problem(problem));
        }
        Ok((factor > 1.0).then_some(Self { base, factor, mixed_b }))
    }

    /// The base before scaling, which is the same for texts of any length.
    pub(super) fn unscaled(self) -> RotaryBase {
        RotaryBase { base: self.base, scaling: None }
    }

    /// The angle by which each pair of a head's values turns from one position to the next.
    pub(super) fn frequencies(self, head_size: usize) -> Vec<f64> {
        let Self { base, factor, mixed_b } = self;
        let size = head_size as f64;
        let plain = |base: f64, index: usize| base.powf(-2.0 * index as f64 / size);
        let frequency = |index: usize| match mixed_b {
            None => plain(base * factor, index) / factor.powf(2.0 / size),
            Some(power) => {
                let share = ((index + 1) as f64 / (size / 2.0)).powf(power);
                plain(base, index) / factor.powf(share)
            }
        };
        (0..head_size / 2).map(frequency).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(scaling: &str) -> Result<Option<Ntk>, EngineError> {
        let json = format!("{{\"rope_scaling\": {scaling}}}");
        let path = std::path::Path::new("config.json");
        Ntk::parse(&mut Fields::parse(path, json.as_bytes()).unwrap(), 10_000.0)
    }

    #[test]
    fn the_slowest_pair_turns_slower_by_the_whole_factor_and_the_fastest_hardly() {
        for scaling in [
            r#"{"type": "ntk", "factor": 8.0}"#,
            r#"{"rope_type": "ntk", "factor": 8.0, "mixed_b": 0.75}"#,
        ] {
            let scaled = parse(scaling).unwrap().unwrap().frequencies(64);
            let slowest = 10_000_f64.powf(-62.0 / 64.0);
            assert!((slowest / scaled[31] - 8.0).abs() < 1e-9, "{}", slowest / scaled[31]);
            assert!((1.0..1.4).contains(&scaled[0].recip()), "{}", scaled[0]);
        }
    }

    #[test]
    fn a_factor_of_one_scales_nothing() {
        assert_eq!(parse(r#"{"type": "ntk", "factor": 1.0}"#).unwrap(), None);
    }

    #[test]
    fn another_scaling_is_refused_by_name() {
        for scaling in [r#"{"type": "yarn", "factor": 2.0}"#, r#"{"factor": 2.0}"#] {
            let error = parse(scaling).unwrap_err();
            assert!(
                matches!(error, EngineError::NotSupported { field: "rope_scaling", .. }),
                "{error}"
            );
        }
        let error = parse(r#"{"type": "ntk", "factor": 0.5}"#).unwrap_err();
        assert!(matches!(error, EngineError::Config { .. }), "{error}");
    }
}
