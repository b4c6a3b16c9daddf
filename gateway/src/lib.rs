//! The HTTP gateway: requests of OpenAI's, Cohere's, Jina's, Voyage's and Hugging Face's clients as jobs of the fleet.
//!
//! The way of a request is [`http`] (limits, id, endpoint) -> a pure parser -> [`fleet`] (jobs, their results) -> a
//! pure writer -> [`http`]. The pure ones know neither HTTP nor the fleet:
//!
//! - [`openai`], [`cohere`], [`rerank`], [`tei`], [`native`]: requests and answers of each interface;
//! - [`fields`], [`inputs`] and [`token_ids`] read JSON bodies, within bounds, with errors that name the field;
//! - [`access`] is who may ask, and how much;
//! - [`document`] is the `OpenAPI` document, which endpoints add themselves to;
//! - [`routing`] is which model answers, and which one when it can't;
//! - [`trace`] is the distributed trace that a request is part of;
//! - [`usage`] is what was used, as a report;
//! - [`error`] is an answer that is an error, and [`failures`] maps the fleet's own to it.
//!
//! [`service`] starts and stops everything.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod access;
pub mod cohere;
pub mod document;
pub mod error;
pub mod failures;
pub mod fields;
pub mod fleet;
pub mod http;
pub mod inputs;
pub mod native;
pub mod openai;
pub mod rerank;
pub mod routing;
pub mod service;
pub mod tei;
pub mod token_ids;
pub mod trace;
pub mod usage;
