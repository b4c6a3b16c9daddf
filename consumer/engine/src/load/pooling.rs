//! How a model pools, and what it computes of the pooled vector, as sentence-transformers writes it.

use std::fmt;
use std::path::{Path, PathBuf};

use forebay_kernels::Activation;
use serde_json::Value;

use crate::error::EngineError;
use crate::load::fields::{Fields, Ignored};
use crate::load::files::read;

/// How a sequence's token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first one.
    Cls,
    /// Each dimension's largest value.
    Max,
    /// Their mean.
    Mean,
    /// Their sum, divided by the square root of their number.
    MeanSqrtLen,
    /// Their mean, in which the first counts once, the second twice, and so on.
    WeightedMean,
    /// The last one.
    Last,
}

/// The modes by their names, in the order in which sentence-transformers concatenates those of switches.
const MODES: [(Pooling, &str, &str); 6] = [
    (Pooling::Cls, "cls", "pooling_mode_cls_token"),
    (Pooling::Max, "max", "pooling_mode_max_tokens"),
    (Pooling::Mean, "mean", "pooling_mode_mean_tokens"),
    (Pooling::MeanSqrtLen, "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    (Pooling::WeightedMean, "weightedmean", "pooling_mode_weightedmean_tokens"),
    (Pooling::Last, "lasttoken", "pooling_mode_lasttoken"),
];

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = MODES.iter().find(|(mode, ..)| mode == self).map(|(_, name, _)| *name);
        f.write_str(name.unwrap_or_default())
    }
}

/// Reads a pooling's `config.json`. Without `pooling_mode` the switches of earlier versions count, and without any of
/// them the mean.
pub(crate) fn parse(
    mut fields: Fields,
    has_prompt: bool,
) -> Result<(Vec<Pooling>, Vec<Ignored>), EngineError> {
    let mut switched = Vec::new();
    for (mode, _, switch) in MODES {
        if fields.or(switch, false)? {
            switched.push(mode);
        }
    }
    if !fields.or("include_prompt", true)? && has_prompt {
        let supported = "true, where there is a default prompt";
        return Err(fields.not_supported("include_prompt", &false, &supported));
    }
    fields.without_effect(&["embedding_dimension", "word_embedding_dimension"]);
    // Since version 5.4 of sentence-transformers one name or a list of them.
    let named = match fields.get("pooling_mode")?.unwrap_or_default() {
        Value::Array(names) => names,
        Value::Null => Vec::new(),
        name => vec![name],
    };
    let mode = |name: &Value| {
        let this = |mode: &&(Pooling, &str, &str)| name.as_str() == Some(mode.1);
        MODES.iter().find(this).map(|(mode, ..)| *mode)
    };
    let modes: Option<Vec<Pooling>> = named.iter().map(mode).collect();
    let modes = match modes.filter(|modes| modes.len() <= MODES.len()) {
        Some(modes) if modes.is_empty() => switched,
        Some(modes) => modes,
        None => {
            let supported = MODES.map(|(_, name, _)| name).join(", ");
            return Err(fields.not_supported("pooling_mode", &Value::Array(named), &supported));
        }
    };
    let modes = if modes.is_empty() { vec![Pooling::Mean] } else { modes };
    Ok((modes, fields.ignored()))
}

/// The vector of a whole text, which modules after the pooling read and write, by its name there.
pub(crate) const OF_TEXT: &str = "sentence_embedding";
/// The vectors of tokens, which modules without a pooling read and write.
pub(crate) const OF_TOKENS: &str = "token_embeddings";

/// A module that comes after the pooling.
#[derive(Debug)]
pub(crate) enum After {
    Dense(Dense),
    /// Divides by the L2 norm.
    Normalize,
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense(dense) => {
                write!(f, "dense to {}, {:?}", dense.outputs, dense.activation)?;
                f.write_str(if dense.adds_inputs { ", plus its inputs" } else { "" })
            }
            Self::Normalize => f.write_str("normalize"),
        }
    }
}

/// A linear layer from a vector to another one: of a whole text, or of each token.
#[derive(Debug, Clone)]
pub(crate) struct Dense {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) has_bias: bool,
    pub(crate) activation: Activation,
    /// Whether its inputs are added to its outputs.
    pub(crate) adds_inputs: bool,
    pub(crate) weights: PathBuf,
}

impl Dense {
    /// Reads the `config.json` of a module in `folder`; `of` names the vectors that it reads and writes.
    pub(crate) fn read(
        folder: &Path,
        of: &str,
        ignored: &mut Vec<Ignored>,
    ) -> Result<Self, EngineError> {
        let path = folder.join("config.json");
        let mut fields = Fields::parse(&path, &read(&path)?)?;
        let activation = activation_of_torch(&mut fields)?;
        fields.only("module_input_name", &of.to_owned())?;
        fields.only("module_output_name", &of.to_owned())?;
        let dense = Self {
            inputs: fields.required("in_features")?,
            outputs: fields.required("out_features")?,
            has_bias: fields.or("bias", true)?,
            activation,
            adds_inputs: fields.or("use_residual", false)?,
            weights: folder.join("model.safetensors"),
        };
        ignored.extend(fields.ignored());
        Ok(dense)
    }
}

/// Takes an activation by its class in `PyTorch`. Code of another package is none that can be known by its name.
fn activation_of_torch(fields: &mut Fields) -> Result<Activation, EngineError> {
    const FIELD: &str = "activation_function";
    let name: String = fields.or(FIELD, "torch.nn.modules.activation.Tanh".to_owned())?;
    let class = name.strip_prefix("torch.").and_then(|class| class.rsplit('.').next());
    Ok(match class {
        Some("Identity") => Activation::None,
        Some("Tanh") => Activation::Tanh,
        Some("ReLU") => Activation::Relu,
        Some("GELU") => Activation::Gelu,
        Some("SiLU") => Activation::Silu,
        _ => {
            let supported = "Identity, Tanh, ReLU, GELU, SiLU of torch.nn";
            return Err(fields.not_supported(FIELD, &name, &supported));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(json: &str) -> Result<Vec<Pooling>, EngineError> {
        let fields = Fields::parse(Path::new("1_Pooling/config.json"), json.as_bytes())?;
        parse(fields, false).map(|(modes, _)| modes)
    }

    #[test]
    fn modes_are_read_as_switches_as_a_name_and_as_a_list() {
        use Pooling::{Cls, Last, Max, Mean, MeanSqrtLen, WeightedMean};
        for (json, expected) in [
            ("{}", vec![Mean]),
            (r#"{"pooling_mode_mean_tokens": false}"#, vec![Mean]),
            (r#"{"pooling_mode_cls_token": true}"#, vec![Cls]),
            (
                r#"{"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true}"#,
                vec![Max, Mean],
            ),
            (r#"{"pooling_mode": "lasttoken", "pooling_mode_mean_tokens": true}"#, vec![Last]),
            (r#"{"pooling_mode": ["mean", "max"]}"#, vec![Mean, Max]),
            (
                r#"{"pooling_mode": ["weightedmean", "mean_sqrt_len_tokens"]}"#,
                vec![WeightedMean, MeanSqrtLen],
            ),
        ] {
            assert_eq!(modes(json).unwrap(), expected, "{json}");
        }
        for json in [r#"{"pooling_mode": "attention"}"#, r#"{"pooling_mode": 3}"#] {
            let error = modes(json).unwrap_err().to_string();
            assert!(error.contains("pooling_mode"), "{error}");
        }
    }
}
