//! How positions turn queries and keys: the base of the rotations, and `rope_parameters`, as transformers 5 writes
//! them.

use serde_json::{Map, Value};

use crate::error::EngineError;
use crate::load::fields::Fields;

/// The base of the frequencies of `RoPE`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RotaryBase {
    /// For sequences up to the trained length.
    pub(super) base: f64,
    pub(super) scaling: Option<Scaling>,
}

/// A base that grows with a sequence's length beyond the trained one (dynamic NTK).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scaling {
    pub(super) factor: f64,
    /// The most tokens of the trained sequences.
    pub(super) trained: usize,
}

impl RotaryBase {
    /// The base for a sequence of so many tokens, in heads of `dim` values.
    pub(super) fn of(self, tokens: usize, dim: usize) -> f64 {
        match self.scaling {
            Some(Scaling { factor, trained }) if tokens > trained => {
                let stretch = factor * tokens as f64 / trained as f64 - (factor - 1.0);
                self.base * stretch.powf(dim as f64 / (dim as f64 - 2.0))
            }
            _ => self.base,
        }
    }
}

/// The base of the rotations that these parameters give; `null` and an absent base stand for the default. Everything
/// but the plain rotation is refused.
pub(super) fn rope_theta(
    fields: &Fields,
    parameters: Value,
    default: f64,
) -> Result<f64, EngineError> {
    const FIELD: &str = "rope_parameters";
    let parameters = match parameters {
        Value::Null => Map::new(),
        Value::Object(parameters) => parameters,
        other => return Err(fields.not_supported(FIELD, &other, &"an object")),
    };
    let mut theta = default;
    for (name, value) in &parameters {
        match (name.as_str(), value) {
            (_, Value::Null) => {}
            ("rope_theta", value) if value.as_f64().is_some_and(|base| base > 0.0) => {
                theta = value.as_f64().unwrap_or(default);
            }
            ("rope_type" | "type", Value::String(kind)) if kind == "default" => {}
            ("partial_rotary_factor", value) if value.as_f64() == Some(1.0) => {}
            _ => {
                let value = format!("{name}: {value}");
                return Err(fields.not_supported(FIELD, &value, &"rope_type: default, rope_theta"));
            }
        }
    }
    Ok(theta)
}
