//! Drives the real binaries against a real `RabbitMQ` and a real Redis, over the wire only.
//!
//! From the ground up:
//!
//! - [`patience`] waits for a condition until a deadline; nothing here sleeps for luck.
//! - [`child_guard`] starts a process that can't outlive the test process, however that ends.
//! - [`broker`] and [`store`] are private servers: one `RabbitMQ` a test process with one virtual host a
//!   test, one Redis a test, and nodes, clusters and replicas for tests that lose some. Nothing is shared
//!   with an instance of the system. [`servers`] says where their programs are, and so of which version.
//! - [`relay`] stands between a program and a server and fails as networks do.
//! - [`certificates`] makes what both need to speak TLS.
//! - [`binaries`] builds and finds the programs under test; [`model`] says what they run.
//! - [`service`] is one of them as it runs, with its telemetry and its log; [`stack`] puts all together:
//!   servers for one test, and the services and commands that use them; [`gateway`] is the one that speaks HTTP, and
//!   [`api`] the document that it keeps to.
//! - [`collector`] takes the traces that programs export.
//! - [`job`], [`publisher`], [`record`] and [`oracle`] speak the wire format without the project's own
//!   codecs, so that a mistake in those can't hide itself; [`raw`] publishes what no library would.
//! - [`writer`] stands in for a worker that generates text.
//! - [`workload`] is a stack with jobs to do; [`pools`] lets an autoscaler launch its workers.
//! - [`far`] is a fleet with a remote model, whose endpoint is another fleet's gateway; [`endpoint`] stands before it
//!   and fails by a script.
//! - [`history`] remembers what was sent and what was seen, and says what breaks a promise; [`chaos`] makes
//!   such a history on a stack that is disturbed by a schedule drawn from a seed.
//!
//! - [`document`] reads the commands that the project's documents show.
//!
//! Everything panics on failure with a message that says what was awaited: this is test code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod api;
pub mod binaries;
pub mod broker;
pub mod certificates;
pub mod chaos;
pub mod child_guard;
pub mod collector;
pub mod document;
pub mod endpoint;
pub mod far;
pub mod gateway;
pub mod generator;
pub mod history;
pub mod job;
pub mod model;
pub mod oracle;
pub mod patience;
pub mod pools;
pub mod ports;
pub mod probe;
pub mod publisher;
pub mod raw;
pub mod record;
pub mod relay;
pub mod sentinel;
pub mod servers;
pub mod service;
pub mod stack;
pub mod store;
pub mod workload;
pub mod writer;

pub use model::MODEL;
