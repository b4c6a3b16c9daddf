//! [`Revisions`]: with which weights each model computes at present, as its workers report it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use forebay_client::{Client, ModelId};
use forebay_schemas::{WorkerRecord, worker::HEARTBEAT_INTERVAL_MS};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often workers are looked at: as often as they report.
const LOOK_EVERY: Duration = Duration::from_millis(HEARTBEAT_INTERVAL_MS);
/// How long a look is trusted: two may fail.
const TRUSTED: Duration = Duration::from_millis(3 * HEARTBEAT_INTERVAL_MS);

/// The origin of a vector's bits: the model's files, the number type and the worker's version.
pub type Revision = Arc<str>;

/// The revisions of models and workers. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Revisions(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    at: Option<Instant>,
    /// `None` for a model whose workers differ, or of which one reports none.
    models: HashMap<String, Option<Revision>>,
    workers: HashMap<String, Revision>,
}

impl Revisions {
    /// Looks at the workers until `stop`. Must be called inside a Tokio runtime.
    pub fn start(client: &Client, stop: &CancellationToken) -> Self {
        let revisions = Self::default();
        let seen = revisions.clone();
        let client = client.clone();
        let stop = stop.clone();
        tokio::spawn(async move {
            let look = async {
                loop {
                    let asked_at = Instant::now();
                    match client.workers().await {
                        Ok(workers) => seen.set(&workers, asked_at),
                        Err(error) => {
                            tracing::debug!(%error, "can't look at the workers' revisions");
                        }
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            stop.run_until_cancelled(look).await;
        });
        revisions
    }

    fn set(&self, workers: &[WorkerRecord], at: Instant) {
        let mut seen = Seen { at: Some(at), ..Seen::default() };
        for worker in workers {
            let revision = worker.revision.as_ref().map(|files| {
                Revision::from(format!("{files} {} {}", worker.dtype, worker.version))
            });
            if let Some(revision) = &revision {
                seen.workers.insert(worker.id.clone(), revision.clone());
            }
            let of_model =
                seen.models.entry(worker.model.clone()).or_insert_with(|| revision.clone());
            if *of_model != revision {
                *of_model = None;
            }
        }
        *self.lock() = seen;
    }

    /// That of a model, where all of its workers have one. Unknown while none is alive.
    pub fn of_model(&self, model: &ModelId) -> Option<Revision> {
        let seen = self.lock();
        seen.at.filter(|at| at.elapsed() < TRUSTED)?;
        seen.models.get(model.as_str()).cloned().flatten()
    }

    /// Whether a worker has this revision.
    pub fn is_of(&self, worker: &str, revision: &Revision) -> bool {
        self.lock().workers.get(worker) == Some(revision)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use forebay_schemas::WorkerState;

    use super::*;

    pub fn worker(id: &str, model: &str, revision: Option<&str>) -> WorkerRecord {
        WorkerRecord {
            id: id.into(),
            model: model.into(),
            state: WorkerState::Ready,
            device: "cpu".into(),
            dtype: "f32".into(),
            host: "h".into(),
            pid: 1,
            version: "0".into(),
            started_at_ms: 1,
            beat_at_ms: 1,
            progress_at_ms: 1,
            in_flight: 0,
            jobs_done: 0,
            tokens_done: 0,
            busy_ms: 0,
            load_ms: 0,
            slots_free_tokens: 0,
            gpu: None,
            remote: None,
            generate: None,
            revision: revision.map(ToOwned::to_owned),
        }
    }

    pub fn seen(workers: &[WorkerRecord]) -> Revisions {
        let revisions = Revisions::default();
        revisions.set(workers, Instant::now());
        revisions
    }

    #[tokio::test(start_paused = true)]
    async fn a_revision_is_known_where_all_workers_of_a_model_report_the_same() {
        let of = |revisions: &Revisions, model: &str| revisions.of_model(&model.parse().unwrap());
        let alike =
            [worker("a", "m", Some("1")), worker("b", "m", Some("1")), worker("c", "n", Some("2"))];
        let revisions = seen(&alike);
        let first = of(&revisions, "m").unwrap();
        assert_ne!(Some(&first), of(&revisions, "n").as_ref());
        assert!(revisions.is_of("a", &first) && !revisions.is_of("c", &first));
        assert!(!revisions.is_of("new", &first), "one that was not seen yet");
        assert_eq!(of(&revisions, "o"), None, "no worker is alive");
        for other in [Some("2"), None] {
            let mixed =
                [worker("a", "m", Some("1")), worker("b", "m", other), worker("c", "m", Some("1"))];
            assert_eq!(of(&seen(&mixed), "m"), None, "{other:?}");
        }
        let bf16 = WorkerRecord { dtype: "bf16".into(), ..worker("a", "m", Some("1")) };
        assert_ne!(of(&seen(&[bf16]), "m"), Some(first));
        tokio::time::advance(TRUSTED).await;
        assert_eq!(of(&revisions, "m"), None, "it was too long ago");
    }
}
