//! HTTP: the listener with its limits on time, size and number, the way of a request, and the endpoints.

mod activity;
mod answer;
mod app;
mod body;
mod connections;
mod descriptors;
mod endpoints;
mod governed;
mod listener;
mod local;
mod long_work;
mod observe;
mod path_id;
mod routes;
mod streamed;

/// The readers of a request's head: for the tests and `fuzz/`, which hand it anything.
pub mod heads {
    pub use super::{
        app::client_timeout,
        endpoints::{
            events::last_event_id,
            jobs::{idempotency_key, wait_of},
        },
        governed::bearer,
        observe::request_id,
    };
}

pub use app::{App, BYTES_PER_PERMIT};
pub use descriptors::make_room;
pub use endpoints::document::document;
pub use governed::Gate;
pub use listener::Listener;
pub use long_work::LongWork;
pub use routes::router;
