//! Any bytes are an outcome or an error; one that was read can be written.
#![no_main]

use forebay_schemas::{ContentType, Outcome};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(outcome) = Outcome::decode(bytes) {
        outcome.encode(ContentType::Msgpack).expect("an outcome that was read can be written");
    }
});
