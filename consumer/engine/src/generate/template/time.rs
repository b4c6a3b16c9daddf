//! Dates for templates, in UTC.

use std::fmt::Write as _;

/// The variable that holds the time.
pub(super) const NOW: &str = "__forebay_now_ms";

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MS_OF_SECOND: i64 = 1_000;
const SECONDS_OF_DAY: i64 = 86_400;

struct Time {
    year: i64,
    /// From 0.
    month: usize,
    day: i64,
    /// From 0.
    day_of_year: i64,
    /// From Sunday.
    weekday: usize,
    second_of_day: i64,
    microsecond: i64,
}

impl Time {
    /// After H. Hinnant, "chrono-Compatible Low-Level Date Algorithms" (2013): years begin in March, in eras of 400.
    fn of(unix_ms: i64) -> Self {
        let seconds = unix_ms.div_euclid(MS_OF_SECOND);
        let days = seconds.div_euclid(SECONDS_OF_DAY);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = (month_from_march + 2) % 12;
        let year = year_of_era + era * 400 + i64::from(month < 2);
        let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        Self {
            year,
            month: month as usize,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            // January and February come last in the years counted here: day 306 is the first of January.
            day_of_year: if month < 2 {
                day_of_year - 306
            } else {
                day_of_year + 59 + i64::from(is_leap)
            },
            weekday: (days + 4).rem_euclid(7) as usize,
            second_of_day: seconds.rem_euclid(SECONDS_OF_DAY),
            microsecond: unix_ms.rem_euclid(MS_OF_SECOND) * 1_000,
        }
    }

    /// A number with its digits, or a text.
    fn field(&self, directive: char) -> Option<Field> {
        let hour = self.second_of_day / 3_600;
        Some(match directive {
            'Y' => Field::Number(self.year, 4),
            'y' => Field::Number(self.year.rem_euclid(100), 2),
            'm' => Field::Number(self.month as i64 + 1, 2),
            'd' => Field::Number(self.day, 2),
            'H' => Field::Number(hour, 2),
            'I' => Field::Number((hour + 11) % 12 + 1, 2),
            'M' => Field::Number(self.second_of_day / 60 % 60, 2),
            'S' => Field::Number(self.second_of_day % 60, 2),
            'f' => Field::Number(self.microsecond, 6),
            'j' => Field::Number(self.day_of_year + 1, 3),
            'w' => Field::Number(self.weekday as i64, 1),
            'B' => Field::Text(MONTHS[self.month]),
            'b' | 'h' => Field::Text(&MONTHS[self.month][..3]),
            'A' => Field::Text(DAYS[self.weekday]),
            'a' => Field::Text(&DAYS[self.weekday][..3]),
            'p' => Field::Text(if hour < 12 { "AM" } else { "PM" }),
            // Python's `datetime.now()` has no time zone.
            'Z' | 'z' => Field::Text(""),
            '%' => Field::Text("%"),
            _ => return None,
        })
    }
}

enum Field {
    Number(i64, usize),
    Text(&'static str),
}

/// The time in Python's format.
pub(super) fn strftime(unix_ms: i64, format: &str) -> Result<String, String> {
    let time = Time::of(unix_ms);
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let mut directive = characters.next();
        let is_short = directive == Some('-'); // without leading zeros
        if is_short {
            directive = characters.next();
        }
        let nested = match directive {
            Some('F') => Some("%Y-%m-%d"),
            Some('T' | 'X') => Some("%H:%M:%S"),
            Some('D' | 'x') => Some("%m/%d/%y"),
            Some('R') => Some("%H:%M"),
            Some('c') => Some("%a %b %d %H:%M:%S %Y"),
            _ => None,
        };
        if let Some(nested) = nested {
            text.push_str(&strftime(unix_ms, nested)?);
            continue;
        }
        match directive.and_then(|directive| time.field(directive)) {
            Some(Field::Number(number, _)) if is_short => text.push_str(&number.to_string()),
            Some(Field::Number(number, width)) => {
                // Writing to a string doesn't fail.
                let _ = write!(text, "{number:0width$}");
            }
            Some(Field::Text(field)) => text.push_str(field),
            None => {
                let directive = directive.map_or_else(String::new, String::from);
                return Err(format!("strftime_now has no %{directive}"));
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // Python: datetime.fromtimestamp(ms / 1000, UTC).strftime(...)
        const ALL: &str = "%Y-%m-%d %H:%M:%S %A %a %B %b %j %y %I %p %-d %w %%";
        for (unix_ms, right) in [
            (0, "1970-01-01 00:00:00 Thursday Thu January Jan 001 70 12 AM 1 4 %"),
            (951_782_400_000, "2000-02-29 00:00:00 Tuesday Tue February Feb 060 00 12 AM 29 2 %"),
            (1_735_689_599_000, "2024-12-31 23:59:59 Tuesday Tue December Dec 366 24 11 PM 31 2 %"),
            (1_782_993_600_000, "2026-07-02 12:00:00 Thursday Thu July Jul 183 26 12 PM 2 4 %"),
            (-1, "1969-12-31 23:59:59 Wednesday Wed December Dec 365 69 11 PM 31 3 %"),
        ] {
            assert_eq!(strftime(unix_ms, ALL).as_deref(), Ok(right));
        }
        assert_eq!(strftime(0, "%F %T").as_deref(), Ok("1970-01-01 00:00:00"));
        assert!(strftime(0, "%Q").is_err() && strftime(0, "%").is_err());
    }

    #[test]
    fn any_time_has_a_date() {
        for unix_ms in [i64::MIN, i64::MAX, -62_135_596_800_001] {
            assert!(strftime(unix_ms, "%c").is_ok());
        }
    }
}
