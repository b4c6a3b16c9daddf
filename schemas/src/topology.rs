//! Exchanges, queues and bindings as data, so that every service declares the same.
//!
//! All queues are quorum queues: replicated where the broker is a cluster, with counted deliveries
//! (`x-delivery-limit`). A full queue refuses the publish instead of dropping what it holds, which is backpressure
//! towards publishers; only `forebay.dead` drops its oldest message, whose job is answered from a copy.

use serde::{Deserialize, Serialize};

use crate::names::{
    DEAD, DEAD_SETTLE, JOBS, Lane, ModelId, UNROUTABLE, retry, retry_of, retry_of_models,
};

/// The back-off steps: the queue's suffix and how long a message stays there, in milliseconds.
pub const RETRY_STEPS: [(&str, u64); 5] =
    [("1s", 1_000), ("5s", 5_000), ("30s", 30_000), ("2m", 120_000), ("10m", 600_000)];

/// The settings that queues are declared with. All services of a fleet must agree on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// The most messages that a queue holds; a publish beyond is refused.
    pub length_max: u64,
    /// The most bytes of bodies that a queue holds; a publish beyond is refused. With 0 the queues are declared without
    /// this argument, as they were before it existed: a broker refuses a queue that exists with other arguments.
    pub length_bytes_max: u64,
    /// How often the broker redelivers a message before it becomes a dead letter. This is the last
    /// resort: a lost worker raises the count of every message that it had prefetched.
    pub delivery_limit: u64,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self { length_max: 1_000_000, length_bytes_max: 0, delivery_limit: 50 }
    }
}

/// A queue's or exchange's argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A string.
    Text(String),
    /// A number.
    Number(u64),
}

/// Arguments in the order in which they are declared.
pub type Arguments = Vec<(&'static str, Argument)>;

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// To the queues bound with the message's routing key.
    Direct,
    /// To every queue bound.
    Fanout,
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Its arguments.
    pub arguments: Arguments,
}

/// A durable quorum queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub arguments: Arguments,
}

/// A binding of a queue to an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The exchange.
    pub exchange: String,
    /// The queue.
    pub queue: String,
    /// The routing key; empty for a fanout.
    pub routing_key: String,
}

/// The declarations of a fleet, made in this order: exchanges, queues, bindings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// The exchanges.
    pub exchanges: Vec<Exchange>,
    /// The queues.
    pub queues: Vec<Queue>,
    /// The bindings.
    pub bindings: Vec<Binding>,
}

impl Topology {
    /// The topology of a fleet with these models.
    pub fn new<'a>(
        models: impl IntoIterator<Item = &'a ModelId>,
        settings: &QueueSettings,
    ) -> Self {
        let mut topology = Self::shared(settings);
        for model in models {
            topology.add_model(model, settings);
        }
        topology
    }

    fn shared(settings: &QueueSettings) -> Self {
        let mut topology = Self::default();
        topology.exchanges.push(Exchange {
            name: JOBS.into(),
            kind: ExchangeKind::Direct,
            arguments: vec![("alternate-exchange", Argument::Text(UNROUTABLE.into()))],
        });
        topology.add_fanout(UNROUTABLE.into(), arguments(settings, DEAD));
        topology.add_fanout(DEAD.into(), kept_arguments(settings));
        // Every dead letter goes to both queues: one copy to be answered, one for people.
        topology
            .queues
            .push(Queue { name: DEAD_SETTLE.into(), arguments: to_be_settled_arguments(settings) });
        topology.bindings.push(Binding {
            exchange: DEAD.into(),
            queue: DEAD_SETTLE.into(),
            routing_key: String::new(),
        });
        for (step, delay_ms) in RETRY_STEPS {
            topology.add_fanout(retry(step), retry_arguments(settings, delay_ms));
            topology.exchanges.push(Exchange {
                name: retry_of_models(step),
                kind: ExchangeKind::Direct,
                arguments: vec![("alternate-exchange", Argument::Text(retry(step)))],
            });
        }
        topology
    }

    fn add_fanout(&mut self, name: String, arguments: Arguments) {
        self.exchanges.push(Exchange {
            name: name.clone(),
            kind: ExchangeKind::Fanout,
            arguments: Vec::new(),
        });
        self.queues.push(Queue { name: name.clone(), arguments });
        let routing_key = String::new();
        self.bindings.push(Binding { exchange: name.clone(), queue: name, routing_key });
    }

    fn add_model(&mut self, model: &ModelId, settings: &QueueSettings) {
        for lane in Lane::ALL {
            let queue = lane.queue(model);
            self.queues.push(Queue { name: queue.clone(), arguments: arguments(settings, DEAD) });
            self.bind(JOBS, &queue, lane.routing_key(model));
        }
        // The bare model name is the short way to the batch lane.
        self.bind(JOBS, &Lane::Batch.queue(model), model.to_string());
        self.add_retries(model, settings);
    }

    /// The model's own retry queues. RabbitMQ moves at most 32 messages of a queue at a time to where they are
    /// dead-lettered to: in a queue that several models share, those of a model whose queue is full hold up the rest.
    fn add_retries(&mut self, model: &ModelId, settings: &QueueSettings) {
        for (step, delay_ms) in RETRY_STEPS {
            let queue = retry_of(step, model);
            let arguments = retry_arguments(settings, delay_ms);
            self.queues.push(Queue { name: queue.clone(), arguments });
            let lanes = Lane::ALL.map(|lane| lane.routing_key(model));
            for key in lanes.into_iter().chain([model.to_string()]) {
                self.bind(&retry_of_models(step), &queue, key);
            }
        }
    }

    fn bind(&mut self, exchange: &str, queue: &str, routing_key: String) {
        self.bindings.push(Binding { exchange: exchange.into(), queue: queue.into(), routing_key });
    }
}

fn bounded(settings: &QueueSettings, overflow: &str) -> Arguments {
    let mut arguments = vec![
        ("x-queue-type", Argument::Text("quorum".into())),
        ("x-max-length", Argument::Number(settings.length_max)),
        ("x-overflow", Argument::Text(overflow.into())),
    ];
    if settings.length_bytes_max > 0 {
        arguments.push(("x-max-length-bytes", Argument::Number(settings.length_bytes_max)));
    }
    arguments
}

fn arguments(settings: &QueueSettings, dead_letters_to: &str) -> Arguments {
    // Backpressure: the broker refuses a publish to a full queue, and the publisher fails or waits.
    let mut arguments = bounded(settings, "reject-publish");
    arguments.push(("x-dead-letter-exchange", Argument::Text(dead_letters_to.into())));
    arguments.push(("x-dead-letter-strategy", Argument::Text("at-least-once".into())));
    arguments.push(("x-delivery-limit", Argument::Number(settings.delivery_limit)));
    arguments
}

/// Retries wait for their step, and go back to the exchange of jobs with the routing key that they came with.
fn retry_arguments(settings: &QueueSettings, delay_ms: u64) -> Arguments {
    let mut arguments = arguments(settings, JOBS);
    arguments.push(("x-message-ttl", Argument::Number(delay_ms)));
    arguments
}

/// Dead letters that are kept for people are answered from their copy, so the oldest may be dropped when they are
/// too many or too old. A full queue that refused them would block every queue that dead-letters to it.
fn kept_arguments(settings: &QueueSettings) -> Arguments {
    let mut arguments = bounded(settings, "drop-head");
    arguments.push(("x-message-ttl", Argument::Number(DEAD_TTL_MS)));
    arguments.push(NEVER_REACHED);
    arguments
}

fn to_be_settled_arguments(settings: &QueueSettings) -> Arguments {
    let mut arguments = bounded(settings, "reject-publish");
    arguments.push(NEVER_REACHED);
    arguments
}

/// A dead letter has no further queue to go to, and past its delivery limit a queue discards. RabbitMQ 4 gives a
/// queue without a limit one of 20, so this one is never reached.
const NEVER_REACHED: (&str, Argument) = ("x-delivery-limit", Argument::Number(1_000_000_000));

/// How long a dead letter is kept for people, in milliseconds: fourteen days.
const DEAD_TTL_MS: u64 = 14 * 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        let models: Vec<ModelId> = vec!["a".parse().unwrap(), "b".parse().unwrap()];
        Topology::new(&models, &QueueSettings::default())
    }

    #[test]
    fn both_lanes_and_the_short_key_lead_to_a_model() {
        let topology = topology();
        let leads = |key: &str| -> Vec<&str> {
            let bound = topology.bindings.iter().filter(|b| b.exchange == JOBS);
            bound.filter(|b| b.routing_key == key).map(|b| b.queue.as_str()).collect()
        };
        assert_eq!(leads("a"), ["forebay.jobs.a.batch"]);
        assert_eq!(leads("a.batch"), ["forebay.jobs.a.batch"]);
        assert_eq!(leads("b.interactive"), ["forebay.jobs.b.interactive"]);
    }

    #[test]
    fn every_queue_is_bounded_and_only_the_last_have_nowhere_to_put_dead_letters() {
        for queue in topology().queues {
            let has = |name: &str| queue.arguments.iter().any(|(key, _)| *key == name);
            assert!(has("x-max-length") && has("x-delivery-limit"), "{}", queue.name);
            let last = [DEAD, DEAD_SETTLE].contains(&queue.name.as_str());
            assert_eq!(has("x-dead-letter-exchange"), !last, "{}", queue.name);
        }
    }

    #[test]
    fn each_model_s_retries_wait_in_queues_of_their_own_whatever_their_lane() {
        let topology = topology();
        for key in ["a", "a.batch", "a.interactive", "b.batch"] {
            let bound = topology.bindings.iter().filter(|b| b.exchange != JOBS);
            let queues: Vec<&str> =
                bound.filter(|b| b.routing_key == key).map(|b| b.queue.as_str()).collect();
            let model = &key[..1];
            let own = RETRY_STEPS.map(|(step, _)| format!("forebay.retry.{step}.{model}"));
            assert_eq!(queues, own, "{key}");
        }
        // What matches no model waits in the shared queue, to which earlier versions still publish.
        let retries = topology.exchanges.iter().filter(|e| e.name.ends_with(".models"));
        for exchange in retries.clone() {
            let shared = exchange.name.trim_end_matches(".models");
            let expected = [("alternate-exchange", Argument::Text(shared.into()))];
            assert_eq!(exchange.arguments, expected);
            assert!(topology.bindings.iter().any(|b| b.exchange == shared && b.queue == shared));
        }
        assert_eq!(retries.count(), RETRY_STEPS.len());
    }

    #[test]
    fn bytes_are_bounded_where_that_is_set_and_only_there() {
        let declared = |length_bytes_max| {
            let settings = QueueSettings { length_bytes_max, ..QueueSettings::default() };
            let queues = Topology::new(&["a".parse().unwrap()], &settings).queues;
            let bounded = |queue: &&Queue| {
                let argument = ("x-max-length-bytes", Argument::Number(length_bytes_max));
                queue.arguments.contains(&argument)
            };
            (queues.iter().filter(bounded).count(), queues.len())
        };
        let (bounded, all) = declared(1_000);
        assert_eq!(bounded, all);
        assert_eq!(declared(0).0, 0, "queues of earlier versions lack the argument");
    }

    #[test]
    fn every_binding_joins_what_is_declared() {
        let topology = topology();
        for binding in &topology.bindings {
            assert!(topology.exchanges.iter().any(|e| e.name == binding.exchange));
            assert!(topology.queues.iter().any(|q| q.name == binding.queue));
        }
    }
}
