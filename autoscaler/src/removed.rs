//! Models that were taken out of the configuration: what waits for them is answered.
//!
//! Their queues stay, and with them jobs that no worker takes. The leader answers these as `model_not_found` after a
//! while, in which the model may come back. It does so for models alone that it had itself, and only where there is no
//! other consumer: another fleet may serve other models on the same broker. Queues of models that it never had are
//! reported.

use std::{collections::BTreeMap, time::Duration};

use forebay_fabric::{
    Broker, Config,
    answer::Answerer,
    broker::{Delivery, QueueDepth},
};
use forebay_schemas::{ErrorCode, JobError, Lane, Limits, ModelId};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::settle::{self, Settler};

/// How long a model may be gone before what waits for it is answered: time to put a mistake in the file right.
const GRACE: Duration = Duration::from_secs(60);
/// The longest that a look at the queues of one model may take.
const LOOK_MAX: Duration = Duration::from_secs(3);
/// The most models that are followed; the queues of others are left alone.
const MODELS_MAX: usize = 1_024;

/// The models that this autoscaler had and has no longer.
pub struct Removed {
    broker: Broker,
    answerer: Answerer,
    limits: Limits,
    grace: Duration,
    models: BTreeMap<ModelId, Gone>,
}

/// A model that was taken out of the configuration.
struct Gone {
    since: Instant,
    /// The jobs that waited when it was looked at last.
    waiting: u64,
    /// Ends the settling of its queues when it is dropped.
    settling: Option<DropGuard>,
}

impl Removed {
    /// None yet. What is settled is answered by `answerer`.
    pub fn new(broker: Broker, answerer: Answerer, config: &Config) -> Self {
        let limits = config.limits.clone();
        Self { broker, answerer, limits, grace: GRACE, models: BTreeMap::new() }
    }

    /// Takes in that one configuration replaces another. A model that comes back is no longer settled.
    pub fn accept(&mut self, before: &Config, after: &Config) {
        self.models.retain(|model, _| !after.models.contains_key(model));
        for model in before.models.keys().filter(|model| !after.models.contains_key(*model)) {
            if self.models.len() < MODELS_MAX {
                let gone = || Gone { since: Instant::now(), waiting: 0, settling: None };
                self.models.entry(model.clone()).or_insert_with(gone);
            }
        }
    }

    /// Looks at the queues of models that are gone, and begins to settle those whose time is over.
    pub async fn step(&mut self) {
        for (model, gone) in &mut self.models {
            if gone.settling.is_some() {
                continue;
            }
            let queues = Lane::ALL.map(|lane| lane.queue(model));
            let look = tokio::time::timeout(LOOK_MAX, self.broker.queue_depths(&queues));
            let Ok(Ok(depths)) = look.await else { return };
            let there: Vec<QueueDepth> = depths.into_iter().flatten().collect();
            gone.waiting = there.iter().map(|depth| u64::from(depth.ready)).sum();
            let consumed = there.iter().any(|depth| depth.consumers > 0);
            if there.is_empty() || consumed || gone.since.elapsed() < self.grace {
                continue;
            }
            tracing::warn!(
                %model,
                waiting = gone.waiting,
                "the model is no longer configured: its jobs are answered as model_not_found"
            );
            let stop = CancellationToken::new();
            for queue in queues {
                let settler = Settler {
                    answerer: self.answerer.clone(),
                    limits: self.limits.clone(),
                    error_for: removed,
                };
                let subscription = self.broker.subscribe(&queue, settle::window());
                tokio::spawn(settler.run(subscription, stop.clone()));
            }
            gone.settling = Some(stop.drop_guard());
        }
    }

    /// Those that are gone.
    pub fn models(&self) -> impl Iterator<Item = &ModelId> {
        self.models.keys()
    }

    /// Leaves it to another autoscaler, which leads now.
    pub fn stand_by(&mut self) {
        for gone in self.models.values_mut() {
            gone.settling = None;
        }
    }

    /// The jobs that wait for models which are gone, for people.
    pub fn problems(&self) -> Vec<String> {
        let waiting = self.models.iter().filter(|(_, gone)| gone.waiting > 0);
        let problem = |(model, gone): (&ModelId, &Gone)| {
            let jobs = gone.waiting;
            let left_s = self.grace.saturating_sub(gone.since.elapsed()).as_secs();
            match (&gone.settling, left_s) {
                (Some(_), _) => format!(
                    "`{model}` is no longer configured: what comes for it is answered as model_not_found"
                ),
                (None, 1..) => format!(
                    "{jobs} jobs wait for `{model}`, which is no longer configured: they are answered as \
                     model_not_found in {left_s} s, unless it comes back"
                ),
                (None, 0) => format!(
                    "{jobs} jobs wait for `{model}`, which is no longer configured here and is consumed all the same"
                ),
            }
        };
        waiting.map(problem).collect()
    }
}

/// The error of a job whose model was taken out of the configuration.
fn removed(delivery: &Delivery) -> JobError {
    let message = format!(
        "the model of the routing key `{}` is no longer in this fleet",
        delivery.routing_key
    );
    JobError::new(ErrorCode::ModelNotFound, message)
}
