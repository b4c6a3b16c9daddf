//! Text by OpenAI's interfaces: chat, completions and responses. Requests become the parameters of `generate` jobs;
//! their outputs become answers, whole or event by event.
//!
//! - [`chat`], [`completions`], [`responses`]: one interface each, its requests and its answers
//! - [`sampling`], [`messages`], [`tools`], [`format`]: the parts of requests that they share
//! - [`logprobs`], [`held`], [`output`]: the parts of answers that they share

pub mod chat;
pub mod completions;
pub mod format;
pub mod held;
pub mod logprobs;
pub mod messages;
pub mod output;
pub mod responses;
pub mod sampling;
pub mod tools;
