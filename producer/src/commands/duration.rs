//! Durations as they are written on the command line: `30`, `500ms`, `30s`, `5m`, `2h`, `1d`.

use std::time::Duration;

/// Reads a duration; a bare number counts seconds.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let ms_each: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(WRITTEN.to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| WRITTEN.to_owned())?;
    number.checked_mul(ms_each).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

const WRITTEN: &str = "write a number with a unit: 500ms, 30s, 5m, 2h or 1d";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, ms) in
            [("500ms", 500), ("7", 7_000), ("30s", 30_000), ("5m", 300_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "s", "-1", "1.5s", "5 m", "3w", "99999999999999999999"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("18446744073709551615d").is_err());
    }
}
