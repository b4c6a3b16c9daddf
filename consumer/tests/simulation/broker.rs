//! A broker for the simulation: two lanes, prefetch, redelivery with a count, back-off queues, lost
//! links, and confirmations that get lost on their way.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use forebay_fabric::{
    broker::{
        Acker, Delivery, HeaderValue, JobSource, Message, Properties, PublishError, Publisher,
        Settlement,
    },
    rng,
};
use forebay_schemas::{Lane, names::JOBS};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::Notify, time::Instant};

use super::life::Life;

/// The delivery limit of the queues.
const DELIVERY_LIMIT: u64 = 50;

#[derive(Debug, Clone)]
struct Waiting {
    lane: Lane,
    body: Vec<u8>,
    properties: Properties,
    delivery_count: u64,
}

#[derive(Debug, Default)]
struct State {
    lanes: BTreeMap<Lane, VecDeque<Waiting>>,
    /// Delivered and not settled, by delivery tag, with the worker that has it.
    out: BTreeMap<u64, (String, Waiting)>,
    tags: u64,
    later: BTreeMap<(Instant, u64), Waiting>,
    dead_letters: Vec<Vec<u8>>,
    /// How likely a publish goes wrong.
    trouble: f64,
}

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Broker {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl Broker {
    pub fn publish(&self, lane: Lane, body: Vec<u8>, properties: Properties) {
        self.back(Waiting { lane, body, properties, delivery_count: 0 });
    }

    /// The connection of this worker is lost: all that it had not settled goes back.
    pub fn lose(&self, worker: &str) {
        let mut state = self.state();
        let lost: Vec<u64> =
            state.out.iter().filter(|(_, (by, _))| by == worker).map(|(tag, _)| *tag).collect();
        // The newest first, so that the oldest ends up in front.
        for tag in lost.into_iter().rev() {
            if let Some((_, waiting)) = state.out.remove(&tag) {
                state.requeue(waiting);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub fn set_trouble(&self, trouble: f64) {
        self.state().trouble = trouble;
    }

    /// Messages in queues, in hands, and in back-off queues.
    pub fn left(&self) -> usize {
        let state = self.state();
        state.lanes.values().map(VecDeque::len).sum::<usize>() + state.out.len() + state.later.len()
    }

    pub fn dead_letters(&self) -> usize {
        self.state().dead_letters.len()
    }

    /// Brings messages back from their back-off queues, for ever.
    pub async fn tick(self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let next = self.state().later.first_key_value().map(|((at, _), _)| *at);
            match next {
                None => changed.await,
                Some(at) if at > Instant::now() => {
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep_until(at) => {}
                        () = changed => {}
                    }
                }
                Some(_) => {
                    let due = self.state().later.pop_first();
                    if let Some((_, waiting)) = due {
                        self.back(waiting);
                    }
                }
            }
        }
    }

    fn back(&self, waiting: Waiting) {
        self.state().lanes.entry(waiting.lane).or_default().push_back(waiting);
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn take(&self, source: &Source) -> Option<Delivery> {
        let mut state = self.state();
        let mine = |(by, waiting): &&(String, Waiting)| {
            *by == source.life.name && waiting.lane == source.lane
        };
        if source.life.is_dead() || state.out.values().filter(mine).count() >= source.prefetch {
            return None;
        }
        let waiting = state.lanes.get_mut(&source.lane)?.pop_front()?;
        state.tags += 1;
        let tag = state.tags;
        state.out.insert(tag, (source.life.name.clone(), waiting.clone()));
        let acker = Acker::new(Out { broker: self.clone(), life: source.life.clone(), tag });
        Some(waiting.delivery(acker))
    }
}

/// A delivery that a worker has. A dead worker settles nothing.
struct Out {
    broker: Broker,
    life: Life,
    tag: u64,
}

impl Out {
    fn settle(self, how: impl FnOnce(&mut State, Waiting)) -> bool {
        if self.life.is_dead() {
            return false;
        }
        let mut state = self.broker.state();
        let Some((_, waiting)) = state.out.remove(&self.tag) else { return false };
        how(&mut state, waiting);
        drop(state);
        self.broker.changed.notify_waiters();
        true
    }
}

impl Settlement for Out {
    fn ack(self: Box<Self>) -> bool {
        self.settle(|_, _| {})
    }

    fn requeue(self: Box<Self>) -> bool {
        self.settle(State::requeue)
    }
}

impl State {
    fn requeue(&mut self, mut waiting: Waiting) {
        waiting.delivery_count += 1;
        if waiting.delivery_count > DELIVERY_LIMIT {
            self.dead_letters.push(waiting.body);
        } else {
            self.lanes.entry(waiting.lane).or_default().push_front(waiting);
        }
    }
}

impl Waiting {
    fn delivery(self, acker: Acker) -> Delivery {
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        if self.delivery_count > 0 {
            let count = HeaderValue::LongLongInt(self.delivery_count as i64);
            headers.insert("x-delivery-count".into(), count);
        }
        Delivery {
            body: self.body,
            properties: self.properties.with_headers(headers),
            exchange: JOBS.into(),
            routing_key: format!("m.{}", self.lane),
            redelivered: self.delivery_count > 0,
            acker,
        }
    }
}

/// One lane's deliveries for one worker.
pub struct Source {
    pub broker: Broker,
    pub life: Life,
    pub lane: Lane,
    pub prefetch: usize,
    pub cancelled: bool,
}

impl JobSource for Source {
    fn next(&mut self) -> BoxFuture<'_, Option<Delivery>> {
        async {
            loop {
                let mut changed = std::pin::pin!(self.broker.changed.notified());
                changed.as_mut().enable();
                if self.cancelled {
                    return None;
                }
                if let Some(delivery) = self.broker.take(self) {
                    return Some(delivery);
                }
                changed.await;
            }
        }
        .boxed()
    }

    fn cancel(&mut self) {
        self.cancelled = true;
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}

/// The way of one worker's messages to the broker.
pub struct Sender {
    pub broker: Broker,
    pub life: Life,
}

impl Publisher for Sender {
    fn publish<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), PublishError>> {
        async {
            tokio::time::sleep(Duration::from_secs_f64(rng::uniform(0.0002..=0.003))).await;
            self.life.breathe().await;
            let trouble = self.broker.state().trouble;
            let (arrives, is_confirmed) = if rng::uniform(0.0..=1.0) < trouble {
                (rng::uniform(0.0..=1.0) < 0.5, false)
            } else {
                (true, true)
            };
            if arrives {
                self.broker.receive(message);
            }
            let lost = PublishError::Unconfirmed { after_ms: 1, last: "lost on its way".into() };
            if is_confirmed { Ok(()) } else { Err(lost) }
        }
        .boxed()
    }
}

impl Broker {
    fn receive(&self, message: &Message) {
        let mut state = self.state();
        if !message.exchange.starts_with("forebay.retry.") {
            state.dead_letters.push(message.body.clone());
            return;
        }
        let expiration = message.properties.expiration().as_ref().unwrap();
        let delay = Duration::from_millis(expiration.as_str().parse().unwrap());
        let lane = message.routing_key.rsplit('.').next().unwrap().parse().unwrap();
        let properties = message.properties.clone();
        let waiting = Waiting { lane, body: message.body.clone(), properties, delivery_count: 0 };
        state.tags += 1;
        let at = (Instant::now() + delay, state.tags);
        state.later.insert(at, waiting);
        drop(state);
        self.changed.notify_waiters();
    }
}
