//! Which model answers a request: a name that a client sent becomes a route, and a route the models to ask, in order.
//!
//! - [`table`]: the names of the configuration;
//! - [`predict`]: how long each model's next request will wait, from the autoscaler's status;
//! - [`choose`]: the pure choice among a route's targets;
//! - [`attempts`]: asks one model after the other until one answers;
//! - [`answered`]: what the answer says about it.

pub mod answered;
pub mod attempts;
pub mod choose;
pub mod predict;
pub mod table;

pub use answered::Answered;
pub use attempts::Attempts;
pub use predict::Outlooks;
pub use table::{Named, Route, Table};
