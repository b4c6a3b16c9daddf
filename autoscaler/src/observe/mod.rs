//! Observing: the jobs that wait, the workers there are, how fast jobs arrive, and the devices of this host.

pub mod arrivals;
pub mod devices;
pub mod proofs;
pub mod queues;
pub mod workers;

use std::{collections::BTreeMap, time::Duration};

use forebay_fabric::{Store, store::Registered};
use forebay_schemas::ModelId;

pub use arrivals::Arrivals;
pub use proofs::Proofs;
pub use queues::{Queues, Waiting};

/// The longest that the store may take to list the workers.
const WORKERS_WITHIN: Duration = Duration::from_secs(3);

/// The queues and workers of all models at one moment.
#[derive(Debug)]
pub struct Sight {
    /// The messages of each model, or why they could not be counted.
    pub waiting: Result<BTreeMap<ModelId, Waiting>, String>,
    /// The workers that are alive, or why that is not known.
    pub workers: Result<Registered, String>,
    /// Why the management API does not answer, where one is configured.
    pub management: Option<String>,
}

/// Looks at queues and workers at once.
pub async fn look(queues: &Queues, store: &Store, models: &[ModelId]) -> Sight {
    let workers = async {
        let listed = tokio::time::timeout(WORKERS_WITHIN, registry(store)).await;
        listed.unwrap_or_else(|_| {
            Err(format!("Redis did not list the workers in {} s", WORKERS_WITHIN.as_secs()))
        })
    };
    let (waiting, workers) = tokio::join!(queues.look(models), workers);
    let failed = [("queues", waiting.is_err()), ("workers", workers.is_err())];
    for (what, _) in failed.into_iter().filter(|(_, failed)| *failed) {
        metrics::counter!("forebay_observe_failures_total", "what" => what).increment(1);
    }
    let (waiting, management) = match waiting {
        Ok((waiting, problem)) => (Ok(waiting), problem),
        Err(error) => (Err(error), None),
    };
    Sight { waiting, workers, management }
}

/// The worker registry. In a store that takes no writes (one that is full, or was demoted) records expire because
/// heartbeats are refused, so who is missing there says nothing: it counts as one that can't be read.
async fn registry(store: &Store) -> Result<Registered, String> {
    let refused =
        |error| format!("Redis takes no heartbeats, so who is missing is unknown: {error}");
    store.probe().await.map_err(refused)?;
    store.registered().await.map_err(|error| error.to_string())
}

impl Sight {
    /// Why parts of the observation are missing.
    pub fn problems(&self) -> Vec<String> {
        let errors =
            [self.waiting.as_ref().err(), self.workers.as_ref().err(), self.management.as_ref()];
        errors.into_iter().flatten().cloned().collect()
    }
}
