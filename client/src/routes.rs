//! A cache of which models have queues, for models that are not in this client's configuration.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use forebay_schemas::ModelId;
use tokio::time::Instant;

/// How long a model without queues is not looked up again.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// The most models remembered as unknown.
const UNKNOWN_MAX: usize = 1_000;

/// Models that were looked up, and whether they had queues.
#[derive(Default)]
pub(crate) struct Routes {
    /// Models whose queues exist. A fleet's models are few, so this stays small.
    known: HashSet<ModelId>,
    /// Models that had no queue when they were looked up, with that time.
    unknown: HashMap<ModelId, Instant>,
}

impl Routes {
    /// Whether the model has queues; `None` where that has to be looked up.
    pub(crate) fn lookup(&self, model: &ModelId) -> Option<bool> {
        if self.known.contains(model) {
            return Some(true);
        }
        self.unknown.get(model).is_some_and(|at| at.elapsed() < UNKNOWN_FOR).then_some(false)
    }

    /// Remembers the result of a lookup.
    pub(crate) fn remember(&mut self, model: &ModelId, has_queues: bool) {
        if has_queues {
            self.known.insert(model.clone());
            return;
        }
        if self.unknown.len() >= UNKNOWN_MAX {
            self.unknown.clear();
        }
        self.unknown.insert(model.clone(), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_model_without_queues_is_looked_up_again_after_a_while_and_one_with_queues_is_not() {
        let with: ModelId = "with".parse().unwrap();
        let without: ModelId = "without".parse().unwrap();
        let mut routes = Routes::default();
        assert_eq!(routes.lookup(&with), None);
        routes.remember(&with, true);
        routes.remember(&without, false);
        assert_eq!(routes.lookup(&with), Some(true));
        assert_eq!(routes.lookup(&without), Some(false));
        tokio::time::advance(UNKNOWN_FOR).await;
        assert_eq!(routes.lookup(&with), Some(true));
        assert_eq!(routes.lookup(&without), None);
    }

    #[test]
    fn the_memory_of_unknown_models_is_bounded() {
        let mut routes = Routes::default();
        for n in 0..3 * UNKNOWN_MAX {
            routes.remember(&format!("m{n}").parse().unwrap(), false);
        }
        assert!(routes.unknown.len() <= UNKNOWN_MAX);
    }
}
