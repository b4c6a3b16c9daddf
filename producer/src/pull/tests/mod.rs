//! Whole pulls, against a small server that misbehaves as real servers do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod folder;
mod hub;
mod server;
mod wheel;

use std::path::Path;

use forebay_schemas::ModelId;

use super::{manifest::digest, stage::Stage, *};

/// Weights of 300 KB without repetitions, so that a misplaced part is noticed.
fn weights() -> Vec<u8> {
    (0_u32..75_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn model() -> ModelId {
    "tiny".parse().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    digest(bytes).unwrap().1
}
