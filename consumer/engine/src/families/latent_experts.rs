//! The experts of families with latent attention, as data.

use forebay_kernels::{Groups, Scoring};

use crate::error::EngineError;
use crate::families::decoder_layers::LayerConfig;
use crate::families::expert_config::ExpertConfig;
use crate::load::fields::Fields;

/// As many groups as routers take; several times what models have.
const GROUPS_MAX: usize = 64;

/// Values where a configuration doesn't say them, as in transformers: they differ between the families.
struct Defaults {
    experts: usize,
    top_k: usize,
    inner: usize,
    shared: usize,
    /// Groups of experts, and how many of them a token's are chosen from.
    groups: [usize; 2],
    scale: f32,
    /// Layers without experts, from the first on.
    dense: usize,
}

impl Defaults {
    fn of(name: &str) -> Self {
        let v3 = Self {
            experts: 256,
            top_k: 8,
            inner: 2048,
            shared: 1,
            groups: [8, 4],
            scale: 2.5,
            dense: 3,
        };
        match name {
            "deepseek_v2" => Self {
                experts: 64,
                top_k: 6, // of all models of the family; transformers has none
                inner: 1407,
                shared: 2,
                groups: [1, 1],
                scale: 1.0,
                dense: 0,
            },
            "glm4_moe_lite" => Self {
                experts: 64,
                top_k: 4,
                inner: 1536,
                groups: [1, 1],
                scale: 1.8,
                dense: 1,
                ..v3
            },
            _ => v3,
        }
    }
}

/// Takes the fields about experts, and says in `layers` which have them; `None` where none has.
pub(super) fn parse(
    name: &str,
    layers: &mut [LayerConfig],
    fields: &mut Fields,
) -> Result<Option<ExpertConfig>, EngineError> {
    let is_v2 = name == "deepseek_v2";
    let defaults = Defaults::of(name);
    // Of training, and of how experts are spread.
    fields.without_effect(&[
        "aux_loss_alpha",
        "ep_size",
        "output_router_logits",
        "router_aux_loss_coef",
        "seq_aux",
    ]);
    let named = fields.get("num_local_experts")?;
    let is_dense = fields.is_null("n_routed_experts");
    let count = fields.get("n_routed_experts")?.or(named).unwrap_or(defaults.experts);
    let inner = fields.or("moe_intermediate_size", defaults.inner)?;
    let shared: usize = fields.get("n_shared_experts")?.unwrap_or(defaults.shared);
    let (groups, is_normalized) = if is_v2 {
        fields.only("scoring_func", &"softmax".to_owned())?;
        fields.only("norm_topk_prob", &false)?;
        let limited = fields.choice("topk_method", &["greedy", "group_limited_greedy"])? == 1;
        (groups(fields, defaults.groups, 1)?.filter(|_| limited), false)
    } else {
        fields.only("scoring_func", &"sigmoid".to_owned())?;
        fields.only("topk_method", &"noaux_tc".to_owned())?;
        (groups(fields, defaults.groups, 2)?, fields.or("norm_topk_prob", true)?)
    };
    let config = ExpertConfig {
        count,
        top_k: fields.or("num_experts_per_tok", defaults.top_k)?,
        inner,
        shared: shared.saturating_mul(inner),
        scoring: if is_v2 { Scoring::Softmax } else { Scoring::Sigmoid },
        groups,
        normalizes: is_normalized,
        scale: fields.or("routed_scaling_factor", defaults.scale)?,
        router: "mlp.gate",
        has_bias: false,
        is_corrected: !is_v2,
        clamped: None,
        alternates: false,
    };
    let dense = fields.or("first_k_dense_replace", defaults.dense)?;
    let kinds: Option<Vec<String>> = fields.get("mlp_layer_types")?;
    fields.only("moe_layer_freq", &1)?;
    mark(layers, kinds.as_deref(), if is_dense { layers.len() } else { dense }, fields)?;
    if !layers.iter().any(|layer| layer.has_experts) {
        return Ok(None);
    }
    config.check(fields)?;
    check_groups(&config, fields)?;
    Ok(Some(config))
}

/// Refuses groups that experts can't be chosen from.
fn check_groups(config: &ExpertConfig, fields: &Fields) -> Result<(), EngineError> {
    let Some(Groups { count, kept, best }) = config.groups else { return Ok(()) };
    let size = config.count / count;
    let fits = count <= GROUPS_MAX
        && size * count == config.count
        && size >= best
        && (1..=count).contains(&kept)
        && kept.saturating_mul(size) >= config.top_k;
    if fits {
        return Ok(());
    }
    Err(fields.problem(format!(
        "n_group is {count} and topk_group {kept}, of {} experts; up to {GROUPS_MAX} groups of one size, at least \
         {best}, are supported, and as many experts in those that are kept as a token has, {}",
        config.count, config.top_k
    )))
}

/// Says which layers have experts: as `mlp_layer_types` says, else all but the first ones.
fn mark(
    layers: &mut [LayerConfig],
    kinds: Option<&[String]>,
    dense: usize,
    fields: &Fields,
) -> Result<(), EngineError> {
    let Some(kinds) = kinds else {
        for layer in layers.iter_mut().skip(dense) {
            layer.has_experts = true;
        }
        return Ok(());
    };
    if kinds.len() != layers.len() {
        let problem =
            format!("{} mlp_layer_types for {} num_hidden_layers", kinds.len(), layers.len());
        return Err(fields.problem(problem));
    }
    for (layer, kind) in layers.iter_mut().zip(kinds) {
        layer.has_experts = match kind.as_str() {
            "sparse" => true,
            "dense" => false,
            _ => return Err(fields.not_supported("mlp_layer_types", kind, &"dense, sparse")),
        };
    }
    Ok(())
}

/// The groups that experts are chosen from; `None` where all are one.
fn groups(
    fields: &mut Fields,
    [count, kept]: [usize; 2],
    best: usize,
) -> Result<Option<Groups>, EngineError> {
    let count = fields.or("n_group", count)?;
    let kept = fields.or("topk_group", kept)?;
    Ok((count > 1).then_some(Groups { count, kept, best }))
}
