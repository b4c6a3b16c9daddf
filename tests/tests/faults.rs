//! The faults that a fleet must survive, one test each: real programs, and servers and links that fail on purpose.
//!
//! Workers run the tiny model: what matters here is what becomes of jobs, not their vectors.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults {
    mod broker;
    mod cluster;
    mod deaths;
    mod gateway;
    mod generate;
    mod hold;
    mod input;
    mod link;
    mod model;
    mod store;
    mod worker;
}
