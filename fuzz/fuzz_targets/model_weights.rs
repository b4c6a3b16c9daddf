//! A model folder whose `model.safetensors` is anything is refused by an error.
#![no_main]

#[path = "../common/model.rs"]
mod model;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| model::load_with("model.safetensors", bytes));
