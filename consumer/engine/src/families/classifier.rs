//! Classification heads: what `config.json` says of them, and the names of their tensors in each family.

use std::collections::BTreeMap;

use candle_core::DType;
use forebay_kernels::{Activation, LayerNorm, Linear, Pooling};
use serde_json::Value;

use crate::encode::head::{ScoreFunction, Scores};
use crate::error::EngineError;
use crate::families::architecture::Architecture;
use crate::families::decoder_config::DECODERS;
use crate::info::ModelTask;
use crate::load::config::activation;
use crate::load::fields::Fields;
use crate::load::safetensors::Weights;

/// The most labels of a classifier; the largest known has some twenty thousand.
const LABELS_MAX: usize = 100_000;

/// Fields that every model of transformers may have, and that count where it classifies.
pub(crate) const OF_CLASSIFIERS: &[&str] = &[
    "classifier_activation",
    "classifier_bias",
    "classifier_pooling",
    "id2label",
    "num_labels",
    "pooler_hidden_act",
    "problem_type",
];

/// The fields of `config.json` that say whether a model scores labels, and how.
#[derive(Debug)]
pub(crate) struct ClassifierConfig {
    is_classifier: bool,
    /// In the order of the scores.
    labels: Vec<String>,
    function: ScoreFunction,
    pooling: Pooling,
    /// The activation of the layer before the last one, where the family lets its configuration choose.
    activation: Activation,
    /// Whether that layer has a bias.
    has_bias: bool,
}

impl ClassifierConfig {
    /// Takes the fields. `classes` is what the configuration lists as `architectures`.
    pub(crate) fn parse(
        fields: &mut Fields,
        classes: &[String],
        family: &str,
    ) -> Result<Self, EngineError> {
        let mut config = Self {
            is_classifier: classes.iter().any(|name| name.ends_with("ForSequenceClassification")),
            labels: Vec::new(),
            function: ScoreFunction::Raw,
            pooling: Pooling::Cls,
            activation: Activation::Gelu,
            has_bias: true,
        };
        if !config.is_classifier {
            fields.without_effect(OF_CLASSIFIERS);
            return Ok(config);
        }
        config.labels = labels(fields)?;
        config.function = score_function(fields, config.labels.len())?;
        match family {
            name if DECODERS.contains(&name) => config.pooling = Pooling::Last,
            "deberta-v2" => config.activation = activation(fields, "pooler_hidden_act", "gelu")?,
            "modernbert" => {
                config.activation = activation(fields, "classifier_activation", "gelu")?;
                config.has_bias = fields.or("classifier_bias", false)?;
                let pooling: String = fields.or("classifier_pooling", "cls".to_owned())?;
                config.pooling = match pooling.as_str() {
                    "cls" => Pooling::Cls,
                    "mean" => Pooling::Mean,
                    _ => {
                        let supported = "cls, mean";
                        return Err(fields.not_supported(
                            "classifier_pooling",
                            &pooling,
                            &supported,
                        ));
                    }
                };
            }
            _ => {}
        }
        Ok(config)
    }

    /// The model's task: one with a single label reranks, one without a classification head embeds.
    pub(crate) fn task(&self) -> ModelTask {
        match self.labels.len() {
            _ if !self.is_classifier => ModelTask::Embed,
            1 => ModelTask::Rerank,
            _ => ModelTask::Classify,
        }
    }

    /// The labels' names in the order of the scores.
    pub(crate) fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Loads the head's layers, by their names in transformers, which differ with the family.
    pub(crate) fn load(
        &self,
        architecture: &Architecture,
        weights: &Weights,
    ) -> Result<Scores, EngineError> {
        let hidden = architecture.sizes().hidden;
        let layer = |name: &str, outputs, activation, has_bias: bool| {
            let weight = weights.f32(&format!("{name}.weight"), &[outputs, hidden])?;
            let bias = || weights.f32(&format!("{name}.bias"), &[outputs]);
            let bias = has_bias.then(bias).transpose()?;
            Ok::<_, EngineError>(Linear::new(&weight, bias.as_ref(), activation, DType::F32)?)
        };
        if let Architecture::Decoder(decoder) = architecture {
            return Ok(Scores {
                pooling: self.pooling,
                pad: decoder.pad,
                dense: None,
                out: layer("score", self.labels.len(), Activation::None, false)?,
                function: self.function,
            });
        }
        let dense = |name: &str, activation| layer(name, hidden, activation, self.has_bias);
        let (dense, norm, out) = match architecture.name() {
            family @ ("bert" | "new" | "gte") => {
                let prefixed = format!("{family}.pooler.dense");
                let is_prefixed = weights.contains(&format!("{prefixed}.weight"));
                let name = if is_prefixed { prefixed.as_str() } else { "pooler.dense" };
                (dense(name, Activation::Tanh)?, None, "classifier")
            }
            "roberta" | "xlm-roberta" | "camembert" | "mpnet" => {
                (dense("classifier.dense", Activation::Tanh)?, None, "classifier.out_proj")
            }
            "distilbert" => (dense("pre_classifier", Activation::Relu)?, None, "classifier"),
            "deberta-v2" => (dense("pooler.dense", self.activation)?, None, "classifier"),
            "modernbert" => {
                let (eps, shifts) = architecture.norm_of_head();
                let scale = weights.f32("head.norm.weight", &[hidden])?;
                let shift = if shifts {
                    weights.f32("head.norm.bias", &[hidden])?
                } else {
                    scale.zeros_like()?
                };
                let norm = LayerNorm { scale, shift, eps: eps as f32 };
                (dense("head.dense", self.activation)?, Some(norm), "classifier")
            }
            other => {
                return Err(EngineError::NotSupported {
                    path: "config.json".into(),
                    field: "architectures",
                    value: format!("classification by {other}"),
                    supported: "classification by bert, roberta, xlm-roberta, camembert, mpnet, distilbert, \
                                deberta-v2, modernbert, new, gte, decoders"
                        .to_owned(),
                });
            }
        };
        Ok(Scores {
            pooling: self.pooling,
            pad: None,
            dense: Some((dense, norm)),
            out: layer(out, self.labels.len(), Activation::None, true)?,
            function: self.function,
        })
    }
}

/// The labels' names: of `id2label`, else as many as `num_labels` says, else two, as in transformers.
fn labels(fields: &mut Fields) -> Result<Vec<String>, EngineError> {
    let named: BTreeMap<String, Value> = fields.or("id2label", BTreeMap::new())?;
    let said: Option<usize> = fields.get("num_labels")?;
    let count = if named.is_empty() { said.unwrap_or(2) } else { named.len() };
    if said.is_some_and(|said| said != count) {
        return Err(fields.problem(format!("num_labels = {said:?}, and id2label has {count}")));
    }
    if count == 0 || count > LABELS_MAX {
        return Err(fields.problem(format!("{count} labels; 1 to {LABELS_MAX} are supported")));
    }
    let name = |index: usize| match named.get(&index.to_string()) {
        Some(Value::String(name)) => Ok(name.clone()),
        Some(name) if !name.is_null() => Ok(name.to_string()),
        Some(_) => Ok(format!("LABEL_{index}")),
        None if named.is_empty() => Ok(format!("LABEL_{index}")),
        None => Err(fields.problem(format!("id2label has {count} labels and none is {index}"))),
    };
    (0..count).map(name).collect()
}

/// The function that makes scores of outputs for so many labels.
fn score_function(fields: &mut Fields, labels: usize) -> Result<ScoreFunction, EngineError> {
    let kind: Option<String> = fields.get("problem_type")?;
    Ok(match kind.as_deref() {
        Some("regression") => ScoreFunction::Raw,
        None | Some("multi_label_classification") if labels == 1 => ScoreFunction::Raw,
        Some("single_label_classification") if labels == 1 => {
            let problem = "problem_type = single_label_classification of a single label";
            return Err(fields.problem(problem.to_owned()));
        }
        None | Some("single_label_classification") => ScoreFunction::Softmax,
        Some("multi_label_classification") => ScoreFunction::Sigmoid,
        Some(other) => {
            let supported = "regression, single_label_classification, multi_label_classification";
            return Err(fields.not_supported("problem_type", &other, &supported));
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn labels_of(json: &str) -> Result<Vec<String>, EngineError> {
        labels(&mut Fields::parse(Path::new("config.json"), json.as_bytes()).unwrap())
    }

    #[test]
    fn labels_are_counted_and_named_as_transformers_does() {
        for (json, expected) in [
            ("{}", &["LABEL_0", "LABEL_1"][..]),
            (r#"{"id2label": null, "num_labels": 1}"#, &["LABEL_0"]),
            (r#"{"id2label": {"0": 0, "1": 1}}"#, &["0", "1"]),
            (r#"{"id2label": {"1": "b", "0": "a"}}"#, &["a", "b"]),
        ] {
            assert_eq!(labels_of(json).unwrap(), expected, "{json}");
        }
        let error = labels_of(r#"{"id2label": {"1": "a", "2": "b"}}"#).unwrap_err().to_string();
        assert!(error.contains("id2label"), "{error}");
        assert!(labels_of(r#"{"num_labels": 0}"#).is_err());
    }
}
