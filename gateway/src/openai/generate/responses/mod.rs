//! `POST /v1/responses`: its request, its answer, and its events.

mod answer;
mod events;
mod input;
mod request;

pub use answer::{ResponseAnswer, answer};
pub use events::ResponseEvents;
pub use request::{NAMES, ResponseBody, ResponseForm, ResponseRequest};
