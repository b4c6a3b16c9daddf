//! The subcommands, one file each, and the parts that several of them use.

pub(crate) mod cancel;
pub(crate) mod chat;
pub(crate) mod check;
pub(crate) mod dead;
mod duration;
pub(crate) mod get;
mod ids;
mod input;
pub(crate) mod keys;
pub(crate) mod models;
mod progress;
pub(crate) mod pull;
pub(crate) mod queues;
mod sampling;
mod show;
pub(crate) mod submit;
pub(crate) mod tenants;
pub(crate) mod top;
pub(crate) mod usage;
pub(crate) mod wait;
pub(crate) mod workers;
