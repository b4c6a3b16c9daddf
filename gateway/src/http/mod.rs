//! HTTP: the listener with its limits on time, size and number, the way of a request, and the endpoints.

mod activity;
mod answer;
mod app;
mod body;
mod connections;
mod endpoints;
mod governed;
mod listener;
mod local;
mod long_work;
mod observe;
mod routes;
mod streamed;

pub use app::{App, BYTES_PER_PERMIT};
pub use governed::Gate;
pub use listener::Listener;
pub use long_work::LongWork;
pub use routes::router;
