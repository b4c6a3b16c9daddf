//! `config.json`: which architecture a model is, and its sizes.

use std::path::Path;

use serde::Deserialize;

use crate::EngineError;

/// The architectures that the engine runs, as `model_type` names them.
const ARCHITECTURES: &str = "bert";

/// A supported architecture with its configuration.
#[derive(Debug)]
pub(crate) enum Architecture {
    Bert(BertConfig),
}

/// The fields of a BERT's `config.json` that shape the computation.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct BertConfig {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) max_position_embeddings: usize,
    #[serde(default = "type_vocab_size_default")]
    pub(crate) type_vocab_size: usize,
    #[serde(default = "layer_norm_eps_default")]
    pub(crate) layer_norm_eps: f64,
    #[serde(default = "hidden_act_default")]
    hidden_act: String,
    #[serde(default = "position_embedding_type_default")]
    position_embedding_type: String,
}

// What transformers' BertConfig assumes when a field is absent.
fn type_vocab_size_default() -> usize {
    2
}
fn layer_norm_eps_default() -> f64 {
    1e-12
}
fn hidden_act_default() -> String {
    "gelu".to_owned()
}
fn position_embedding_type_default() -> String {
    "absolute".to_owned()
}

/// The fields that name the architecture.
#[derive(Deserialize)]
struct Kind {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
}

impl Architecture {
    /// Reads `config.json`; an architecture or a setting that cannot be honoured is refused by name.
    pub(crate) fn parse(path: &Path, json: &[u8]) -> Result<Self, EngineError> {
        let invalid = |source| EngineError::Json { path: path.to_owned(), source };
        let kind: Kind = serde_json::from_slice(json).map_err(invalid)?;
        if !kind.is_bert() {
            return Err(EngineError::NotSupported {
                path: path.to_owned(),
                field: "model_type",
                value: kind.name(),
                supported: ARCHITECTURES,
            });
        }
        let config: BertConfig = serde_json::from_slice(json).map_err(invalid)?;
        config.check(path)?;
        Ok(Self::Bert(config))
    }
}

impl Kind {
    fn is_bert(&self) -> bool {
        match &self.model_type {
            Some(model_type) => model_type == "bert",
            None => self.architectures.iter().any(|name| name == "BertModel"),
        }
    }

    fn name(&self) -> String {
        self.model_type.clone().unwrap_or_else(|| format!("{:?}", self.architectures))
    }
}

impl BertConfig {
    /// An upper bound of the memory that a token takes while it is computed: of one layer the input, the
    /// three projections, the context, both sides of both residuals, and the wide inner state, in f32.
    pub(crate) fn bytes_per_token(&self) -> usize {
        let values = self.hidden_size.saturating_mul(8).saturating_add(self.intermediate_size);
        values.saturating_mul(size_of::<f32>())
    }

    fn check(&self, path: &Path) -> Result<(), EngineError> {
        for (field, value, supported) in [
            ("hidden_act", &self.hidden_act, "gelu"),
            ("position_embedding_type", &self.position_embedding_type, "absolute"),
        ] {
            if value != supported {
                let (path, value) = (path.to_owned(), value.clone());
                return Err(EngineError::NotSupported { path, field, value, supported });
            }
        }
        let sizes = [
            self.vocab_size,
            self.hidden_size,
            self.num_attention_heads,
            self.intermediate_size,
            self.max_position_embeddings,
            self.type_vocab_size,
        ];
        let problem = if sizes.contains(&0) {
            "a size is zero".to_owned()
        } else if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
            format!("hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
        } else {
            return Ok(());
        };
        Err(EngineError::Config { path: path.to_owned(), problem })
    }
}
