//! OpenAI's requests and answers as types, without any I/O.

pub mod embeddings;
pub mod generate;
pub mod models;
pub mod sse;
