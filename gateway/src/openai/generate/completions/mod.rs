//! `POST /v1/completions`: its request, its answer, and its chunks.

mod answer;
mod request;

pub use answer::{Chunks, CompletionAnswer, answer, sum};
pub use request::{CompletionBody, CompletionForm, CompletionRequest, NAMES};
