//! Looking at the fleet: its queues, workers and models; and taking a job back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use forebay_fabric::management::Management;
use forebay_schemas::{
    FleetStatus, JobId, Lane, ModelId, WorkerRecord, WorkerState,
    limits::RESULT_TTL_S_DEFAULT,
    names::{DEAD, JOBS, UNROUTABLE},
    topology::{QueueSettings, Topology},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::{Client, ClientError};
use crate::pull;

/// Queues looked at together, each on a channel of its own for a moment.
const LOOKS_AT_ONCE: usize = 8;
/// The longest that the management API may take.
const MANAGEMENT_MAX: Duration = Duration::from_secs(10);

/// The queues of the fleet.
#[derive(Debug)]
pub struct Queues {
    /// Those of models first, then the shared ones.
    pub queues: Vec<QueueInfo>,
    /// Why the management API, though configured, told nothing.
    pub management_error: Option<ClientError>,
}

/// A queue of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// The model whose jobs it holds; absent for dead letters and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelId>,
    /// The lane of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// Messages that wait, now.
    pub ready: u64,
    /// Messages that were handed out and are not acknowledged: as the management API told, which
    /// counts every five seconds. Absent without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unacknowledged: Option<u64>,
    /// Consumers, now.
    pub consumers: u32,
}

/// A model of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelInfo {
    /// Its id.
    pub id: String,
    /// Where it comes from; absent when it is not configured here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The size of the copy in this machine's cache; absent when there is no complete one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_bytes: Option<u64>,
    /// Live workers; absent when Redis could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Those of them that take work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers_ready: Option<usize>,
}

impl Client {
    /// Asks for a job to be cancelled. Whoever takes it up next settles it as cancelled; a job that is
    /// being computed, or done, is not changed by it.
    pub async fn cancel(&self, id: &JobId) -> Result<(), ClientError> {
        Ok(self.inner.store.request_cancel(id, RESULT_TTL_S_DEFAULT).await?)
    }

    /// The workers that are alive, ordered by id.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, ClientError> {
        Ok(self.inner.store.workers().await?)
    }

    /// What the leading autoscaler last told of the fleet; `None` when none leads.
    pub async fn status(&self) -> Result<Option<FleetStatus>, ClientError> {
        Ok(self.inner.store.status().await?)
    }

    /// The models that are configured here or that `workers` (from [`Client::workers`], where Redis
    /// could be asked) run, ordered by id.
    pub fn models(&self, workers: Option<&[WorkerRecord]>) -> Vec<ModelInfo> {
        let config = &self.inner.config;
        let served = workers.unwrap_or_default().iter().map(|worker| worker.model.clone());
        let ids: BTreeSet<String> =
            config.models.keys().map(ToString::to_string).chain(served).collect();
        ids.into_iter().map(|id| self.model_info(id, workers)).collect()
    }

    fn model_info(&self, id: String, workers: Option<&[WorkerRecord]>) -> ModelInfo {
        let config = &self.inner.config;
        // A worker may run something that has no valid name; it is in no configuration then.
        let model: Option<ModelId> = id.parse().ok();
        let configured = model.as_ref().and_then(|model| config.models.get(model));
        let manifest = model.as_ref().and_then(|model| pull::cached(&config.models_dir(), model));
        let count = |wanted: fn(&WorkerRecord) -> bool| {
            let mine = |worker: &&WorkerRecord| worker.model == id && wanted(worker);
            workers.map(|workers| workers.iter().filter(mine).count())
        };
        ModelInfo {
            source: configured.map(|model| model.source.clone()),
            cached_bytes: manifest.map(|manifest| manifest.bytes()),
            workers: count(|_| true),
            workers_ready: count(|worker| worker.state == WorkerState::Ready),
            id,
        }
    }

    /// The fleet's queues: those of the models known here, those that the management API knows when it
    /// is configured, and those of dead, unroutable and postponed messages.
    ///
    /// When the management API fails, the rest is told without it.
    pub async fn queues(&self) -> Result<Queues, ClientError> {
        let (told, management_error) = match self.unacknowledged().await {
            Ok(told) => (told, None),
            Err(error) => (None, Some(error)),
        };
        let broker = self.broker().await?;
        broker.ready_within(self.connect_timeout()).await?;
        let names = self.queue_names(told.as_ref()).await;
        let look = |name: String| async {
            let depth = broker.queue_depth(&name).await?;
            Ok::<_, ClientError>(depth.map(|depth| QueueInfo {
                unacknowledged: told.as_ref().map(|told| told.get(&name).copied().unwrap_or(0)),
                ready: depth.ready.into(),
                consumers: depth.consumers,
                ..of_name(name)
            }))
        };
        let looks = stream::iter(names).map(look).buffered(LOOKS_AT_ONCE);
        let found: Vec<Option<QueueInfo>> = looks.try_collect().await?;
        Ok(Queues { queues: found.into_iter().flatten().collect(), management_error })
    }

    async fn unacknowledged(&self) -> Result<Option<BTreeMap<String, u64>>, ClientError> {
        match Management::new(&self.inner.config, MANAGEMENT_MAX)? {
            Some(management) => Ok(Some(management.unacknowledged().await?)),
            None => Ok(None),
        }
    }

    /// How many jobs wait for `model` in both lanes, not counting those handed to a worker.
    pub async fn backlog(&self, model: &ModelId) -> Result<u64, ClientError> {
        let broker = self.broker().await?;
        let mut ready = 0;
        for lane in Lane::ALL {
            let depth = broker.queue_depth(&lane.queue(model)).await?;
            ready += depth.map_or(0, |depth| u64::from(depth.ready));
        }
        Ok(ready)
    }

    /// Queues of models first, then the shared ones, as in the topology.
    async fn queue_names(&self, told: Option<&BTreeMap<String, u64>>) -> Vec<String> {
        let mut models: BTreeSet<ModelId> = self.inner.config.models.keys().cloned().collect();
        // Without Redis its workers' models are missing here, and nothing else.
        let workers = self.inner.store.workers().await.unwrap_or_default();
        models.extend(workers.into_iter().filter_map(|worker| worker.model.parse().ok()));
        let told = told.into_iter().flat_map(BTreeMap::keys);
        models.extend(told.filter_map(|name| Some(lane_of(name)?.0)));
        let lanes = models.iter().flat_map(|model| Lane::ALL.map(|lane| lane.queue(model)));
        let shared = Topology::new([], &QueueSettings::default()).queues;
        lanes.chain(shared.into_iter().map(|queue| queue.name)).collect()
    }
}

fn of_name(name: String) -> QueueInfo {
    let (model, lane) = lane_of(&name).unzip();
    QueueInfo { name, model, lane, ready: 0, unacknowledged: None, consumers: 0 }
}

/// `forebay.jobs.<model>.<lane>`, where the model may have dots of its own.
fn lane_of(queue: &str) -> Option<(ModelId, Lane)> {
    let (model, lane) = queue.strip_prefix(JOBS)?.strip_prefix('.')?.rsplit_once('.')?;
    Some((model.parse().ok()?, lane.parse().ok()?))
}

impl QueueInfo {
    /// Whether messages here want a person's eye.
    pub fn is_trouble(&self) -> bool {
        [DEAD, UNROUTABLE].contains(&self.name.as_str()) && self.ready > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_told_by_its_name() {
        let of = |name: &str| lane_of(name).map(|(model, lane)| (model.to_string(), lane));
        assert_eq!(of("forebay.jobs.m.batch"), Some(("m".into(), Lane::Batch)));
        assert_eq!(of("forebay.jobs.e5.v2.interactive"), Some(("e5.v2".into(), Lane::Interactive)));
        for other in ["forebay.dead", "forebay.jobs.m.other", "forebay.jobs.batch", "x"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
