//! The endpoints: each reads a request, asks the fleet, and writes the answer.

pub mod cohere;
pub mod document;
pub mod embeddings;
pub mod events;
pub mod generate;
pub mod health;
pub mod jobs;
pub mod models;
pub mod rerank;
pub mod tei;
pub mod usage;
