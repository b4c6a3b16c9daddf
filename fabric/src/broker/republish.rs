//! Publishing a message again as a new one, without the broker's history of it.

use forebay_schemas::names::{HEADER_ATTEMPTS, HEADER_REASON};

use super::publish::{HeaderValue, Headers, Properties};

/// Headers that record a message's history. The broker takes a message that arrives with `x-death` for one that
/// dead-letters in a cycle, and drops it.
const HISTORY: [&str; 5] =
    ["x-death", "x-delivery-count", "x-acquired-count", HEADER_REASON, HEADER_ATTEMPTS];
const HISTORY_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

fn is_history(name: &str) -> bool {
    HISTORY.contains(&name) || HISTORY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The properties with which a message is published again: without the broker's history, without its
/// `expiration`, of which nothing may be left, without `user_id`, which the broker accepts from that user alone, and
/// without `priority`: RabbitMQ 4.3 hands out every message of a higher one first, and some libraries set the lowest.
/// Headers beyond 64 KiB are dropped.
pub fn for_republish(old: &Properties) -> Properties {
    let mut new = Properties::default();
    macro_rules! keep {
        ($($get:ident => $set:ident),*) => {$(
            if let Some(value) = old.$get() {
                new = new.$set(value.clone());
            }
        )*};
    }
    keep!(
        content_type => with_content_type,
        content_encoding => with_content_encoding,
        delivery_mode => with_delivery_mode,
        correlation_id => with_correlation_id,
        reply_to => with_reply_to,
        message_id => with_message_id,
        timestamp => with_timestamp,
        kind => with_type,
        app_id => with_app_id
    );
    let Some(headers) = old.headers() else { return new };
    if bytes_of(headers) > HEADERS_BYTES_MAX {
        return new;
    }
    let mut kept = Headers::default();
    for (name, value) in headers.inner() {
        if !is_history(name.as_str()) {
            kept.insert(name.clone(), value.clone());
        }
    }
    if kept.inner().is_empty() { new } else { new.with_headers(kept) }
}

/// The headers of a message must fit one frame, of 128 KiB by default, and some are still to be added.
/// If they nearly fill it, the headers are dropped rather than the message.
const HEADERS_BYTES_MAX: usize = 64 * 1024;

/// About how many bytes the headers take on the wire.
fn bytes_of(headers: &Headers) -> usize {
    headers.inner().iter().map(|(name, value)| name.as_str().len() + 2 + value_bytes(value)).sum()
}

fn value_bytes(value: &HeaderValue) -> usize {
    match value {
        HeaderValue::LongString(text) => 4 + text.as_bytes().len(),
        HeaderValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        HeaderValue::ShortString(text) => 1 + text.as_str().len(),
        HeaderValue::FieldArray(values) => {
            values.as_slice().iter().map(|v| 5 + value_bytes(v)).sum()
        }
        HeaderValue::FieldTable(table) => 4 + bytes_of(table),
        _ => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_republished_message_keeps_its_properties_and_loses_its_history() {
        let mut headers = Headers::default();
        for name in
            HISTORY.into_iter().chain(["x-first-death-reason", "x-last-death-queue", "traceparent"])
        {
            headers.insert(name.into(), HeaderValue::LongLongInt(1));
        }
        let old = Properties::default()
            .with_message_id("j1".into())
            .with_content_type("application/json".into())
            .with_reply_to("me".into())
            .with_delivery_mode(2)
            .with_expiration("1".into())
            .with_user_id("publisher".into())
            .with_headers(headers);
        let mut left = Headers::default();
        left.insert("traceparent".into(), HeaderValue::LongLongInt(1));
        let new = Properties::default()
            .with_message_id("j1".into())
            .with_content_type("application/json".into())
            .with_reply_to("me".into())
            .with_delivery_mode(2)
            .with_headers(left);
        assert_eq!(for_republish(&old), new);
    }

    #[test]
    fn headers_that_nearly_fill_a_frame_go_and_the_rest_stays() {
        let with = |bytes: usize| {
            let mut headers = Headers::default();
            headers.insert("filler".into(), HeaderValue::LongString("z".repeat(bytes).into()));
            Properties::default().with_message_id("j1".into()).with_headers(headers)
        };
        assert_eq!(for_republish(&with(1_000)), with(1_000));
        assert_eq!(
            for_republish(&with(130_950)),
            Properties::default().with_message_id("j1".into())
        );
    }

    #[test]
    fn a_message_whose_headers_are_all_history_has_none() {
        let mut headers = Headers::default();
        headers.insert("x-death".into(), HeaderValue::Void);
        let old = Properties::default().with_headers(headers);
        assert_eq!(for_republish(&old), Properties::default());
    }
}
