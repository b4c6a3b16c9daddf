//! Readiness: named conditions that must all hold before a service is ready.

use std::{collections::BTreeMap, sync::Arc};

use metrics::gauge;
use serde::Serialize;
use tokio::sync::watch;

/// The conditions of one service. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Health {
    conditions: Arc<watch::Sender<Conditions>>,
}

type Conditions = BTreeMap<&'static str, Condition>;

/// One condition.
#[derive(Debug, Clone, Serialize)]
struct Condition {
    ok: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// The body of `/readyz`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) ready: bool,
    conditions: Conditions,
}

/// Why a condition does not hold about which nothing is known yet.
const STARTING: &str = "starting";

impl Condition {
    fn is_like(&self, other: &Self) -> bool {
        let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        self.ok == other.ok && words(&self.detail) == words(&other.detail)
    }
}

impl Health {
    /// Conditions that do not hold yet.
    pub fn new(conditions: &[&'static str]) -> Self {
        let health = Self::default();
        for name in conditions {
            health.set(name, Err(STARTING.into()));
        }
        health
    }

    /// Sets whether a condition holds, and why not. A change is logged: also that of the reason, unless it differs in
    /// numbers alone.
    pub fn set(&self, name: &'static str, state: Result<(), String>) {
        let condition = Condition { ok: state.is_ok(), detail: state.err().unwrap_or_default() };
        gauge!("forebay_condition", "name" => name).set(f64::from(u8::from(condition.ok)));
        let mut before = None;
        self.conditions.send_modify(|conditions| {
            before = conditions.insert(name, condition.clone());
        });
        if before.is_some_and(|before| before.is_like(&condition)) {
            return;
        }
        if condition.ok {
            tracing::info!(condition = name, "now holds");
        } else if condition.detail != STARTING {
            tracing::warn!(condition = name, detail = condition.detail, "does not hold");
        }
    }

    /// Whether all conditions hold.
    pub fn ready(&self) -> bool {
        self.report().ready
    }

    /// Waits until all of these conditions hold.
    pub async fn until(&self, names: &[&'static str]) {
        let hold = |conditions: &Conditions| {
            names.iter().all(|name| conditions.get(name).is_none_or(|condition| condition.ok))
        };
        // Mostly they hold, and this is asked for each job.
        if hold(&self.conditions.borrow()) {
            return;
        }
        // The sender lives in `self`.
        let _ = self.conditions.subscribe().wait_for(hold).await;
    }

    pub(super) fn report(&self) -> Report {
        let conditions = self.conditions.borrow().clone();
        Report { ready: conditions.values().all(|condition| condition.ok), conditions }
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

    #[tokio::test(start_paused = true)]
    async fn a_waiter_continues_when_its_conditions_hold() {
        let health = Health::new(&["store", "model"]);
        let waits = tokio::spawn({
            let health = health.clone();
            async move { health.until(&["store", "memory"]).await }
        });
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(!waits.is_finished(), "the store is not there yet");
        health.set("store", Ok(()));
        waits.await.unwrap();
    }
}
