//! `[routes.NAME]`: names that clients of the gateway send as `model`, and the models that answer them.
//!
//! A target is a model and never a route, so there are no circles.

use std::collections::{BTreeMap, BTreeSet};

use forebay_schemas::ModelId;
use serde::{Deserialize, Serialize};

use super::{route_error::RouteError, route_name::RouteName, sections::ModelConfig};

/// The most routes: each is a label of metrics.
pub const ROUTES_MAX: usize = 1_000;
/// The most targets of a route: each is a label too, and one is chosen for every request.
pub const TARGETS_MAX: usize = 32;
/// The most aliases of a route.
pub const ALIASES_MAX: usize = 64;

/// The models that answer one name, and which of them when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteConfig {
    /// Other names of this route.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<RouteName>,
    /// Whether a caller stays with one target of a tier: by API key, or by tenant where there is none.
    pub sticky: bool,
    /// The order of the targets within a tier.
    pub prefer: Preference,
    /// A target whose predicted wait is longer than this, in milliseconds, is passed over. Unset, as long as the
    /// request's caller waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_wait_ms: Option<u64>,
    /// A target that has not answered after so long, in milliseconds, is given up for the next one. Unset, a target has
    /// all the time of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_after_ms: Option<u64>,
    /// Whether the next target is asked when one fails.
    pub fallback_on_failure: bool,
    /// Whether texts that are longer than the model reads are cut.
    pub truncate: Truncation,
    /// The longest that a synchronous request waits for its result, in milliseconds; the gateway's own unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_wait_ms_max: Option<u64>,
    /// When jobs of `POST /v1/jobs` expire at the latest, in milliseconds after they were submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_ms_max: Option<u64>,
    /// The most texts or documents in one request; the gateway's own unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs_max: Option<usize>,
    /// The models, in tiers.
    pub targets: Vec<RouteTarget>,
}

impl Default for RouteConfig {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            aliases: Vec::new(),
            sticky: false,
            prefer: Preference::Weight,
            fallback_wait_ms: None,
            fallback_after_ms: None,
            fallback_on_failure: true,
            truncate: Truncation::Cut,
            request_wait_ms_max: None,
            expires_ms_max: None,
            inputs_max: None,
        }
    }
}

/// One of the models of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTarget {
    /// The model.
    pub model: ModelId,
    /// Its tier: those of a higher one are asked when those of a lower one can't answer.
    #[serde(default = "one")]
    pub tier: u32,
    /// Its share of the tier's requests, beside the weights of the others.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// The order of the targets within a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    /// Each gets its share of the requests.
    Weight,
    /// The cheapest first; those of equal prices by weight.
    Price,
}

/// Whether texts that are longer than a model reads are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truncation {
    /// They are cut, unless the request says otherwise.
    Cut,
    /// They are refused, whatever the request says.
    Refuse,
}

/// Checks all routes.
pub(super) fn check(
    routes: &BTreeMap<RouteName, RouteConfig>,
    models: &BTreeMap<ModelId, ModelConfig>,
) -> Result<(), RouteError> {
    at_most("routes", "routes", routes.len(), ROUTES_MAX)?;
    let mut names: BTreeMap<&RouteName, &RouteName> = BTreeMap::new();
    for (route, config) in routes {
        let key = |key| format!("routes.{route}.{key}");
        at_most(&key("targets"), "targets", config.targets.len(), TARGETS_MAX)?;
        at_most(&key("aliases"), "aliases", config.aliases.len(), ALIASES_MAX)?;
        check_targets(route, config, routes, models)?;
        check_numbers(route, config)?;
        for name in std::iter::once(route).chain(&config.aliases) {
            let is_model = models.keys().any(|model| model.as_str() == name.as_str());
            let is_target =
                config.targets.iter().any(|target| target.model.as_str() == name.as_str());
            if is_model && !is_target {
                return Err(RouteError::NameOfModel { route: route.clone(), name: name.clone() });
            }
            if let Some(one) = names.insert(name, route) {
                return Err(RouteError::NameTwice {
                    name: name.clone(),
                    one: one.clone(),
                    other: route.clone(),
                });
            }
        }
    }
    Ok(())
}

fn at_most(key: &str, kind: &'static str, count: usize, max: usize) -> Result<(), RouteError> {
    if count > max {
        return Err(RouteError::TooMany { key: key.to_owned(), kind, count, max });
    }
    Ok(())
}

fn check_targets(
    route: &RouteName,
    config: &RouteConfig,
    routes: &BTreeMap<RouteName, RouteConfig>,
    models: &BTreeMap<ModelId, ModelConfig>,
) -> Result<(), RouteError> {
    if config.targets.is_empty() {
        return Err(RouteError::NoTargets(route.clone()));
    }
    let mut seen = BTreeSet::new();
    for (n, RouteTarget { model, tier, weight }) in config.targets.iter().enumerate() {
        let Some(settings) = models.get(model) else {
            let is_route = routes.keys().any(|name| name.as_str() == model.as_str());
            let found = if is_route { "a route, and targets are models" } else { "no model" };
            let known: Vec<&str> = models.keys().map(ModelId::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let model = model.clone();
            return Err(RouteError::UnknownModel { route: route.clone(), model, found, known });
        };
        if !seen.insert(model) {
            return Err(RouteError::Twice { route: route.clone(), model: model.clone() });
        }
        for (key, value) in [("tier", *tier), ("weight", *weight)] {
            if value == 0 {
                let key = format!("targets[{n}].{key}");
                return Err(RouteError::Zero { route: route.clone(), key });
            }
        }
        if config.prefer == Preference::Price && settings.price.is_none() {
            return Err(RouteError::NoPrice { route: route.clone(), model: model.clone() });
        }
    }
    Ok(())
}

fn check_numbers(route: &RouteName, config: &RouteConfig) -> Result<(), RouteError> {
    // A bound of zero milliseconds on the predicted wait is one: no wait at all.
    for (key, value) in [
        ("fallback_after_ms", config.fallback_after_ms),
        ("request_wait_ms_max", config.request_wait_ms_max),
        ("expires_ms_max", config.expires_ms_max),
        ("inputs_max", config.inputs_max.map(|most| most as u64)),
    ] {
        if value == Some(0) {
            return Err(RouteError::Zero { route: route.clone(), key: key.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
