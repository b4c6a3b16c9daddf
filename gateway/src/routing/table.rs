//! The names that clients send: those of routes with their aliases, and those of models.

use std::{collections::HashMap, sync::Arc, time::Duration};

use forebay_fabric::config::{Config, Preference, RouteConfig, RouteName, Truncation};
use forebay_schemas::ModelId;

use super::choose::Target;

/// A route as requests see it.
#[derive(Debug)]
pub struct Route {
    /// Its name, whatever alias it was asked for by.
    pub name: RouteName,
    /// Its targets, in the configuration's order; at least one.
    pub targets: Vec<Target>,
    /// How it is configured.
    pub config: RouteConfig,
}

impl Route {
    fn new(name: RouteName, config: RouteConfig, all: &Config) -> Self {
        let price = |model: &ModelId| {
            let price = all.models.get(model).and_then(|model| model.price);
            // Without the preference it plays no part; with it, all targets have one.
            price.filter(|_| config.prefer == Preference::Price)
        };
        let targets = config.targets.iter().map(|target| Target {
            model: target.model.clone(),
            tier: target.tier,
            weight: target.weight,
            price: price(&target.model),
        });
        Self { name, targets: targets.collect(), config }
    }

    /// Whether texts may be cut that are longer than the model reads.
    pub fn may_cut(&self) -> bool {
        self.config.truncate == Truncation::Cut
    }

    /// How long a request may wait that would wait so long.
    pub fn wait(&self, asked: Duration) -> Duration {
        self.config.request_wait_ms_max.map_or(asked, |most| asked.min(Duration::from_millis(most)))
    }

    /// The longest wait that may be predicted of a target that is chosen, for a caller who waits so long.
    pub fn bound(&self, wait: Duration) -> Duration {
        self.config.fallback_wait_ms.map_or(wait, |most| wait.min(Duration::from_millis(most)))
    }
}

/// A name that a client sent.
#[derive(Debug, Clone)]
pub enum Named {
    /// A model's own name, known to the fleet or not.
    Model(ModelId),
    /// A route's name, or an alias of it.
    Route(Arc<Route>),
}

impl Named {
    /// The route, where it is one.
    pub fn route(&self) -> Option<&Route> {
        match self {
            Self::Model(_) => None,
            Self::Route(route) => Some(route),
        }
    }
}

/// All routes by their names and aliases.
#[derive(Debug, Default)]
pub struct Table {
    routes: HashMap<String, Arc<Route>>,
}

impl Table {
    /// The routes of a configuration that was checked.
    pub fn new(config: &Config) -> Self {
        let mut routes = HashMap::new();
        for (name, settings) in &config.routes {
            let route = Arc::new(Route::new(name.clone(), settings.clone(), config));
            for name in std::iter::once(name).chain(&settings.aliases) {
                routes.insert(name.as_str().to_owned(), route.clone());
            }
        }
        Self { routes }
    }

    /// The route of this name or alias.
    pub fn get(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes.get(name)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// All names and aliases, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.routes.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_route_is_found_by_its_name_and_by_each_alias() {
        let text = "[models.a]\nsource = \"folder:/a\"\n[routes.\"o/r\"]\naliases = [\"r2\"]\n\
                    fallback_wait_ms = 500\nrequest_wait_ms_max = 2000\ntargets = [{ model = \"a\" }]\n";
        let (config, _) = Config::parse(Path::new("f"), text, []).unwrap();
        let table = Table::new(&config);
        for name in ["o/r", "r2"] {
            assert_eq!(table.get(name).unwrap().name.as_str(), "o/r");
        }
        assert!(table.get("a").is_none() && !table.is_empty());
        let mut names: Vec<&str> = table.names().collect();
        names.sort_unstable();
        assert_eq!(names, ["o/r", "r2"]);
        let route = table.get("r2").unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(route.wait(seconds(300)), seconds(2));
        assert_eq!(route.wait(seconds(1)), seconds(1));
        assert_eq!(route.bound(seconds(300)), Duration::from_millis(500));
        assert_eq!(route.bound(Duration::from_millis(20)), Duration::from_millis(20));
    }
}
