//! Proof that a queue which shows nothing is empty.
//!
//! A passive declaration of a quorum queue whose leader can't be reached answers 0 messages and 0 consumers, as that of
//! an empty queue without consumers does. Seen with RabbitMQ 3.10.8 on three nodes: so it is for a minute while the
//! leader's node stands still, and for as long as two of three nodes are lost. A message or a consumer in the answer
//! proves that the leader gave it. Without either the queue is asked for its first message: a leader answers "empty" at
//! once; one that stands still does not answer; where none is left the broker closes the connection. So this has a
//! connection of its own, asks no queue more often than it has to, and takes no answer for "unknown".

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use forebay_fabric::{
    Broker, Config,
    broker::{BrokerError, QueueDepth},
};
use forebay_schemas::topology::Topology;
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout};

/// How long a queue may take to hand out its first message. A leader takes milliseconds.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// A queue that goes on showing nothing is asked again after this; one that showed something before, at once.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// The most queues that are asked at one look; the others are unknown until the next.
const ASKED_MAX: usize = 32;

/// Asks queues that show nothing.
pub struct Proofs {
    broker: Broker,
    zeros: Mutex<Zeros>,
}

/// The queues that show nothing, with what came of asking them last and when.
#[derive(Debug, Default)]
struct Zeros(BTreeMap<String, (Instant, Result<(), String>)>);

impl Proofs {
    /// On a connection of its own to this configuration's broker.
    pub fn new(config: &Config) -> Result<Self, BrokerError> {
        let broker = Broker::start(config, "forebay-autoscaler-proofs", Topology::default())?;
        Ok(Self { broker, zeros: Mutex::default() })
    }

    /// How many messages wait in each of these queues, whose depths were just looked at, or why that is not known. A
    /// queue that is not there has nothing in it: it is declared with the next connection.
    pub async fn look(
        &self,
        queues: &[String],
        depths: &[Option<QueueDepth>],
    ) -> Vec<Result<u64, String>> {
        let zeros = || self.zeros.lock().unwrap_or_else(PoisonError::into_inner);
        let due = zeros().due(Instant::now(), queues, depths);
        let asked = due.into_iter().map(async |queue| {
            let answer = match timeout(ANSWER_MAX, self.broker.waiting_by_proof(&queue)).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!("its leader does not answer in {} s", ANSWER_MAX.as_secs())),
            };
            (queue, answer)
        });
        let answers: BTreeMap<String, Result<u32, String>> =
            stream::iter(asked).buffer_unordered(ASKED_MAX).collect().await;
        zeros().take_in(Instant::now(), &answers);
        let zeros = zeros();
        let waiting = |(queue, depth): (&String, &Option<QueueDepth>)| match depth {
            None => Ok(0),
            Some(depth) if depth.proves_itself() => Ok(u64::from(depth.ready)),
            Some(_) => {
                // Messages may have come in between.
                let answer = match answers.get(queue) {
                    Some(answer) => answer.clone().map(u64::from),
                    None => zeros.known(queue).map(|()| 0),
                };
                answer.map_err(|reason| unknown(queue, &reason))
            }
        };
        queues.iter().zip(depths).map(waiting).collect()
    }
}

fn unknown(queue: &str, reason: &str) -> String {
    format!("`{queue}` shows no messages and does not prove it, so the size is held: {reason}")
}

impl Zeros {
    /// The queues to ask now. Forgets those that show something or are no longer looked at.
    fn due(
        &mut self,
        now: Instant,
        queues: &[String],
        depths: &[Option<QueueDepth>],
    ) -> Vec<String> {
        let shows_nothing = |depth: &QueueDepth| !depth.proves_itself();
        let zeros: BTreeSet<&String> = queues
            .iter()
            .zip(depths)
            .filter(|(_, depth)| depth.as_ref().is_some_and(shows_nothing))
            .map(|(queue, _)| queue)
            .collect();
        self.0.retain(|queue, _| zeros.contains(queue));
        let fresh = |at: &Instant| now.duration_since(*at) < ASK_EVERY;
        let mut due: Vec<&String> = zeros.into_iter().collect();
        due.retain(|queue| !self.0.get(*queue).is_some_and(|(at, _)| fresh(at)));
        // Those that were never asked first, then those that were asked longest ago.
        due.sort_by_key(|queue| self.0.get(*queue).map(|(at, _)| *at));
        due.into_iter().take(ASKED_MAX).cloned().collect()
    }

    fn take_in(&mut self, now: Instant, answers: &BTreeMap<String, Result<u32, String>>) {
        for (queue, answer) in answers {
            match answer {
                Ok(0) => self.0.insert(queue.clone(), (now, Ok(()))),
                Ok(_) => self.0.remove(queue),
                Err(reason) => self.0.insert(queue.clone(), (now, Err(reason.clone()))),
            };
        }
    }

    /// Whether it was proven to be empty, or why not.
    fn known(&self, queue: &str) -> Result<(), String> {
        let not_asked = || Err("it has not been asked yet".to_owned());
        self.0.get(queue).map_or_else(not_asked, |(_, proof)| proof.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Option<QueueDepth> = Some(QueueDepth { ready: 0, consumers: 0 });

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("q{n:03}")).collect()
    }

    fn answers(queue: &str, answer: Result<u32, &str>) -> BTreeMap<String, Result<u32, String>> {
        BTreeMap::from([(queue.to_owned(), answer.map_err(str::to_owned))])
    }

    #[test]
    fn messages_and_consumers_prove_themselves_and_nothing_else_does() {
        let shows = |ready, consumers| Some(QueueDepth { ready, consumers });
        let depths = [shows(3, 0), shows(0, 1), None, NOTHING];
        let due = Zeros::default().due(Instant::now(), &names(4), &depths);
        assert_eq!(due, ["q003"]);
    }

    #[test]
    fn a_proof_holds_for_a_while_and_only_as_long_as_the_queue_goes_on_showing_nothing() {
        let queues = names(1);
        let mut zeros = Zeros::default();
        let now = Instant::now();
        let due = |zeros: &mut Zeros, after: Duration, depth| {
            !zeros.due(now + after, &queues, &[depth]).is_empty()
        };
        assert!(zeros.known("q000").is_err(), "nothing is empty before it was asked");
        zeros.take_in(now, &answers("q000", Ok(0)));
        assert!(!due(&mut zeros, ASK_EVERY / 2, NOTHING));
        assert!(zeros.known("q000").is_ok());
        assert!(due(&mut zeros, ASK_EVERY, NOTHING));
        // Messages were there in between: what was proven before proves nothing now.
        due(&mut zeros, ASK_EVERY / 2, Some(QueueDepth { ready: 5, consumers: 0 }));
        assert!(due(&mut zeros, ASK_EVERY / 2, NOTHING));
        assert!(zeros.known("q000").is_err());
    }

    #[test]
    fn one_that_did_not_answer_stays_unknown_and_is_not_asked_at_every_look() {
        let queues = names(1);
        let mut zeros = Zeros::default();
        let now = Instant::now();
        zeros.take_in(now, &answers("q000", Err("no leader")));
        assert_eq!(zeros.known("q000"), Err("no leader".to_owned()));
        assert!(zeros.due(now + ASK_EVERY / 2, &queues, &[NOTHING]).is_empty());
        assert_eq!(zeros.known("q000"), Err("no leader".to_owned()));
        zeros.take_in(now, &answers("q000", Ok(2)));
        assert!(zeros.known("q000").is_err(), "it was not empty");
    }

    #[test]
    fn few_are_asked_at_once_and_all_in_turn() {
        let queues = names(3 * ASKED_MAX);
        let depths = vec![NOTHING; queues.len()];
        let mut zeros = Zeros::default();
        let mut asked = BTreeSet::new();
        for look in 0..3 {
            let now = Instant::now() + ASK_EVERY * look;
            let due = zeros.due(now, &queues, &depths);
            assert_eq!(due.len(), ASKED_MAX);
            for queue in &due {
                zeros.take_in(now, &answers(queue, Ok(0)));
            }
            asked.extend(due);
        }
        assert_eq!(asked.len(), queues.len());
    }
}
