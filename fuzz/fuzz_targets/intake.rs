//! Any delivery, properties and all, becomes a job with a ticket, an answer, or a dead letter.
#![no_main]

use forebay_fabric::{
    broker::{Acker, Delivery, HeaderValue, Headers, Properties, Settlement},
    death::Death,
    disposition::Disposition,
    intake::read,
};
use forebay_schemas::{ContentType, Limits};
use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};

/// The content types of the contract, and near misses.
const CONTENT_TYPES: [&str; 7] = [
    "application/msgpack",
    "application/x-msgpack",
    "application/json",
    "application/vnd.api+json; charset=utf-8",
    "application/octet-stream",
    "text/plain",
    "",
];
/// The ways in which a body may be said to be packed.
const ENCODINGS: [&str; 5] = ["gzip", "zstd", "utf-8", "binary", ""];
const KINDS: [&str; 5] = ["forebay.job.v1", "forebay.job.v2", "forebay.job.v", "binary", "order"];
const HEADERS: [&str; 5] =
    ["x-forebay-attempts", "x-delivery-count", "x-forebay-reason", "x-death", "compression"];

/// A short string: one of the known, or any.
fn short(bytes: &mut Unstructured<'_>, known: &[&str]) -> Result<String> {
    if bytes.arbitrary()? {
        return Ok((*bytes.choose(known)?).to_owned());
    }
    let text: &str = bytes.arbitrary()?;
    Ok(text.chars().take(63).collect())
}

fn header(bytes: &mut Unstructured<'_>) -> Result<HeaderValue> {
    Ok(match bytes.int_in_range(0..=6)? {
        0 => HeaderValue::LongLongInt(bytes.arbitrary()?),
        1 => HeaderValue::LongInt(bytes.arbitrary()?),
        2 => HeaderValue::LongUInt(bytes.arbitrary()?),
        3 => HeaderValue::ShortShortInt(bytes.arbitrary()?),
        4 => HeaderValue::Timestamp(bytes.arbitrary()?),
        5 => HeaderValue::LongString(bytes.arbitrary::<&str>()?.into()),
        _ => HeaderValue::Void,
    })
}

fn properties(bytes: &mut Unstructured<'_>) -> Result<Properties> {
    let mut properties = Properties::default();
    if bytes.arbitrary()? {
        properties = properties.with_content_type(short(bytes, &CONTENT_TYPES)?.into());
    }
    if bytes.arbitrary()? {
        properties = properties.with_content_encoding(short(bytes, &ENCODINGS)?.into());
    }
    if bytes.arbitrary()? {
        properties = properties.with_type(short(bytes, &KINDS)?.into());
    }
    if bytes.arbitrary()? {
        properties = properties.with_message_id(short(bytes, &["a", "golden-embed"])?.into());
    }
    if bytes.arbitrary()? {
        properties = properties.with_reply_to(short(bytes, &["answers"])?.into());
    }
    if bytes.arbitrary()? {
        properties = properties.with_correlation_id(short(bytes, &["4711"])?.into());
    }
    if bytes.arbitrary()? {
        let mut headers = Headers::default();
        for _ in 0..bytes.int_in_range(0..=3)? {
            headers.insert(short(bytes, &HEADERS)?.into(), header(bytes)?);
        }
        properties = properties.with_headers(headers);
    }
    Ok(properties)
}

/// Settles nothing.
struct Nowhere;

impl Settlement for Nowhere {
    fn ack(self: Box<Self>) -> bool {
        false
    }

    fn requeue(self: Box<Self>) -> bool {
        false
    }
}

fn delivery(mut bytes: Unstructured<'_>) -> Result<Delivery> {
    Ok(Delivery {
        properties: properties(&mut bytes)?,
        exchange: String::new(),
        routing_key: short(&mut bytes, &["all-minilm-l6-v2"])?,
        redelivered: bytes.arbitrary()?,
        acker: Acker::new(Nowhere),
        body: bytes.take_rest().to_vec(),
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(delivery) = delivery(Unstructured::new(bytes)) else { return };
    let body = delivery.body.clone();
    let _ = Death::read(delivery.properties.headers().as_ref());
    match read(delivery, &Limits::default()) {
        Ok((job, ticket)) => {
            assert_eq!(job.id, ticket.id);
            assert!(ticket.attempts() >= 1 && ticket.result_ttl_s >= 1);
        }
        Err(Disposition::Answer(answer)) => {
            let (ticket, outcome) = *answer;
            assert!(outcome.error.is_some(), "refused without a reason");
            for content_type in [ContentType::Msgpack, ContentType::Json] {
                let written = outcome.encode(content_type).expect("a refusal can be written");
                assert!(written.len() < 64 * 1024, "a refusal of {} bytes", written.len());
            }
            assert!(ticket.attempts() >= 1 && ticket.result_ttl_s >= 1);
        }
        Err(Disposition::DeadLetter { message, .. }) => assert_eq!(message.body, body),
        Err(other) => panic!("a message that was only read can't end so: {other:?}"),
    }
});
