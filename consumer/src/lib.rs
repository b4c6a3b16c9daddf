//! The worker: takes the jobs of one model from its queues, computes them, settles them.
//!
//! # The way of a job
//!
//! One module a stage, one bounded channel between two:
//!
//! [`decode`] -> [`admit`] -> [`tokenize`] -> [`encode::batch`] -> [`journal`] -> [`encode::compute`] -> [`settle`]
//!
//! Where the model generates text, what lies between [`admit`] and [`settle`] is
//!
//! [`generate::prepare`] -> [`generate::stage`] -> [`generate::checkpoint`]
//!
//! Stages overlap: while one batch computes, the next is packed and the one before is settled. A job that
//! fails on its way goes straight to [`settle`], which alone writes results and acknowledges. The stages end
//! one after the other when the first one's input ends, which is how a worker drains.
//!
//! Four signals travel against the jobs, none with a job in it: [`encode::compute`] reports to [`journal`] which
//! sequences the device is done with, and publishes to [`encode::batch`] how many tokens a batch may have (see
//! [`encode::budget`]); [`generate::stage`] publishes to [`decode`] how many jobs are worth holding (see
//! [`generate::holding`]); and [`decode`] takes nothing while the worker's health says that the store is away or that
//! memory is short.
//!
//! # Layout
//!
//! - Stages that all tasks share: [`decode`], [`admit`], [`tokenize`], [`journal`], [`settle`]; what they pass
//!   on is in [`job`] and [`in_flight`], the channels with two lanes in [`lanes`], the order of tenants in [`fair`].
//! - [`encode`]: the stages of encoders, whose sequences end in one step.
//! - [`generate`]: those of decoders, whose sequences live for many steps. `prompting` makes sequences of jobs,
//!   `schedule` decides what runs, out of a `backlog` and by what `expect` knows of outputs; `stage` and `steps` carry
//!   it out with what `device` keeps, `sequence` is one job on the device with its `answer`, `checkpoint` writes token
//!   streams and keeps the journal.
//! - [`remote`]: the stage of models that somebody else's endpoint computes: it calls it between [`admit`] and
//!   [`settle`].
//! - [`pipeline`] wires the stages, [`worker`] starts and drains them.
//! - Around them: [`registry`] sends heartbeats, [`watchdog`] ends a worker whose engine is stuck and [`idle`]
//!   one that no autoscaler looks after, [`memory`] limits its memory, [`pace`] the jobs that it holds, by what
//!   [`peers`] says of other workers too, [`in_hand`] counts the jobs that it has,
//!   [`stats`] are figures that are only reported.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod admit;
pub mod decode;
pub mod encode;
pub mod error;
pub mod fair;
pub mod generate;
pub mod idle;
pub mod in_flight;
pub mod in_hand;
pub mod job;
pub mod journal;
pub mod lanes;
pub mod loading;
pub mod memory;
pub mod pace;
pub mod peers;
pub mod pipeline;
pub mod registry;
pub mod remote;
pub mod revision;
pub mod settle;
pub mod stats;
#[cfg(test)]
mod testing;
pub mod tokenize;
pub mod watchdog;
pub mod worker;

pub use error::WorkerError;
