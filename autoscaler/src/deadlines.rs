//! Keeps the deadlines of jobs that wait while no worker of their model runs.
//!
//! The broker expires a message at the head of its queue alone: a job behind one without a deadline would be answered
//! only when a worker comes. So the leader takes what waits for such a model, one message at a time, holds it, answers
//! each job whose deadline passes, and gives the rest back as soon as there is a worker.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use forebay_fabric::{
    Broker,
    answer::Answerer,
    broker::{BrokerError, Browse, BrowsedMessage},
    clock::now_ms,
    disposition::Disposition,
    intake,
};
use forebay_schemas::{ErrorCode, JobError, Lane, Limits, ModelId};
use metrics::counter;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::observe::Sight;

/// How long jobs wait without a worker before their deadlines are kept here: a worker that starts is listed by then.
const UNSERVED_MS_MIN: u64 = 2_000;
/// The most messages of a lane that are held. Of a job without a deadline only its number in the queue is kept, so this
/// bounds how long it takes to give all back.
const HELD_MAX: usize = 2_000;
/// How often deadlines and new messages are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The longest that messages are held at a time: two thirds of RabbitMQ's consumer time-out of half an hour.
const HOLD_MAX: Duration = Duration::from_secs(20 * 60);

/// The deadlines of all models without workers.
pub struct Deadlines {
    broker: Broker,
    answerer: Answerer,
    limits: Limits,
    /// Messages that were delivered this often are left to their workers: before RabbitMQ 4.3 each hold raises the
    /// count by one, and `queues.delivery_limit` ends a message.
    deliveries_max: u64,
    models: BTreeMap<ModelId, Unserved>,
}

/// One model without workers.
#[derive(Default)]
struct Unserved {
    since_ms: u64,
    hold: Option<Hold>,
    /// How many messages are held: they wait, though their queue does not count them as ready.
    held: Arc<AtomicU64>,
}

struct Hold {
    task: JoinHandle<()>,
    /// Dropped, it ends the task, which then gives back what it holds.
    _stop: DropGuard,
}

/// A job with a deadline: when it passes, and its answer then.
struct Due {
    at_ms: u64,
    answer: Disposition,
}

impl Deadlines {
    /// Nothing is held yet.
    pub fn new(broker: Broker, answerer: Answerer, limits: Limits, delivery_limit: u64) -> Self {
        let deliveries_max = delivery_limit / 2;
        Self { broker, answerer, limits, deliveries_max, models: BTreeMap::new() }
    }

    /// Counts what is held as waiting: the size of a pool rests on it.
    pub fn count_in(&self, sight: &mut Sight) {
        let Ok(waiting) = &mut sight.waiting else { return };
        for (model, unserved) in &self.models {
            let held = unserved.held.load(Ordering::Relaxed);
            if let Some(waiting) = waiting.get_mut(model) {
                if let Ok(ready) = &mut waiting.ready {
                    *ready += held;
                }
                waiting.in_hand = waiting.in_hand.map(|all| all.saturating_sub(held));
            }
        }
    }

    /// Begins to keep the deadlines of models that have had no worker for a while, and stops where one is there, or
    /// may be: what can't be observed is not known to be unserved. `is_launched` returns whether a launcher has a
    /// worker of a model.
    pub fn step(&mut self, now_ms: u64, sight: &Sight, is_launched: impl Fn(&ModelId) -> bool) {
        let (Ok(waiting), Ok(workers)) = (&sight.waiting, &sight.workers) else {
            return self.release();
        };
        for (model, waiting) in waiting {
            // A record that can't be read may be of a worker of this model.
            let is_served = !workers.unreadable.is_empty()
                || workers.workers.iter().any(|worker| worker.model == model.as_str());
            let Ok(ready) = &waiting.ready else { continue };
            if *ready == 0 || is_served || is_launched(model) {
                self.leave(model);
                continue;
            }
            let new = || Unserved { since_ms: now_ms, ..Unserved::default() };
            let unserved = self.models.entry(model.clone()).or_insert_with(new);
            if unserved.hold.as_ref().is_some_and(|hold| hold.task.is_finished()) {
                // It was lost, or held for long enough: the broker has all of it for a while.
                unserved.hold = None;
                unserved.since_ms = now_ms;
            }
            let is_due = now_ms.saturating_sub(unserved.since_ms) >= UNSERVED_MS_MIN;
            if unserved.hold.is_none() && is_due {
                let held = unserved.held.clone();
                let hold = self.hold(model, held);
                self.models.entry(model.clone()).or_default().hold = Some(hold);
            }
        }
    }

    /// Gives everything back.
    pub fn release(&mut self) {
        let models: Vec<ModelId> = self.models.keys().cloned().collect();
        for model in models {
            self.leave(&model);
        }
    }

    /// Gives back what is held of a model, and forgets the model once all of it is back.
    fn leave(&mut self, model: &ModelId) {
        let Some(unserved) = self.models.get_mut(model) else { return };
        unserved.hold = None;
        if unserved.held.load(Ordering::Relaxed) == 0 {
            self.models.remove(model);
        }
    }

    fn hold(&self, model: &ModelId, held: Arc<AtomicU64>) -> Hold {
        let stop = CancellationToken::new();
        let holder = Holder {
            broker: self.broker.clone(),
            answerer: self.answerer.clone(),
            limits: self.limits.clone(),
            deliveries_max: self.deliveries_max,
            model: model.clone(),
            held,
            due: BinaryHeap::new(),
        };
        let task = tokio::spawn(holder.run(stop.clone()));
        Hold { task, _stop: stop.drop_guard() }
    }
}

/// Holds the messages of one model.
struct Holder {
    broker: Broker,
    answerer: Answerer,
    limits: Limits,
    deliveries_max: u64,
    model: ModelId,
    held: Arc<AtomicU64>,
    /// The earliest deadline is its greatest item.
    due: BinaryHeap<Reverse<Due>>,
}

impl Holder {
    async fn run(mut self, stop: CancellationToken) {
        tracing::info!(model = %self.model, "no worker runs: keeps the deadlines of its jobs");
        if let Err(error) = self.keep(&stop).await {
            // Its channel is gone, and with it the messages are back in their queues.
            tracing::warn!(model = %self.model, %error, "deadlines are not kept for a moment");
        }
        self.held.store(0, Ordering::Relaxed);
    }

    async fn keep(&mut self, stop: &CancellationToken) -> Result<(), BrokerError> {
        let began = Instant::now();
        let mut lanes = Vec::with_capacity(Lane::ALL.len());
        for lane in Lane::ALL {
            lanes.push(self.broker.browse(&lane.queue(&self.model)).await?);
        }
        let mut is_worn = false;
        while !is_worn && !stop.is_cancelled() && began.elapsed() < HOLD_MAX {
            for browse in &mut lanes {
                is_worn |= self.take(browse, stop).await?;
            }
            self.answer_due().await;
            stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await;
        }
        if is_worn {
            // What is held stays held for as long as that may be: another round would raise the counts again.
            tracing::warn!(model = %self.model, "jobs were redelivered often: takes no more of them");
            while !stop.is_cancelled() && began.elapsed() < HOLD_MAX {
                self.answer_due().await;
                stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await;
            }
        }
        // Unanswered ones go back with their browse.
        self.due.clear();
        for browse in lanes {
            browse.end().await?;
        }
        Ok(())
    }

    /// Takes what waits in one lane, as far as there is room. Whether one of them was redelivered too often.
    async fn take(
        &mut self,
        browse: &mut Browse,
        stop: &CancellationToken,
    ) -> Result<bool, BrokerError> {
        browse.look_again().await?;
        while browse.held() < HELD_MAX && !stop.is_cancelled() {
            let Some(message) = browse.next().await? else { break };
            self.held.fetch_add(1, Ordering::Relaxed);
            let is_worn = message.delivery_count() >= self.deliveries_max;
            self.enter(message);
            if is_worn {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Remembers the deadline of a message that has one. All but its answer is dropped; the message stays held.
    fn enter(&mut self, message: BrowsedMessage) {
        let expiration = message.properties.expiration().as_ref();
        let expiration_ms: Option<u64> = expiration.and_then(|ms| ms.as_str().parse().ok());
        // A message that is no job is answered by a worker.
        let Ok((job, mut ticket)) = intake::read(message.into_delivery(), &self.limits) else {
            return;
        };
        let from_now = expiration_ms.map(|ms| now_ms().saturating_add(ms));
        let Some(at_ms) = job.expires_at_ms().or(from_now) else { return };
        ticket.message.body = Vec::new();
        let message = "expired in its queue while no worker of its model ran";
        let error = JobError::new(ErrorCode::DeadlineExceeded, message);
        let answer = Disposition::failed(&job, ticket, error, self.answerer.attempts_max);
        self.due.push(Reverse(Due { at_ms, answer }));
    }

    async fn answer_due(&mut self) {
        let now_ms = now_ms();
        let mut answers = Vec::new();
        while self.due.peek().is_some_and(|Reverse(due)| due.at_ms <= now_ms) {
            answers.extend(self.due.pop().map(|Reverse(due)| due.answer));
        }
        if answers.is_empty() {
            return;
        }
        let count = answers.len() as u64;
        let code = ErrorCode::DeadlineExceeded.as_str();
        counter!("forebay_settle_for_others_total", "code" => code).increment(count);
        self.answerer.settle_all(answers).await;
        self.held.fetch_sub(count, Ordering::Relaxed);
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at_ms == other.at_ms
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at_ms.cmp(&other.at_ms)
    }
}
