//! The HTTP gateway: one endpoint in front of the fleet.
//!
//! - [`access`]: who may ask, and how much
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod access;
