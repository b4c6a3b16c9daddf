//! Publishes the messages of a run over a link that fails.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lapin::Confirmation;

use super::messages::{Message, Messages};
use crate::history::History;
use crate::patience;
use crate::publisher::Publisher;

/// Messages that are published together.
const TOGETHER: usize = 20;
/// How long their confirmations are waited for before the connection counts as lost.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(3);
/// A pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Locks a history; one that a panic left behind is still good for the report.
pub fn locked(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The publisher of a run.
pub struct ChaosPublisher {
    /// Where it publishes.
    pub url: String,
    /// Keeps everything that is sent and confirmed.
    pub history: Arc<Mutex<History>>,
    /// When a message that is not confirmed is given up.
    pub until: Instant,
    publisher: Option<Publisher>,
}

impl ChaosPublisher {
    /// Has not connected yet.
    pub fn new(url: String, history: Arc<Mutex<History>>, until: Instant) -> Self {
        Self { url, history, until, publisher: None }
    }

    /// Publishes `count` messages evenly over `span`.
    pub async fn run(mut self, mut messages: Messages, count: usize, span: Duration) {
        let started = Instant::now();
        let mut again: Vec<Message> = Vec::new();
        for sent in (0..count).step_by(TOGETHER) {
            patience::at(started + span.mul_f64(sent as f64 / count as f64)).await;
            let fresh: Vec<Message> =
                (sent..count.min(sent + TOGETHER)).map(|_| messages.next()).collect();
            let twice = fresh.iter().filter(|message| message.twice).cloned().collect();
            let together = [fresh, std::mem::replace(&mut again, twice)].concat();
            self.deliver(together).await;
        }
        self.deliver(again).await;
    }

    /// Publishes these until each is confirmed, or was not insisted upon.
    async fn deliver(&mut self, mut messages: Vec<Message>) {
        for message in &messages {
            let id = &message.id;
            let expected = message.expected.as_ref();
            locked(&self.history).sends(id, message.outcome, expected);
        }
        while !messages.is_empty() && Instant::now() < self.until {
            let confirmed = self.attempt(&messages).await;
            let pairs = messages.into_iter().zip(confirmed);
            messages =
                pairs.filter(|(l, confirmed)| !confirmed && l.insisted).map(|(l, _)| l).collect();
            if !messages.is_empty() {
                patience::at(Instant::now() + PAUSE).await;
            }
        }
    }

    /// Publishes all of them once; which were confirmed.
    async fn attempt(&mut self, messages: &[Message]) -> Vec<bool> {
        let mut confirmed = vec![false; messages.len()];
        let connecting = Publisher::try_connect(&self.url);
        let publisher = match self.publisher.take() {
            Some(publisher) => publisher,
            None => match tokio::time::timeout(CONFIRMED_WITHIN, connecting).await {
                Ok(Ok(publisher)) => publisher,
                _ => return confirmed,
            },
        };
        let sent = messages.iter().map(|message| {
            let publish =
                publisher.try_publish(&message.key, &message.body, message.properties.clone());
            tokio::time::timeout(CONFIRMED_WITHIN, publish)
        });
        let mut is_whole = true;
        for (at, answer) in join_all(sent).await.into_iter().enumerate() {
            confirmed[at] = matches!(answer, Ok(Ok(Confirmation::Ack(None))));
            if confirmed[at] {
                locked(&self.history).confirmed(&messages[at].id);
            }
            is_whole &= confirmed[at];
        }
        // A connection on which anything was not confirmed is given up.
        self.publisher = is_whole.then_some(publisher);
        confirmed
    }
}
