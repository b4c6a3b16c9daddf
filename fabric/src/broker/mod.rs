//! RabbitMQ: one supervised connection that reconnects for ever, and the commands that run on it.
//!
//! [`Broker::start`] returns at once; a task connects, declares the topology, and does both again
//! whenever the connection is lost. Publishing and subscribing wait for the next connection that is up.
//! Publishing has a connection of its own, opened with the first message: RabbitMQ's backpressure stops
//! reading from connections that publish, and acknowledgements must go through then.
//!
//! - `link`: the supervisor of a connection, and its state
//! - `connection`: [`Broker`], which shares it; `address`: where the broker is
//! - `declare`: the topology
//! - `publish`, with its `channel_pool`; `republish`: without the broker's history of a message
//! - `subscribe`, with the task `subscriber`, its `inbox`, and the `window`: how much it may hold
//! - `delivery`: what settles a message; `consumer_channel`: the acknowledgements
//! - `queues` and `browse`: looking at queues and at what waits in them

mod address;
mod browse;
mod channel_pool;
mod connection;
mod consumer_channel;
mod declare;
mod delivery;
mod error;
mod inbox;
mod link;
#[cfg(test)]
mod parsing;
mod publish;
mod queues;
mod republish;
mod subscribe;
mod subscriber;
mod window;

pub(crate) use address::parse as parse_address;
pub use browse::{Browse, BrowsedMessage};
pub use connection::Broker;
pub use delivery::{Acker, Delivery, Settlement};
pub use error::{BrokerError, PublishError};
pub use link::Link;
pub use publish::{HeaderValue, Headers, Message, Properties, Publisher};
pub use queues::QueueDepth;
pub use republish::for_republish;
pub use subscribe::{JobSource, Subscription};
pub use window::{Held, Load, Window, bytes_held};
