//! `POST /v1/chat/completions`: its request, its answer, and its chunks.

mod answer;
mod chunks;
mod request;

pub use answer::{ChatAnswer, ChunkUsage, TextUsage, answer};
pub use chunks::Chunks;
pub use request::{ChatBody, ChatForm, ChatRequest, NAMES};
