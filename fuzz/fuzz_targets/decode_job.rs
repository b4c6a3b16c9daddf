//! Any body is a job or a refusal; a job that was read is unchanged after being written and read again.
#![no_main]

use forebay_schemas::{ContentType, Limits, decode_job};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let limits = Limits::default();
    for content_type in [ContentType::Msgpack, ContentType::Json] {
        if let Ok(job) = decode_job(body, content_type, &limits) {
            let again = job.encode(content_type).expect("a job that was read can be written");
            assert_eq!(decode_job(&again, content_type, &limits).as_ref(), Ok(&job));
        }
    }
});
