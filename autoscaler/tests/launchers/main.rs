//! Every launcher keeps the same promises; then what is each one's own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod compose;
mod contract;
mod docker;
mod image;
mod kubernetes;
mod manifests;
mod pods;
mod tls;
