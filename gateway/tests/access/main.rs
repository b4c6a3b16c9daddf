//! Keys and limits on a real Redis, as two replicas of the gateway use them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod keys;
mod limits;
mod redis;
