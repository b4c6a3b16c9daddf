//! The head of a request to the gateway, whatever it has: keys, time-outs, ids, queries.
//!
//! The first byte says which of them it is.
#![no_main]
// The parsers of bodies have a target of their own.
#![allow(dead_code)]

#[path = "../../gateway/tests/parsers/mod.rs"]
mod parsers;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, value)) = bytes.split_first() else { return };
    parsers::check_head(kind % parsers::HEADS, value);
});
