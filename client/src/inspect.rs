//! Inspecting the fleet: workers, models, queues and the autoscaler's status; and cancelling a job.

use std::{collections::BTreeSet, time::Duration};

use forebay_fabric::{
    broker::{BrokerError, QueueDepth},
    config::ModelConfig,
    telemetry::Health,
};
use forebay_schemas::{
    FleetStatus, JobId, Lane, ModelId, WorkerRecord, WorkerState,
    limits::RESULT_TTL_S_DEFAULT,
    names::{DEAD, JOBS, UNROUTABLE},
    topology::{QueueSettings, Topology},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{client::Client, error::ClientError};

/// Queues inspected concurrently, each on a short-lived channel of its own.
const INSPECTED_AT_ONCE: usize = 8;
/// Queues that show nothing, asked at once whether that is so.
const ASKED_AT_ONCE: usize = 32;
/// The longest that such a queue may take to hand out its first message. A leader takes milliseconds.
const ASKED_WITHIN: Duration = Duration::from_secs(1);

/// A queue of the fleet, as AMQP reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// The model whose jobs it holds; absent for dead letters and other shared queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelId>,
    /// The lane of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// Messages that wait now; `None` where that is unknown: the queue shows none, and its leader, which alone knows,
    /// can't be reached.
    pub ready: Option<u64>,
    /// Consumers now.
    pub consumers: u32,
}

/// A model of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelInfo {
    /// Its id.
    pub id: String,
    /// The source of its files; absent when it is not in this configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether an endpoint computes it, and not workers of this fleet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_remote: bool,
    /// Live workers; absent when Redis could not be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Live workers that take jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers_ready: Option<usize>,
}

impl Client {
    /// Requests that a job be cancelled. The worker that takes it up next settles it as cancelled; a job that is
    /// being computed, or done, is not affected.
    pub async fn cancel(&self, id: &JobId) -> Result<(), ClientError> {
        Ok(self.inner.store.request_cancel(id, RESULT_TTL_S_DEFAULT).await?)
    }

    /// Keeps the conditions `broker` and `store` of `health` in step with the two servers until `stop`: for services
    /// that report whether they can serve. Returns once the broker is connected; an error that waiting does not mend,
    /// such as a refused login, is returned at once.
    pub async fn report_health(
        &self,
        health: &Health,
        stop: &CancellationToken,
    ) -> Result<(), BrokerError> {
        self.inner.store.report_health(health.clone(), stop.clone());
        // Each round takes as long as connecting may: that is its pause.
        while let Some(connected) = stop.run_until_cancelled(self.broker()).await {
            match connected {
                Ok(broker) => {
                    broker.report_health(health.clone());
                    return Ok(());
                }
                Err(error) if error.is_final() => return Err(error),
                Err(error) => health.set("broker", Err(error.to_string())),
            }
        }
        Ok(())
    }

    /// The workers that are alive, ordered by id.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, ClientError> {
        Ok(self.inner.store.workers().await?)
    }

    /// The last status that the leading autoscaler published; `None` when there is no leader.
    pub async fn status(&self) -> Result<Option<FleetStatus>, ClientError> {
        Ok(self.inner.store.status().await?)
    }

    /// The models that are configured here or that `workers` serve, ordered by id. `workers` are those of
    /// [`Client::workers`], or `None` when Redis could not be reached.
    pub fn models(&self, workers: Option<&[WorkerRecord]>) -> Vec<ModelInfo> {
        let config = &self.inner.config;
        let served = workers.unwrap_or_default().iter().map(|worker| worker.model.clone());
        let ids: BTreeSet<String> =
            config.models.keys().map(ToString::to_string).chain(served).collect();
        ids.into_iter().map(|id| self.model_info(id, workers)).collect()
    }

    fn model_info(&self, id: String, workers: Option<&[WorkerRecord]>) -> ModelInfo {
        // A worker may serve a model under an invalid id, which no configuration contains.
        let model: Option<ModelId> = id.parse().ok();
        let configured = model.and_then(|model| self.inner.config.models.get(&model));
        let count = |wanted: fn(&WorkerRecord) -> bool| {
            let mine = |worker: &&WorkerRecord| worker.model == id && wanted(worker);
            workers.map(|workers| workers.iter().filter(mine).count())
        };
        ModelInfo {
            source: configured.map(ModelConfig::origin),
            is_remote: configured.is_some_and(|model| model.remote.is_some()),
            workers: count(|_| true),
            workers_ready: count(|worker| worker.state == WorkerState::Ready),
            id,
        }
    }

    /// The fleet's queues that exist: those of models first, then the shared ones (dead, unroutable and postponed
    /// messages). The models are those configured here, those that live workers serve, and those of the queues in
    /// `named`, names known from elsewhere such as RabbitMQ's management API.
    pub async fn queues<'a>(
        &self,
        named: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<QueueInfo>, ClientError> {
        let mut models: BTreeSet<ModelId> =
            named.into_iter().filter_map(|name| Some(lane_of(name)?.0)).collect();
        models.extend(self.inner.config.models.keys().cloned());
        let broker = self.ready_broker().await?;
        // Without Redis the models of live workers are missing, and nothing else.
        let workers = self.inner.store.workers().await.unwrap_or_default();
        models.extend(workers.into_iter().filter_map(|worker| worker.model.parse().ok()));
        let inspect = |name: String| async {
            let depth = broker.queue_depth(&name).await?;
            Ok::<_, ClientError>(depth.map(|depth| (name, depth)))
        };
        let inspected = stream::iter(queue_names(&models)).map(inspect).buffered(INSPECTED_AT_ONCE);
        let found: Vec<Option<(String, QueueDepth)>> = inspected.try_collect().await?;
        let info = |(name, depth): (String, QueueDepth)| async move {
            let waiting =
                if depth.proves_itself() { Some(depth.ready) } else { self.waiting(&name).await };
            QueueInfo::new(name, waiting, depth.consumers)
        };
        Ok(stream::iter(found.into_iter().flatten())
            .map(info)
            .buffered(ASKED_AT_ONCE)
            .collect()
            .await)
    }

    /// The messages that wait in a queue that shows none, as its leader knows it; `None` where that does not answer.
    async fn waiting(&self, queue: &str) -> Option<u32> {
        let broker = self.questions().await.ok()?;
        tokio::time::timeout(ASKED_WITHIN, broker.waiting_by_proof(queue)).await.ok()?.ok()
    }

    /// The number of jobs that wait for `model` in both lanes, not counting those delivered to a worker.
    pub async fn backlog(&self, model: &ModelId) -> Result<u64, ClientError> {
        let broker = self.broker().await?;
        let mut ready = 0;
        for lane in Lane::ALL {
            let depth = broker.queue_depth(&lane.queue(model)).await?;
            ready += depth.map_or(0, |depth| u64::from(depth.ready));
        }
        Ok(ready)
    }
}

/// The queues of `models` first, then the shared ones, as in the topology.
fn queue_names(models: &BTreeSet<ModelId>) -> Vec<String> {
    let lanes = models.iter().flat_map(|model| Lane::ALL.map(|lane| lane.queue(model)));
    let shared = Topology::new([], &QueueSettings::default()).queues;
    lanes.chain(shared.into_iter().map(|queue| queue.name)).collect()
}

/// Parses `forebay.jobs.<model>.<lane>`, where the model may contain dots.
fn lane_of(queue: &str) -> Option<(ModelId, Lane)> {
    let (model, lane) = queue.strip_prefix(JOBS)?.strip_prefix('.')?.rsplit_once('.')?;
    Some((model.parse().ok()?, lane.parse().ok()?))
}

impl QueueInfo {
    fn new(name: String, waiting: Option<u32>, consumers: u32) -> Self {
        let (model, lane) = lane_of(&name).unzip();
        Self { name, model, lane, ready: waiting.map(u64::from), consumers }
    }

    /// Whether it holds messages that only an operator can deal with: dead or unroutable ones.
    pub fn is_trouble(&self) -> bool {
        [DEAD, UNROUTABLE].contains(&self.name.as_str()) && self.ready > Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_may_be_unknown_and_is_then_neither_zero_nor_trouble() {
        let info = |ready| QueueInfo::new(DEAD.to_owned(), ready, 0);
        assert_eq!(serde_json::to_value(info(None)).unwrap()["ready"], serde_json::Value::Null);
        assert_eq!(serde_json::to_value(info(Some(0))).unwrap()["ready"], 0);
        assert_eq!(
            [None, Some(0), Some(1)].map(|ready| info(ready).is_trouble()),
            [false, false, true]
        );
    }

    #[test]
    fn model_and_lane_are_read_from_the_name_of_a_queue() {
        let of = |name: &str| lane_of(name).map(|(model, lane)| (model.to_string(), lane));
        assert_eq!(of("forebay.jobs.m.batch"), Some(("m".into(), Lane::Batch)));
        assert_eq!(of("forebay.jobs.e5.v2.interactive"), Some(("e5.v2".into(), Lane::Interactive)));
        for other in ["forebay.dead", "forebay.jobs.m.other", "forebay.jobs.batch", "x"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
