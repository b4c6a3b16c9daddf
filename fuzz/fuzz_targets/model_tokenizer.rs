//! A model folder whose `tokenizer.json` is anything loads and computes, or is refused by an error.
#![no_main]

#[path = "../common/model.rs"]
mod model;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| model::load_with("tokenizer.json", bytes));
