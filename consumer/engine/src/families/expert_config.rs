//! The experts of decoders as data: how tokens are routed, and what an expert is.

use forebay_kernels::{ClampedGate, Groups, Scoring};
use serde_json::{Map, Value};

use crate::error::EngineError;
use crate::families::decoder_layers::LayerConfig;
use crate::load::fields::Fields;
use crate::load::fp8;

/// Several times as many experts as a layer of the largest model has.
const EXPERTS_MAX: usize = 1 << 12;
/// No size of an expert comes near it.
const INNER_MAX: usize = 1 << 20;

/// A decoder's experts: the same in all layers that have them.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of a family by itself
pub(crate) struct ExpertConfig {
    pub(crate) count: usize,
    /// Experts of a token.
    pub(crate) top_k: usize,
    /// Values of the state inside an expert, after its gate.
    pub(crate) inner: usize,
    /// As `inner`, of the expert that every token takes; 0 where there is none.
    pub(crate) shared: usize,
    pub(crate) scoring: Scoring,
    pub(crate) groups: Option<Groups>,
    /// Whether a token's weights are divided by their sum.
    pub(crate) normalizes: bool,
    /// The factor of weights.
    pub(crate) scale: f32,
    /// The router's name in a layer.
    pub(crate) router: &'static str,
    /// Of the router, and of experts.
    pub(crate) has_bias: bool,
    /// Whether the router has a correction of scores for the choice.
    pub(crate) is_corrected: bool,
    /// The bounds of the gate; `None` where it has none, and the model's activation.
    pub(crate) clamped: Option<ClampedGate>,
    /// Whether rows of the gate and of what it multiplies alternate, and experts' tensors are `[inputs, outputs]`.
    pub(crate) alternates: bool,
}

impl ExpertConfig {
    /// Takes the fields of family `name` about experts, and says in `layers` which have them; `None` for dense models.
    /// `inner` is the width of the model's feed-forward halves.
    pub(super) fn parse(
        name: &str,
        inner: usize,
        layers: &mut [LayerConfig],
        fields: &mut Fields,
    ) -> Result<Option<Self>, EngineError> {
        let config = match name {
            "qwen3_moe" => Self::of_qwen3(layers, fields)?,
            "gpt_oss" => Some(Self::of_gpt_oss(inner, layers, fields)?),
            _ => return Ok(None),
        };
        // Of training.
        fields.without_effect(&["output_router_logits", "router_aux_loss_coef"]);
        if let Some(config) = &config {
            config.check(fields)?;
        }
        Ok(config)
    }

    fn of_qwen3(
        layers: &mut [LayerConfig],
        fields: &mut Fields,
    ) -> Result<Option<Self>, EngineError> {
        let named = fields.get("num_local_experts")?;
        let count = fields.get("num_experts")?.or(named).unwrap_or(128);
        let config = Self {
            count,
            top_k: fields.or("num_experts_per_tok", 8)?,
            inner: fields.or("moe_intermediate_size", 768)?,
            shared: 0,
            scoring: Scoring::Softmax,
            groups: None,
            normalizes: fields.or("norm_topk_prob", false)?,
            scale: 1.0,
            router: "mlp.gate",
            has_bias: false,
            is_corrected: false,
            clamped: None,
            alternates: false,
        };
        let every: usize = fields.or("decoder_sparse_step", 1)?;
        if every == 0 {
            return Err(fields.problem("decoder_sparse_step is 0".to_owned()));
        }
        let dense: Vec<usize> = fields.or("mlp_only_layers", Vec::new())?;
        for (index, layer) in layers.iter_mut().enumerate() {
            layer.has_experts =
                count > 0 && (index + 1).is_multiple_of(every) && !dense.contains(&index);
        }
        let there = layers.iter().any(|layer| layer.has_experts);
        Ok(there.then_some(config))
    }

    fn of_gpt_oss(
        inner: usize,
        layers: &mut [LayerConfig],
        fields: &mut Fields,
    ) -> Result<Self, EngineError> {
        // The second is an older name of what `num_experts_per_tok` says beside it, the first that of
        // `original_max_position_embeddings`; transformers reads neither.
        fields.without_effect(&["initial_context_length", "experts_per_token"]);
        for layer in layers {
            layer.has_experts = true;
        }
        let named = fields.get("num_experts")?;
        Ok(Self {
            count: fields.get("num_local_experts")?.or(named).unwrap_or(128),
            top_k: fields.or("num_experts_per_tok", 4)?,
            inner,
            shared: 0,
            scoring: Scoring::SoftmaxOfChosen,
            groups: None,
            normalizes: false,
            scale: 1.0,
            router: "mlp.router",
            has_bias: true,
            is_corrected: false,
            clamped: Some(ClampedGate {
                alpha: fields.or("swiglu_alpha", 1.702)?,
                limit: fields.or("swiglu_limit", 7.0)?,
                plus: 1.0,
            }),
            alternates: true,
        })
    }

    /// Refuses numbers that nothing can be computed with, or that no model has.
    pub(super) fn check(&self, fields: &Fields) -> Result<(), EngineError> {
        let Self { count, top_k, inner, .. } = *self;
        let problem = if count == 0 || count > EXPERTS_MAX {
            format!(
                "{count} experts (num_experts or num_local_experts); 1 to {EXPERTS_MAX} are supported"
            )
        } else if top_k == 0 || top_k > count {
            format!("num_experts_per_tok is {top_k}, of {count} experts")
        } else if inner == 0 || inner > INNER_MAX || self.shared > INNER_MAX {
            format!("moe_intermediate_size is {inner}; 1 to {INNER_MAX} are supported")
        } else if let Some(ClampedGate { alpha, limit, .. }) = self.clamped
            && ![alpha, limit].iter().all(|bound| bound.is_finite() && *bound > 0.0)
        {
            format!(
                "swiglu_alpha is {alpha} and swiglu_limit {limit}; numbers above 0 are supported"
            )
        } else {
            return Ok(());
        };
        Err(fields.problem(problem))
    }

    /// Values that a token's rows of experts take at once.
    pub(super) fn row_values(&self, hidden: usize) -> usize {
        let rows = self.top_k * (hidden + 3 * self.inner);
        rows + self.top_k + self.count + 3 * self.shared + hidden
    }
}

/// Takes `quantization_config` where it says what a family's tensors say by themselves: that experts are in blocks of
/// MXFP4, or weights in blocks of FP8.
pub(super) fn quantization(name: &str, fields: &mut Fields) -> Result<(), EngineError> {
    const FIELD: &str = "quantization_config";
    if name != "gpt_oss" {
        return fp8::take_config(fields);
    }
    let Some(config) = fields.get::<Map<String, Value>>(FIELD)? else { return Ok(()) };
    match config.get("quant_method").and_then(Value::as_str) {
        Some("mxfp4") => Ok(()),
        other => {
            let method = format!("quant_method: {}", other.unwrap_or("none"));
            Err(fields.not_supported(FIELD, &method, &"mxfp4"))
        }
    }
}
