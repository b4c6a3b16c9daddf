//! `rope_parameters`, as transformers 5 writes them: how positions turn queries and keys.

use serde_json::{Map, Value};

use crate::error::EngineError;
use crate::load::fields::Fields;

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
