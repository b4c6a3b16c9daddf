//! The stage of remote models: somebody else's endpoint computes the jobs, between the stages that all models share.
//!
//! `decode -> admit -> ` [`call`] ` -> settle`: a job is admitted, journaled, settled and retried as any other. What is
//! its own here: calls are bounded in number, keep to the endpoint's own limits and stop for a while when it fails
//! ([`gate`], [`breaker`], [`allowance`]); [`embeddings`] and [`rerank`] write bodies and read answers, [`failure`]
//! maps errors to those of jobs, and [`endpoint`] alone speaks HTTP.

pub mod allowance;
pub mod answer;
pub mod breaker;
pub mod call;
pub mod embeddings;
pub mod endpoint;
pub mod failure;
pub mod gate;
pub mod model;
pub mod rerank;
pub mod watch;
