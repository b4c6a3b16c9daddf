//! The headers that say how a tenant stands with its limits, and when a refused client may come back.
//!
//! Pure, and without types of HTTP: names in lower case with their values.

use super::standing::{Share, Standing};

/// A header: its name and its value.
pub type Header = (&'static str, String);

/// The longest that a client is asked to wait. Some clients take a longer wait for none, or stop retrying.
const RETRY_MS_MAX: u64 = 60_000;

/// `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, for the limits that the tenant has.
pub fn limits(standing: &Standing) -> Vec<Header> {
    let mut headers = Vec::with_capacity(6);
    let mut add = |names: [&'static str; 3], share: Option<Share>| {
        let Some(share) = share else { return };
        let values =
            [share.limit.to_string(), share.remaining.to_string(), go_duration(share.reset_ms)];
        headers.extend(names.into_iter().zip(values));
    };
    let requests = [
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ];
    let tokens =
        ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
    add(requests, standing.requests);
    add(tokens, standing.tokens);
    headers
}

/// When to come back: `retry-after` in whole seconds, which all clients read, and `retry-after-ms`, which OpenAI's own
/// prefer; or that coming back is of no use.
pub fn retry(retry_ms: Option<u64>) -> Vec<Header> {
    let Some(ms) = retry_ms else { return vec![("x-should-retry", "false".to_owned())] };
    let ms = ms.clamp(1, RETRY_MS_MAX);
    vec![("retry-after", ms.div_ceil(1_000).to_string()), ("retry-after-ms", ms.to_string())]
}

/// A duration as Go writes it: `120ms`, `1.5s`, `6m0s`, `1h0m0s`.
pub fn go_duration(ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let fraction = match ms % 1_000 {
        0 => String::new(),
        rest => format!(".{rest:03}").trim_end_matches('0').to_owned(),
    };
    let seconds = ms / 1_000;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}{fraction}s"),
        (0, min, s) => format!("{min}m{s}{fraction}s"),
        (h, min, s) => format!("{h}h{min}m{s}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does_it() {
        for (ms, text) in [
            (0, "0s"),
            (1, "1ms"),
            (120, "120ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (1_050, "1.05s"),
            (1_001, "1.001s"),
            (59_999, "59.999s"),
            (60_000, "1m0s"),
            (61_500, "1m1.5s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (90_061_001, "25h1m1.001s"),
        ] {
            assert_eq!(go_duration(ms), text);
        }
    }

    #[test]
    fn a_limit_that_a_tenant_has_not_has_no_headers() {
        assert_eq!(limits(&Standing::default()), []);
        let tokens = Some(Share { limit: 1_000, remaining: 0, reset_ms: 60_250 });
        let standing = Standing { tokens, ..Standing::default() };
        let named = [
            ("x-ratelimit-limit-tokens", "1000"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "1m0.25s"),
        ];
        assert_eq!(limits(&standing), named.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn a_client_is_asked_to_come_back_in_a_second_at_least_and_a_minute_at_most() {
        for (ms, seconds, exact) in [
            (0, "1", "1"),
            (1, "1", "1"),
            (1_000, "1", "1000"),
            (1_001, "2", "1001"),
            (8_000, "8", "8000"),
            (60_250, "60", "60000"),
            (u64::MAX, "60", "60000"),
        ] {
            let headers = [("retry-after", seconds), ("retry-after-ms", exact)];
            assert_eq!(retry(Some(ms)), headers.map(|(name, value)| (name, value.to_owned())));
        }
        assert_eq!(retry(None), [("x-should-retry", "false".to_owned())]);
    }
}
