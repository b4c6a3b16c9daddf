//! Hours, days and months of UTC.

use std::fmt;

const HOURS_PER_DAY: u64 = 24;
const SECONDS_PER_HOUR: u64 = 3_600;
const SECONDS_PER_DAY: u64 = HOURS_PER_DAY * SECONDS_PER_HOUR;
/// The beginning of the year 10000 in seconds: dates have four digits for the year.
const SECONDS_MAX: u64 = 253_402_300_800;

/// An hour of UTC, counted from the beginning of 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(u64);

/// A day of UTC, counted from the beginning of 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u64);

impl Hour {
    /// The hour that a time in seconds of Unix time is in.
    pub fn of_s(s: u64) -> Self {
        Self(s.min(SECONDS_MAX - 1) / SECONDS_PER_HOUR)
    }

    /// The hour that a time in milliseconds of Unix time is in.
    pub fn of_ms(ms: u64) -> Self {
        Self::of_s(ms / 1_000)
    }

    /// An hour of a day.
    pub fn on(day: Day, hour_of_day: u8) -> Self {
        Self(day.0 * HOURS_PER_DAY + u64::from(hour_of_day))
    }

    /// Its day.
    pub fn day(self) -> Day {
        Day(self.0 / HOURS_PER_DAY)
    }

    /// Its number within its day, from 0 on.
    pub fn of_day(self) -> u8 {
        (self.0 % HOURS_PER_DAY) as u8
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Day {
    /// The days from this one to `last`, both included.
    pub fn to(self, last: Self) -> impl ExactSizeIterator<Item = Self> + Clone {
        let days = (last.0 + 1).saturating_sub(self.0) as usize;
        (0..days).map(move |n| Self(self.0 + n as u64))
    }

    /// Its month, such as `2026-11`.
    pub fn month(self) -> String {
        let (year, month, _) = self.civil();
        format!("{year:04}-{month:02}")
    }

    /// The first day of its month.
    #[must_use]
    pub fn first_of_month(self) -> Self {
        let (_, _, day) = self.civil();
        Self(self.0 - (day - 1))
    }

    /// When it begins, in seconds of Unix time.
    pub fn starts_at_s(self) -> u64 {
        self.0 * SECONDS_PER_DAY
    }

    /// A day by its year, month and day, if there is such a day.
    fn of_civil(year: u64, month: u64, day: u64) -> Option<Self> {
        // Years begin in March here: a leap day is then the last of its year.
        let years = year.checked_sub(u64::from(month <= 2))?;
        let month_from_march = (month + 9) % 12;
        let of_year = (153 * month_from_march + 2) / 5 + day.checked_sub(1)?;
        let days = years * 365 + years / 4 - years / 100 + years / 400 + of_year;
        // Days from March 1st of the year 0 to the beginning of 1970.
        let found = Self(days.checked_sub(719_468)?);
        (found.civil() == (year, month, day)).then_some(found)
    }

    /// Year, month and day. See Howard Hinnant, "chrono-compatible low-level date algorithms".
    fn civil(self) -> (u64, u64, u64) {
        let days = self.0 + 719_468;
        let era = days / 146_097;
        let of_era = days % 146_097;
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        (era * 400 + year_of_era + u64::from(month <= 2), month, day)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}T{:02}:00:00Z", self.day(), self.of_day())
    }
}

/// A text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no time: write a date such as 2026-11-29, a time such as 2026-11-29T13:00:00Z, a month such as 2026-11, \
     or seconds of Unix time"
)]
pub struct TimeError(String);

/// The hour of a time: a month or a date (its beginning), a time of UTC, or seconds of Unix time.
pub fn parse_time(text: &str) -> Result<Hour, TimeError> {
    hour_of(text).ok_or_else(|| TimeError(text.chars().take(40).collect()))
}

fn hour_of(text: &str) -> Option<Hour> {
    if text.len() > 7 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let s: u64 = text.parse().ok()?;
        return (s < SECONDS_MAX).then(|| Hour::of_s(s));
    }
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, Some(time.strip_suffix('Z').unwrap_or(time))),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let year = number(parts.next()?, 4)?;
    let month = number(parts.next()?, 2)?;
    let day = match (parts.next(), time) {
        (Some(day), _) => number(day, 2)?,
        (None, None) => 1,
        (None, Some(_)) => return None,
    };
    let day = Day::of_civil(year, month, day).filter(|_| parts.next().is_none())?;
    let Some(time) = time else { return Some(Hour::on(day, 0)) };
    let mut parts = time.split(':');
    let hour = number(parts.next()?, 2).filter(|&hour| hour < HOURS_PER_DAY)?;
    let rest: Vec<&str> = parts.collect();
    let is_time = (1..=2).contains(&rest.len())
        && rest.iter().all(|part| number(part, 2).is_some_and(|part| part < 60));
    is_time.then(|| Hour::on(day, hour as u8))
}

fn number(text: &str, digits: usize) -> Option<u64> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_in_every_form_and_written_in_one() {
        for (text, hour) in [
            ("1970-01-01", "1970-01-01T00:00:00Z"),
            ("2026-11", "2026-11-01T00:00:00Z"),
            ("2024-02-29T23:59:59Z", "2024-02-29T23:00:00Z"),
            ("2026-11-29T13:30", "2026-11-29T13:00:00Z"),
            ("2026-11-29 13:30:00", "2026-11-29T13:00:00Z"),
            ("1795957200", "2026-11-29T13:00:00Z"),
        ] {
            assert_eq!(parse_time(text).unwrap().to_string(), hour, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "soon",
            "2026",
            "2026-13-01",
            "2026-02-30",
            "2025-02-29",
            "2026-00-10",
            "2026-1-1",
            "2026-11-29T24:00:00Z",
            "2026-11-29T13",
            "2026-11T13:00",
            "2026-11-29-01",
            "253402300800",
            "99999999999999999999",
        ] {
            let error = parse_time(text).unwrap_err().to_string();
            assert!(error.contains("2026-11-29T13:00:00Z"), "{error}");
        }
    }

    #[test]
    fn a_day_knows_its_month_and_the_days_after_it() {
        let day = parse_time("2024-02-28").unwrap().day();
        let days: Vec<String> =
            day.to(parse_time("2024-03-01").unwrap().day()).map(|day| day.to_string()).collect();
        assert_eq!(days, ["2024-02-28", "2024-02-29", "2024-03-01"]);
        assert_eq!(
            (day.month().as_str(), day.first_of_month().to_string().as_str()),
            ("2024-02", "2024-02-01")
        );
        assert_eq!(parse_time("2024-03-01").unwrap().day().to(day).len(), 0);
    }

    proptest! {
        #[test]
        fn every_hour_survives_writing_and_reading(s in 0..SECONDS_MAX) {
            let hour = Hour::of_s(s);
            prop_assert_eq!(parse_time(&hour.to_string()), Ok(hour));
            prop_assert_eq!(Hour::on(hour.day(), hour.of_day()), hour);
            prop_assert!(hour.day().starts_at_s() <= s && s - hour.day().starts_at_s() < SECONDS_PER_DAY);
        }

        #[test]
        fn no_text_panics(text in "[0-9TZ: -]{0,24}|.{0,24}") {
            let _ = parse_time(&text);
        }
    }
}
