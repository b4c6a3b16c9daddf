//! Looking at the queues of all models: what waits by AMQP, at once; what is in hand by the management API, where
//! there is one.
//!
//! A queue whose leader can't be reached shows nothing: a zero has to be proven ([`proofs`](super::proofs)).
//! RabbitMQ counts for its management API every five seconds; a passive declaration returns what waits now. So the
//! first message of an idle model is seen within a tick. The API adds messages in hand that no worker's record has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use forebay_fabric::{
    Broker, Config,
    broker::QueueDepth,
    management::{Management, ManagementError},
};
use forebay_schemas::{Lane, ModelId, names::JOBS};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::proofs::Proofs;

/// How often the management API is asked: twice in each of its statistics intervals, which are 5 s long.
const ASK_EVERY: Duration = Duration::from_millis(2_500);
/// The longest that one request to it may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// An older answer counts as no answer.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(12);
/// The longest that the broker may take to report all queues; a tick is not to hang on it.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// The most queues of other models that are looked at.
const UNSERVED_MAX: usize = 64;

/// The last answer of the management API.
#[derive(Debug, Clone, Default)]
struct Answer {
    /// Messages in hand, by queue; `None` for one that was not counted.
    unacknowledged: BTreeMap<String, Option<u64>>,
    /// When it was given.
    at: Option<Instant>,
    /// Why there was no newer one.
    error: Option<String>,
}

/// The messages of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Those that wait, in both lanes, or why that is not known: a queue shows none and does not prove it.
    pub ready: Result<u64, String>,
    /// Those of them in the interactive lane; `None` where that is not known.
    pub interactive: Option<u64>,
    /// Those in hand, as the management API counted at most some seconds ago; `None` where it has no count.
    pub in_hand: Option<u64>,
    /// Whether the management API answers, and has no count of one of the queues.
    pub uncounted: bool,
}

/// Counts the messages in queues.
pub struct Queues {
    broker: Broker,
    proofs: Proofs,
    answer: Option<watch::Receiver<Arc<Answer>>>,
}

impl Queues {
    /// Looks by `broker`, has zeros proven, and asks the management API of this configuration until `stop`.
    pub fn new(
        broker: Broker,
        proofs: Proofs,
        config: &Config,
        stop: CancellationToken,
    ) -> Result<Self, ManagementError> {
        let answer = Management::new(config, REQUEST_MAX)?.map(|management| {
            let (sender, receiver) = watch::channel(Arc::default());
            tokio::spawn(ask(management, sender, stop));
            receiver
        });
        Ok(Self { broker, proofs, answer })
    }

    /// The messages of each model, and why the management API does not answer, where one is configured.
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
                    "RabbitMQ did not report its queues in {} s",
                    LOOK_MAX.as_secs()
                ));
            }
        };
        let waiting = self.proofs.look(&queues, &depths).await;
        let answer = self.answer.as_ref().map(|answer| answer.borrow().clone());
        let (in_hand, problem) = match &answer {
            None => (None, None),
            Some(answer) if answer.at.is_some_and(|at| at.elapsed() < ANSWER_AGE_MAX) => {
                (Some(&answer.unacknowledged), None)
            }
            Some(answer) => (
                None,
                Some(
                    answer
                        .error
                        .clone()
                        .unwrap_or_else(|| "the management API has not answered yet".into()),
                ),
            ),
        };
        let mut by_model = BTreeMap::new();
        let lanes = Lane::ALL.len();
        for (n, model) in models.iter().enumerate() {
            let mine = n * lanes..(n + 1) * lanes;
            let ready = waiting[mine.clone()].iter().cloned().sum();
            let lane = Lane::ALL.iter().position(|lane| *lane == Lane::Interactive);
            let interactive = lane.and_then(|lane| waiting[mine.clone()][lane].clone().ok());
            // A queue that the API has not counted yet is as unknown as all of them are without it.
            let counted = in_hand
                .map(|counts| queues[mine].iter().map(|queue| counts.get(queue)?.as_ref()).sum());
            let uncounted = counted == Some(None);
            let in_hand = counted.flatten();
            by_model.insert(model.clone(), Waiting { ready, interactive, in_hand, uncounted });
        }
        Ok((by_model, problem))
    }
}

impl Queues {
    /// The queues that hold jobs of models other than these and have no consumer, for people. Only the management API
    /// knows of them.
    pub async fn unserved<'a>(&self, models: impl Iterator<Item = &'a ModelId>) -> Vec<String> {
        let Some(answer) = &self.answer else { return Vec::new() };
        let answer = answer.borrow().clone();
        let ours: BTreeSet<String> =
            models.flat_map(|model| Lane::ALL.map(|lane| lane.queue(model))).collect();
        let of_a_model =
            |queue: &&String| queue.strip_prefix(JOBS).is_some_and(|rest| rest.starts_with('.'));
        let queues = answer.unacknowledged.keys().filter(of_a_model);
        let others: Vec<String> =
            queues.filter(|queue| !ours.contains(*queue)).take(UNSERVED_MAX).cloned().collect();
        if others.is_empty() {
            return Vec::new();
        }
        let look = tokio::time::timeout(LOOK_MAX, self.broker.queue_depths(&others));
        let Ok(Ok(depths)) = look.await else { return Vec::new() };
        let waits = |(queue, depth): (String, Option<QueueDepth>)| {
            let QueueDepth { ready, .. } =
                depth.filter(|depth| depth.ready > 0 && depth.consumers == 0)?;
            Some(format!(
                "`{queue}` holds {ready} jobs of a model that is not in the configuration"
            ))
        };
        others.into_iter().zip(depths).filter_map(waits).collect()
    }
}

async fn ask(management: Management, answer: watch::Sender<Arc<Answer>>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(ASK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        match management.unacknowledged().await {
            Ok(unacknowledged) => {
                let at = Some(Instant::now());
                answer.send_replace(Arc::new(Answer { unacknowledged, at, error: None }));
            }
            Err(error) => {
                metrics::counter!("forebay_observe_failures_total", "what" => "management")
                    .increment(1);
                answer.send_modify(|answer| {
                    Arc::make_mut(answer).error = Some(error.to_string());
                });
            }
        }
    }
}
