//! The worker: drains a model's queues, batches, computes, settles.
//!
//! A job's way, one module a stage, one bounded channel between two:
//!
//! [`decode`] -> [`admit`] -> [`tokenize`] -> [`batch`] -> [`note`] -> [`compute`] -> [`settle`]
//!
//! Stages overlap: while one batch computes, the next is packed and the one before is settled. Nothing
//! flows back. A job that fails on its way goes straight to [`settle`], which alone writes results
//! and acknowledges. The stages end one after the other when the first one's input ends, which is how
//! a worker drains.
//!
//! Around them: [`pipeline`] wires the stages, [`worker`] starts and drains them, [`registry`] tells the
//! fleet, [`watchdog`] ends a worker that is stuck and [`idle`] one that was forgotten, [`calibrate`] finds the best size of a
//! batch, [`budget`] and [`memory`] keep batches within what the device has, [`embed`] runs the engine without any of it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod admit;
pub mod assemble;
pub mod batch;
pub mod budget;
pub mod calibrate;
pub mod compute;
pub mod decode;
pub mod embed;
pub mod error;
pub mod faults;
pub mod idle;
pub mod job;
pub mod lanes;
pub mod memory;
pub mod note;
pub mod output;
pub mod packer;
pub mod pipeline;
pub mod registry;
pub mod settle;
pub mod stats;
pub mod tokenize;
pub mod watchdog;
pub mod worker;

pub use error::WorkerError;
