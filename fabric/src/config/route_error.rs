//! [`RouteError`]: why a route can't be used.

use forebay_schemas::ModelId;

use super::route_name::RouteName;

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
