//! Named conditions that must all hold before a service calls itself ready.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

/// The conditions of one service. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Health {
    conditions: Arc<Mutex<BTreeMap<&'static str, Condition>>>,
}

/// One condition.
#[derive(Debug, Clone, Serialize)]
struct Condition {
    ok: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// What `/readyz` answers.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) ready: bool,
    conditions: BTreeMap<&'static str, Condition>,
}

impl Health {
    /// Conditions that do not hold yet.
    pub fn new(conditions: &[&'static str]) -> Self {
        let health = Self::default();
        for name in conditions {
            health.set(name, Err("starting".into()));
        }
        health
    }

    /// Says whether a condition holds, and why not.
    pub fn set(&self, name: &'static str, state: Result<(), String>) {
        let condition = Condition { ok: state.is_ok(), detail: state.err().unwrap_or_default() };
        let before = self.lock().insert(name, condition.clone());
        if before.is_some_and(|before| before.ok) != condition.ok {
            if condition.ok {
                tracing::info!(condition = name, "now holds");
            } else {
                tracing::warn!(condition = name, detail = condition.detail, "does not hold");
            }
        }
    }

    /// Whether all conditions hold.
    pub fn ready(&self) -> bool {
        self.report().ready
    }

    pub(super) fn report(&self) -> Report {
        let conditions = self.lock().clone();
        Report { ready: conditions.values().all(|condition| condition.ok), conditions }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Condition>> {
        // A panic while it was held leaves a whole map behind: every change is one insert.
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_every_condition() {
        let health = Health::new(&["broker", "store"]);
        assert!(!health.ready());
        health.set("broker", Ok(()));
        assert!(!health.ready());
        health.set("store", Ok(()));
        assert!(health.ready());
        health.set("broker", Err("gone".into()));
        assert!(!health.ready());
        let report = serde_json::to_value(health.report()).unwrap();
        assert_eq!(report["conditions"]["broker"]["detail"], "gone");
    }
}
