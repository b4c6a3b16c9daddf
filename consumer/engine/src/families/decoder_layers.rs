//! The settings of a decoder that differ from layer to layer: windows, rotations, and whether a layer has experts.

use crate::error::EngineError;
use crate::families::latent_config::LATENT;
use crate::load::fields::Fields;

/// The kinds of layers, as `layer_types` and `rope_parameters` name them.
pub(super) const GLOBAL: &str = "full_attention";
pub(super) const LOCAL: &str = "sliding_attention";

/// Several times as many layers as the largest model has.
const LAYERS_MAX: usize = 512;

/// The settings that differ from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerConfig {
    /// Which rotation; `None` for none.
    pub(crate) rope: Option<usize>,
    /// How many tokens attention sees, the own one among them; `None` for all.
    pub(crate) window: Option<usize>,
    /// Whether its feed-forward half is experts.
    pub(crate) has_experts: bool,
}

/// The layers: their windows, and which of the rotations they turn by.
pub(super) fn layers(name: &str, fields: &mut Fields) -> Result<Vec<LayerConfig>, EngineError> {
    let count: usize = fields.required("num_hidden_layers")?;
    if count == 0 || count > LAYERS_MAX {
        return Err(
            fields.problem(format!("{count} num_hidden_layers; 1 to {LAYERS_MAX} are supported"))
        );
    }
    let is_null = fields.is_null("sliding_window");
    let window: Option<usize> = fields.get("sliding_window")?;
    if window == Some(0) {
        return Err(fields.problem("sliding_window is 0".to_owned()));
    }
    // Which have experts is said beside them.
    let layer = |rope, window| LayerConfig { rope, window, has_experts: false };
    let all = |window| vec![layer(Some(0), window); count];
    let some = |local: Vec<bool>, window: Option<usize>| {
        local.into_iter().map(|local| layer(Some(0), window.filter(|_| local))).collect()
    };
    match name {
        "llama" => Ok(all(None)),
        _ if LATENT.contains(&name) => Ok(all(None)),
        "phi3" => Ok(all(window)),
        "mistral" => Ok(all(window.or((!is_null).then_some(4096)))),
        "qwen3_moe" => {
            // Of Qwen3, and without effect among experts.
            fields.without_effect(&["max_window_layers"]);
            let slides = fields.or("use_sliding_window", false)?;
            Ok(all(window.or((!is_null).then_some(4096)).filter(|_| slides)))
        }
        "gpt_oss" => {
            let window = window.or((!is_null).then_some(128));
            let local = is_local(fields, count, |index| index.is_multiple_of(2))?;
            Ok(some(local, window))
        }
        "gemma3_text" => {
            let every = fields.or("sliding_window_pattern", 6)?;
            let every = fields.or("_sliding_window_pattern", every)?;
            let local = |index: usize| every == 0 || !(index + 1).is_multiple_of(every);
            let local = is_local(fields, count, local)?;
            let window = window.unwrap_or(4096);
            let of = |&local: &bool| layer(Some(usize::from(local)), local.then_some(window));
            Ok(local.iter().map(of).collect())
        }
        "smollm3" => {
            let turns = turns(fields, count)?;
            let slides = fields.or("use_sliding_window", false)? && window.is_some();
            let local = is_local(fields, count, |index| slides && !turns[index])?;
            let of = |(&turns, local): (&bool, bool)| {
                layer(turns.then_some(0), window.filter(|_| slides && local))
            };
            Ok(turns.iter().zip(local).map(of).collect())
        }
        _ => {
            let slides = fields.or("use_sliding_window", false)?;
            let first: usize = fields.or("max_window_layers", 28)?;
            let window = slides.then_some(window.or((!is_null).then_some(4096))).flatten();
            let local = is_local(fields, count, |index| window.is_some() && index >= first)?;
            Ok(some(local, window))
        }
    }
}

/// Which layers of a `SmolLM3` have positions: as `no_rope_layers` says, in which 1 means that a layer has them, or all
/// but every so many.
fn turns(fields: &mut Fields, count: usize) -> Result<Vec<bool>, EngineError> {
    let every: usize = fields.or("no_rope_layer_interval", 4)?;
    let Some(listed) = fields.get::<Vec<u8>>("no_rope_layers")? else {
        return Ok((1..=count).map(|index| every == 0 || !index.is_multiple_of(every)).collect());
    };
    if listed.len() < count {
        let problem = format!("{} no_rope_layers for {count} num_hidden_layers", listed.len());
        return Err(fields.problem(problem));
    }
    Ok(listed[..count].iter().map(|&turns| turns != 0).collect())
}

/// For each layer whether it attends to a window, as `layer_types` says, else by `default`.
fn is_local(
    fields: &mut Fields,
    count: usize,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, EngineError> {
    let Some(kinds) = fields.get::<Vec<String>>("layer_types")? else {
        return Ok((0..count).map(default).collect());
    };
    if kinds.len() != count {
        let problem = format!("{} layer_types for {count} num_hidden_layers", kinds.len());
        return Err(fields.problem(problem));
    }
    let is_local = |kind: &String| match kind.as_str() {
        GLOBAL => Ok(false),
        LOCAL => Ok(true),
        _ => Err(fields.not_supported("layer_types", kind, &format!("{GLOBAL}, {LOCAL}"))),
    };
    kinds.iter().map(is_local).collect()
}
