//! `[routes.NAME]`: names that clients of the gateway send as `model`, and the models that answer them.
//!
//! A target is a model and never a route, so there are no circles.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use forebay_schemas::ModelId;
use serde::{Deserialize, Serialize};

use super::sections::ModelConfig;

/// The most routes: each is a label of metrics.
pub const ROUTES_MAX: usize = 1_000;
/// The most targets of a route: each is a label too, and one is chosen for every request.
pub const TARGETS_MAX: usize = 32;
/// The most aliases of a route.
pub const ALIASES_MAX: usize = 64;
/// The longest name, in bytes: clients know models by `owner/name`.
const NAME_BYTES_MAX: usize = 128;

/// The name of a route, or an alias.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RouteName(String);

/// A text that can't be the name of a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` can't be the name of a route: use 1 to 128 of a-z, A-Z, 0-9 and . _ : / @ + -, the first of \
     them a letter or a digit"
)]
pub struct InvalidRouteName(String);

impl RouteName {
    /// The name as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RouteName {
    type Err = InvalidRouteName;

    fn from_str(text: &str) -> Result<Self, InvalidRouteName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@+-".contains(&byte);
        let is_name = text.len() <= NAME_BYTES_MAX
            && text.bytes().all(allowed)
            && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        let shown = || text.chars().take(NAME_BYTES_MAX).collect();
        is_name.then(|| Self(text.to_owned())).ok_or_else(|| InvalidRouteName(shown()))
    }
}

impl TryFrom<String> for RouteName {
    type Error = InvalidRouteName;

    fn try_from(text: String) -> Result<Self, InvalidRouteName> {
        text.parse()
    }
}

impl From<RouteName> for String {
    fn from(name: RouteName) -> Self {
        name.0
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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
    /// What becomes of texts that are longer than the model reads.
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

/// What becomes of texts that are longer than a model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truncation {
    /// They are cut, unless the request says otherwise.
    Cut,
    /// They are refused, whatever the request says.
    Refuse,
}

/// A route that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// There are too many of something.
    #[error("`{key}` has {count} {kind}: {max} is the most")]
    TooMany {
        /// The key.
        key: String,
        /// The things counted.
        kind: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// It has no target.
    #[error("`routes.{0}` has no targets: write targets = [{{ model = \"NAME\" }}]")]
    NoTargets(RouteName),
    /// A target is no model.
    #[error("`routes.{route}.targets`: `{model}` is {found}; there are these models: {known}")]
    UnknownModel {
        /// The route.
        route: RouteName,
        /// The target.
        model: ModelId,
        /// How the name is known, if it is.
        found: &'static str,
        /// The models.
        known: String,
    },
    /// A target is there twice.
    #[error("`routes.{route}.targets` has `{model}` twice: keep one of them, in its lower tier")]
    Twice {
        /// The route.
        route: RouteName,
        /// The target.
        model: ModelId,
    },
    /// A number is zero that can't be.
    #[error("`routes.{route}.{key}` is 0: use 1 or more, or leave it out")]
    Zero {
        /// The route.
        route: RouteName,
        /// The key.
        key: String,
    },
    /// A name stands for two things.
    #[error(
        "`routes.{route}`: the name `{name}` is a model of its own: a route may have it only if that model is one of \
         its targets; rename one of them"
    )]
    NameOfModel {
        /// The route.
        route: RouteName,
        /// The name, or an alias.
        name: RouteName,
    },
    /// A name stands for two routes.
    #[error("the name `{name}` is that of two routes, `{one}` and `{other}`: keep one")]
    NameTwice {
        /// The name, or an alias.
        name: RouteName,
        /// A route.
        one: RouteName,
        /// Another, or the same one.
        other: RouteName,
    },
    /// A target has no price.
    #[error(
        "`routes.{route}.prefer` is \"price\", and `{model}` has none: add [models.{model}.price], or prefer = \
         \"weight\""
    )]
    NoPrice {
        /// The route.
        route: RouteName,
        /// The target.
        model: ModelId,
    },
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
            let (route, model) = (route.clone(), model.clone());
            return Err(RouteError::UnknownModel { route, model, found, known });
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
