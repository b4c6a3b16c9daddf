//! The control plane: scales each model's workers to its load, and settles what no worker will.
//!
//! A decision's way: [`observe`] (queues, workers) -> [`policy`] (a pure function) -> [`act`] (launch, drain). Around
//! it: [`scaler`] is the tick, [`orders`] what comes of it, [`pool`] and [`fleet`] what is kept from one to the next, [`share`] and [`devices`] who
//! gets the places when there are too few, [`lead`] who may act, [`reload`] the configuration as it changes, [`status`]
//! what is told. [`simulate`] runs the same policy over a trace in virtual time. [`settle`] answers what no worker will. [`service`] starts and stops all of it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod act;
pub mod devices;
pub mod fleet;
pub mod lead;
pub mod observe;
pub mod orders;
pub mod policy;
pub mod pool;
pub mod reload;
pub mod scaler;
pub mod service;
pub mod settle;
pub mod share;
pub mod simulate;
pub mod status;
#[cfg(test)]
mod testing;
