//! OpenAI's requests and answers as types, without any I/O.

pub mod embeddings;
pub mod models;
