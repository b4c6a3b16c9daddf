//! A model folder whose JSON files are anything loads and computes, or is refused by an error.
//!
//! The first byte says which file it is.
#![no_main]

#[path = "../common/model.rs"]
mod model;

use libfuzzer_sys::fuzz_target;

const FILES: [&str; 5] = [
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    model::load_with(FILES[usize::from(*kind) % FILES.len()], rest);
});
