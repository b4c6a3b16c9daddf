//! What becomes of a sequence's hidden states: a vector, or scores.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use forebay_kernels::{Activation, CuSeqlens, Finish, LayerNorm, Linear, PoolNormalize, Pooling};
use serde::Deserialize;

use crate::models::activation;
use crate::weights::Weights;
use crate::{EngineError, ModelTask};

/// The most labels of a classifier; the largest known has some twenty thousand.
const LABELS_MAX: usize = 100_000;

/// The fields of `config.json` that say what a model's outputs are.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct HeadConfig {
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

/// What a model's rows are.
pub(crate) enum Head {
    /// Pooled hidden states.
    Vector(Pooling),
    /// Scores of labels.
    Scores(Box<Scores>),
}

/// Layers from a pooled hidden state to scores, in f32 and on the processor.
pub(crate) struct Scores {
    pooling: Pooling,
    /// Those between, each with the norm that follows it.
    dense: Option<(Linear, Option<LayerNorm>)>,
    out: Linear,
    last: Last,
}

/// What makes scores of the last layer's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// They stay as they are.
    Raw,
    /// All labels together sum to 1.
    Softmax,
    /// Each label by itself.
    Sigmoid,
}

impl HeadConfig {
    /// True where the model was trained to score labels.
    pub(crate) fn is_classifier(&self) -> bool {
        self.architectures.iter().any(|name| name.ends_with("ForSequenceClassification"))
    }

    /// A classifier of one label says how well a pair of texts fits.
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

    /// The layers of the head, as transformers calls them in each family.
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
        let last = match (labels, self.problem_type.as_deref()) {
            (1, _) | (_, Some("regression")) => Last::Raw,
            (_, Some("multi_label_classification")) => Last::Sigmoid,
            _ => Last::Softmax,
        };
        Ok(Scores { pooling, dense, out: linear(out, labels, Activation::None)?, last })
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

impl Head {
    /// Values a row, of hidden states of `hidden`.
    pub(crate) fn width(&self, hidden: usize) -> usize {
        match self {
            Self::Vector(_) => hidden,
            Self::Scores(scores) => scores.out.outputs(),
        }
    }

    /// A vector a sequence from hidden states `[tokens, hidden]`: `[sequences, hidden]`, on their device.
    pub(crate) fn pooled(
        &self,
        hidden: &Tensor,
        cu_seqlens: &CuSeqlens,
        finishes: &[Finish],
    ) -> Result<Tensor, EngineError> {
        let plain;
        let (pooling, finishes) = match self {
            Self::Vector(pooling) => (*pooling, finishes),
            Self::Scores(scores) => {
                let finish = Finish { normalize: false, dimensions: None };
                plain = vec![finish; cu_seqlens.sequences()];
                (scores.pooling, plain.as_slice())
            }
        };
        Ok(PoolNormalize { cu_seqlens, pooling, finishes }.forward(hidden)?)
    }

    /// The rows that are made of pooled vectors of this shape: `[sequences, width]`, row-major.
    pub(crate) fn finish(
        &self,
        pooled: Vec<f32>,
        shape: (usize, usize),
    ) -> Result<Vec<f32>, EngineError> {
        match self {
            Self::Vector(_) => Ok(pooled),
            Self::Scores(scores) => scores.rows(pooled, shape),
        }
    }
}

impl Scores {
    fn rows(&self, pooled: Vec<f32>, shape: (usize, usize)) -> Result<Vec<f32>, EngineError> {
        let mut state = Tensor::from_vec(pooled, shape, &Device::Cpu)?;
        if let Some((dense, norm)) = &self.dense {
            state = dense.forward(&state)?;
            if let Some(norm) = norm {
                state = norm.forward(&state)?;
            }
        }
        let mut rows: Vec<f32> = self.out.forward(&state)?.flatten_all()?.to_vec1()?;
        for row in rows.chunks_exact_mut(self.out.outputs()) {
            self.finish(row);
        }
        Ok(rows)
    }

    /// Turns a row of the last layer's outputs into scores.
    fn finish(&self, row: &mut [f32]) {
        match self.last {
            Last::Raw => {}
            Last::Sigmoid => {
                for value in row {
                    *value = 1.0 / (1.0 + (-*value).exp());
                }
            }
            Last::Softmax => {
                let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                for value in row.iter_mut() {
                    *value = (*value - max).exp();
                }
                let sum: f32 = row.iter().sum();
                for value in row {
                    *value /= sum;
                }
            }
        }
    }
}
