//! Any body is a job or a refusal; a job that was read is unchanged after being written and read again. The order of
//! fields decides neither which of the two it is nor what is read of a refused one.
#![no_main]

#[path = "../common/order.rs"]
mod order;

use forebay_schemas::{ContentType, Limits, decode_job};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let limits = Limits::default();
    let reversed = order::reversed(body);
    for content_type in [ContentType::Msgpack, ContentType::Json] {
        let read = decode_job(body, content_type, &limits);
        if let Some(reversed) = &reversed {
            let other = decode_job(reversed, content_type, &limits);
            match (&read, &other) {
                (Ok(one), Ok(other)) => assert_eq!(one, other),
                (Err(one), Err(other)) => assert_eq!(one.head, other.head, "{one}; {other}"),
                _ => panic!("in one order {read:?}, in the other {other:?}"),
            }
        }
        match read {
            Ok(job) => {
                let again = job.encode(content_type).expect("a job that was read can be written");
                assert_eq!(decode_job(&again, content_type, &limits).as_ref(), Ok(&job));
            }
            Err(refusal) => assert!(!refusal.error.message.is_empty(), "refused without a reason"),
        }
    }
});
