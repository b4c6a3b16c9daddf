//! A message that was somewhere already, as one that has been nowhere yet: to be sent round again.

use forebay_schemas::names::{HEADER_ATTEMPTS, HEADER_REASON};

use super::{Headers, Properties};

/// Headers that tell of the past. A message that comes with `x-death` looks to the broker like one that
/// goes round in a circle, which it drops.
const OF_THE_PAST: [&str; 5] =
    ["x-death", "x-delivery-count", "x-acquired-count", HEADER_REASON, HEADER_ATTEMPTS];
const OF_THE_PAST_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

fn is_past(name: &str) -> bool {
    OF_THE_PAST.contains(&name)
        || OF_THE_PAST_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The properties of a message that has been nowhere yet. Without its `expiration`, of which nothing may
/// be left, and without `user_id`, which the broker takes from that user alone.
pub fn afresh(old: &Properties) -> Properties {
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
        priority => with_priority,
        correlation_id => with_correlation_id,
        reply_to => with_reply_to,
        message_id => with_message_id,
        timestamp => with_timestamp,
        kind => with_type,
        app_id => with_app_id
    );
    let Some(headers) = old.headers() else { return new };
    let mut kept = Headers::default();
    for (name, value) in headers.inner() {
        if !is_past(name.as_str()) {
            kept.insert(name.clone(), value.clone());
        }
    }
    if kept.inner().is_empty() { new } else { new.with_headers(kept) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::HeaderValue;

    #[test]
    fn a_message_sent_anew_keeps_its_properties_and_nothing_of_its_past() {
        let mut headers = Headers::default();
        for name in OF_THE_PAST.into_iter().chain([
            "x-first-death-reason",
            "x-last-death-queue",
            "traceparent",
        ]) {
            headers.insert(name.into(), HeaderValue::LongLongInt(1));
        }
        let old = Properties::default()
            .with_message_id("j1".into())
            .with_content_type("application/json".into())
            .with_reply_to("me".into())
            .with_delivery_mode(2)
            .with_expiration("1".into())
            .with_user_id("somebody".into())
            .with_headers(headers);
        let mut left = Headers::default();
        left.insert("traceparent".into(), HeaderValue::LongLongInt(1));
        let new = Properties::default()
            .with_message_id("j1".into())
            .with_content_type("application/json".into())
            .with_reply_to("me".into())
            .with_delivery_mode(2)
            .with_headers(left);
        assert_eq!(afresh(&old), new);
    }

    #[test]
    fn headers_that_tell_of_nothing_else_go_altogether() {
        let mut headers = Headers::default();
        headers.insert("x-death".into(), HeaderValue::Void);
        let old = Properties::default().with_headers(headers);
        assert_eq!(afresh(&old), Properties::default());
    }
}
