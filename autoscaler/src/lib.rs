//! The autoscaler's parts, for its program and its tests.

pub mod act;
