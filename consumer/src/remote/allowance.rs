//! How long an endpoint asks its callers to pause, by the headers of its answer. Pure.

use std::time::Duration;

/// The longest pause that is kept; an endpoint that asks for more is asked again then.
pub const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The pause after a refusal that names none.
const PAUSE_UNNAMED: Duration = Duration::from_secs(1);

/// The pause that an answer asks for: by `retry-after-ms` or `retry-after` where it refuses, else until what is used up
/// is there again. `header` has the values by their names in lower case.
pub fn pause<'a>(status: u16, header: impl Fn(&str) -> Option<&'a str>) -> Option<Duration> {
    let asked = match status {
        429 | 503 => {
            let ms = header("retry-after-ms").and_then(|value| seconds(value, 1e-3));
            ms.or_else(|| header("retry-after").and_then(|value| seconds(value, 1.0)))
        }
        _ => None,
    };
    let used_up = ["requests", "tokens"].into_iter().filter_map(|unit| {
        let remaining = header(&format!("x-ratelimit-remaining-{unit}"))?;
        let is_used_up = remaining.trim().parse::<f64>().is_ok_and(|left| left <= 0.0);
        duration(header(&format!("x-ratelimit-reset-{unit}")).filter(|_| is_used_up)?)
    });
    let pause = asked.or_else(|| used_up.max());
    let pause = pause.or_else(|| (status == 429).then_some(PAUSE_UNNAMED))?;
    Some(pause.min(PAUSE_MAX))
}

/// A number of seconds, or of a fraction of them.
fn seconds(text: &str, unit: f64) -> Option<Duration> {
    let number: f64 = text.trim().parse().ok()?;
    // No date, which some servers send: the clocks of two hosts differ by more than usual pauses.
    Duration::try_from_secs_f64(number * unit).ok()
}

/// A duration as Go writes it (`1s`, `6m0s`, `120ms`, `1h2m3.5s`), or a plain number of seconds.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(plain) = seconds(text, 1.0) {
        return Some(plain);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (value, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let scale = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum = sum.checked_add(seconds(value, scale)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pause_of(status: u16, headers: &[(&str, &'static str)]) -> Option<u64> {
        let header =
            |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        pause(status, header).map(|pause| pause.as_millis() as u64)
    }

    #[test]
    fn a_refusal_names_its_pause_in_one_of_three_ways() {
        assert_eq!(pause_of(429, &[("retry-after-ms", "250"), ("retry-after", "1")]), Some(250));
        assert_eq!(pause_of(429, &[("retry-after", "2")]), Some(2_000));
        assert_eq!(pause_of(503, &[("retry-after", "0.5")]), Some(500));
        assert_eq!(pause_of(429, &[]), Some(1_000));
        assert_eq!(pause_of(503, &[]), None);
        assert_eq!(pause_of(429, &[("retry-after", "86400")]), Some(300_000));
        assert_eq!(pause_of(429, &[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")]), Some(1_000));
        assert_eq!(pause_of(500, &[("retry-after", "2")]), None);
    }

    #[test]
    fn what_is_used_up_is_waited_for_also_after_a_success() {
        let used_up = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "120ms"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "1m0.5s"),
        ];
        assert_eq!(pause_of(200, &used_up[..2]), Some(120));
        assert_eq!(pause_of(200, &used_up), Some(60_500));
        let left = [("x-ratelimit-remaining-requests", "3"), ("x-ratelimit-reset-requests", "9s")];
        assert_eq!(pause_of(200, &left), None);
        assert_eq!(pause_of(429, &[left[0], left[1], ("retry-after", "4")]), Some(4_000));
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, ms) in [
            ("1s", 1_000),
            ("6m0s", 360_000),
            ("120ms", 120),
            ("1h2m3.5s", 3_723_500),
            ("12.5", 12_500),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "x1s", "1x", "-1s", "1.2.3s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(text in ".{0,40}") {
            let _ = duration(&text);
            let _ = pause(429, |_| Some(text.as_str()));
        }
    }
}
