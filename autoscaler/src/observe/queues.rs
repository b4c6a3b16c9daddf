//! Looking at the queues of all models: what waits by AMQP, at once; what is in hand by the management API, where
//! there is one.
//!
//! RabbitMQ counts for its management API every five seconds; a passive declaration tells what waits now. So the first
//! message of an idle model is seen within a tick. What the API adds is messages in hand that no worker's record tells of.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use forebay_fabric::{Broker, Config, management::Management};
use forebay_schemas::{Lane, ModelId};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// How often the management API is asked: half as often as it counts would miss some.
const ASK_EVERY: Duration = Duration::from_millis(2_500);
/// The longest that one request to it may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// An older answer is none.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(12);
/// The longest that the broker may take to tell of all queues; a tick is not to hang on it.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// What the management API told last.
#[derive(Debug, Clone, Default)]
struct Told {
    /// Messages in hand, by queue.
    unacknowledged: BTreeMap<String, u64>,
    /// When it told that.
    at: Option<Instant>,
    /// Why it did not tell more since.
    error: Option<String>,
}

/// The messages of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Those that wait, in both lanes.
    pub ready: u64,
    /// Those in hand, as the management API counted at most some seconds ago; `None` without it.
    pub in_hand: Option<u64>,
}

/// Looks at queues.
pub struct Queues {
    broker: Broker,
    told: Option<watch::Receiver<Arc<Told>>>,
}

impl Queues {
    /// Looks by `broker`, and asks the management API of this configuration until `stop`.
    pub fn new(
        broker: Broker,
        config: &Config,
        stop: CancellationToken,
    ) -> Result<Self, forebay_fabric::management::ManagementError> {
        let told = Management::new(config, REQUEST_MAX)?.map(|management| {
            let (sender, receiver) = watch::channel(Arc::default());
            tokio::spawn(ask(management, sender, stop));
            receiver
        });
        Ok(Self { broker, told })
    }

    /// The messages of each model, and why the management API, though configured, is not to be had.
    pub async fn look(
        &self,
        models: &[ModelId],
    ) -> Result<(BTreeMap<ModelId, Waiting>, Option<String>), String> {
        let queues: Vec<String> =
            models.iter().flat_map(|model| Lane::ALL.map(|lane| lane.queue(model))).collect();
        let look = tokio::time::timeout(LOOK_MAX, self.broker.queue_depths(&queues));
        let depths = match look.await {
            Ok(depths) => depths.map_err(|error| error.to_string())?,
            Err(_) => {
                return Err(format!(
                    "RabbitMQ did not tell of its queues in {} s",
                    LOOK_MAX.as_secs()
                ));
            }
        };
        let told = self.told.as_ref().map(|told| told.borrow().clone());
        let (in_hand, problem) = match &told {
            None => (None, None),
            Some(told) if told.at.is_some_and(|at| at.elapsed() < ANSWER_AGE_MAX) => {
                (Some(&told.unacknowledged), None)
            }
            Some(told) => (
                None,
                Some(
                    told.error
                        .clone()
                        .unwrap_or_else(|| "the management API has not answered yet".into()),
                ),
            ),
        };
        let mut waiting = BTreeMap::new();
        let lanes = Lane::ALL.len();
        for (n, model) in models.iter().enumerate() {
            let mine = n * lanes..(n + 1) * lanes;
            // A queue that is not there has nothing in it: it is declared with the next connection.
            let ready =
                depths[mine.clone()].iter().flatten().map(|depth| u64::from(depth.ready)).sum();
            let in_hand = in_hand.map(|counts| {
                queues[mine].iter().map(|queue| counts.get(queue).copied().unwrap_or(0)).sum()
            });
            waiting.insert(model.clone(), Waiting { ready, in_hand });
        }
        Ok((waiting, problem))
    }
}

async fn ask(management: Management, told: watch::Sender<Arc<Told>>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(ASK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        match management.unacknowledged().await {
            Ok(unacknowledged) => {
                let at = Some(Instant::now());
                told.send_replace(Arc::new(Told { unacknowledged, at, error: None }));
            }
            Err(error) => {
                metrics::counter!("forebay_observe_failures_total", "what" => "management")
                    .increment(1);
                told.send_modify(|told| {
                    Arc::make_mut(told).error = Some(error.to_string());
                });
            }
        }
    }
}
