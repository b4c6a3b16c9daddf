//! The common base of all services: broker, store, telemetry and configuration.
//!
//! - [`config`]: `forebay.toml` and `FOREBAY_*`
//! - [`broker`]: a supervised AMQP connection; confirmed publishing; subscriptions
//! - [`management`]: what AMQP does not report of queues
//! - [`store`]: results, cancel requests and the worker registry in Redis
//! - [`access`]: tenants, their API keys and their limits
//! - [`usage`]: what jobs took, summed up by the hour
//! - [`intake`] and [`answer`]: from a delivery to a job, from an outcome to a settled delivery
//! - [`ticket`]: the right to answer a job
//! - [`disposition`]: what happens next to a job: answer, acknowledge, retry later, dead-letter
//! - [`retry`]: back-off steps for jobs that failed
//! - [`death`]: why a dead letter is dead
//! - [`telemetry`]: logs, metrics, health, traces
//! - [`tls`]: certificate authorities and client certificates
//! - [`shutdown`]: signals as a cancellation token
//! - [`backoff`], [`clock`]: pauses and time
//! - [`host`]: the machine
//! - [`with_causes`]: an error as one line
//! - [`rng`]: randomness that a test can repeat
//! - [`lengths`]: how many tokens an output is expected to have
//! - [`fail`]: fail points, at which tests make a program die
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod access;
pub mod answer;
pub mod backoff;
pub mod broker;
mod causes;
pub mod clock;
pub mod config;
pub mod death;
pub mod disposition;
pub mod fail;
pub mod host;
mod http_tls;
pub mod intake;
pub mod lengths;
#[cfg(feature = "management")]
pub mod management;
mod metered;
pub mod retry;
pub mod rng;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod ticket;
pub mod tls;
pub mod usage;

pub use broker::Broker;
pub use causes::with_causes;
pub use config::Config;
pub use store::Store;

/// Chooses the cryptography that all TLS of this process uses. Call once, first thing in `main`.
pub fn install_crypto() {
    // It fails only where a provider is installed already, which is just as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
