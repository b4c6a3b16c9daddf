//! Classification heads: what `config.json` says of them, and the names of their tensors in each family.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::DType;
use forebay_kernels::{Activation, LayerNorm, Linear, Pooling};
use serde::Deserialize;

use crate::encode::head::{ScoreFunction, Scores};
use crate::error::EngineError;
use crate::info::ModelTask;
use crate::load::config::activation;
use crate::load::safetensors::Weights;

/// The most labels of a classifier; the largest known has some twenty thousand.
const LABELS_MAX: usize = 100_000;

/// The fields of `config.json` that say whether a model scores labels, and how.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ClassifierConfig {
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    id2label: BTreeMap<String, String>,
    num_labels: Option<usize>,
    problem_type: Option<String>,
    classifier_pooling: Option<String>,
    classifier_activation: Option<String>,
    #[serde(default)]
    classifier_bias: bool,
    pooler_hidden_act: Option<String>,
    #[serde(alias = "dim")]
    hidden_size: Option<usize>,
    norm_eps: Option<f64>,
}

impl ClassifierConfig {
    /// True where the model was trained to score labels.
    fn is_classifier(&self) -> bool {
        self.architectures.iter().any(|name| name.ends_with("ForSequenceClassification"))
    }

    /// The model's task: one with a single label reranks, one without a classification head embeds.
    pub(crate) fn task(&self) -> ModelTask {
        match self.label_count() {
            _ if !self.is_classifier() => ModelTask::Embed,
            1 => ModelTask::Rerank,
            _ => ModelTask::Classify,
        }
    }

    /// How many labels there are; transformers has two where nothing is said. More than the weights have are refused
    /// when these are read.
    fn label_count(&self) -> usize {
        match self.id2label.len() {
            0 => self.num_labels.unwrap_or(2).min(LABELS_MAX),
            count => count,
        }
    }

    /// The labels' names in the order of the scores.
    pub(crate) fn labels(&self) -> Vec<String> {
        let name = |index: usize| {
            let name = self.id2label.get(&index.to_string()).cloned();
            name.unwrap_or_else(|| format!("LABEL_{index}"))
        };
        (0..self.label_count()).map(name).collect()
    }

    /// Loads the head's layers, by their names in transformers, which differ with the family.
    pub(crate) fn load(
        &self,
        family: &str,
        path: &Path,
        weights: &Weights,
    ) -> Result<Scores, EngineError> {
        let hidden = self.hidden_size.unwrap_or_default();
        let labels = self.label_count();
        let linear = |name: &str, outputs, activation| -> Result<Linear, EngineError> {
            let weight = weights.f32(&format!("{name}.weight"), &[outputs, hidden])?;
            // ModernBERT's has none, unless that is asked for.
            let has_bias = name != "head.dense" || self.classifier_bias;
            let bias =
                has_bias.then(|| weights.f32(&format!("{name}.bias"), &[outputs])).transpose()?;
            Ok(Linear::new(&weight, bias.as_ref(), activation, DType::F32)?)
        };
        let mut pooling = Pooling::Cls;
        let (dense, out) = match family {
            "bert" => {
                let prefixed = weights.contains("bert.pooler.dense.weight");
                let name = if prefixed { "bert.pooler.dense" } else { "pooler.dense" };
                (Some((linear(name, hidden, Activation::Tanh)?, None)), "classifier")
            }
            "roberta" | "xlm-roberta" | "camembert" | "mpnet" => {
                let dense = linear("classifier.dense", hidden, Activation::Tanh)?;
                (Some((dense, None)), "classifier.out_proj")
            }
            "distilbert" => {
                (Some((linear("pre_classifier", hidden, Activation::Relu)?, None)), "classifier")
            }
            "deberta-v2" => {
                let name = self.pooler_hidden_act.as_deref().unwrap_or("gelu");
                let activation = activation(path, "pooler_hidden_act", name)?;
                (Some((linear("pooler.dense", hidden, activation)?, None)), "classifier")
            }
            "modernbert" => {
                pooling = self.modernbert_pooling(path)?;
                let name = self.classifier_activation.as_deref().unwrap_or("gelu");
                let activation = activation(path, "classifier_activation", name)?;
                let scale = weights.f32("head.norm.weight", &[hidden])?;
                let shift = scale.zeros_like()?;
                let norm = LayerNorm { scale, shift, eps: self.norm_eps.unwrap_or(1e-5) as f32 };
                (Some((linear("head.dense", hidden, activation)?, Some(norm))), "classifier")
            }
            _ => {
                return Err(EngineError::NotSupported {
                    path: path.to_owned(),
                    field: "architectures",
                    value: self.architectures.join(", "),
                    supported: "classification by bert, roberta, xlm-roberta, camembert, mpnet, distilbert, \
                                deberta-v2, modernbert",
                });
            }
        };
        let function = match (labels, self.problem_type.as_deref()) {
            (1, _) | (_, Some("regression")) => ScoreFunction::Raw,
            (_, Some("multi_label_classification")) => ScoreFunction::Sigmoid,
            _ => ScoreFunction::Softmax,
        };
        Ok(Scores { pooling, dense, out: linear(out, labels, Activation::None)?, function })
    }

    fn modernbert_pooling(&self, path: &Path) -> Result<Pooling, EngineError> {
        match self.classifier_pooling.as_deref().unwrap_or("cls") {
            "cls" => Ok(Pooling::Cls),
            "mean" => Ok(Pooling::Mean),
            other => Err(EngineError::NotSupported {
                path: path.to_owned(),
                field: "classifier_pooling",
                value: other.to_owned(),
                supported: "cls, mean",
            }),
        }
    }
}
