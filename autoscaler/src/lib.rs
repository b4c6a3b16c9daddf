//! The control plane: scales each model's workers to its load, and settles what no worker will.
//!
//! The way of a decision is [`observe`] (queues, workers, devices) -> [`decide`] (a pure function) -> [`act`] (end,
//! drain, launch). Around it:
//!
//! - [`service`] starts and stops everything;
//! - [`scaler`] is the tick, [`pool`] keeps one model from tick to tick, and [`leaving`] takes down workers
//!   that are to leave whatever the load;
//! - [`doubted`] asks workers that seem lost before anything is done about that;
//! - [`lead`] is leader election: a lease with a fencing token, and the permit that is asked for before every action;
//! - [`reload`] watches the configuration, and [`status`] publishes what the leader knows;
//! - [`simulate`] runs the same decision over a trace in virtual time;
//! - [`settle`] answers the jobs that no worker will, [`given_up`] keeps those of them that a worker may still have,
//!   [`removed`] answers those of models that were taken out of the configuration, and [`deadlines`] those that expire
//!   while no worker runs.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod act;
pub mod deadlines;
pub mod decide;
pub mod declaring;
pub mod doubted;
pub mod given_up;
pub mod lead;
pub mod leaving;
pub mod observe;
pub mod pool;
pub mod reload;
pub mod removed;
pub mod scaler;
pub mod service;
pub mod settle;
pub mod simulate;
pub mod status;
#[cfg(test)]
mod testing;
pub mod unique;
