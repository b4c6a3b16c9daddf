//! Sums of what jobs took, and the lines that they are kept by.

use forebay_schemas::{State, UsageEntry};
use serde::{Deserialize, Serialize};

/// The tenant, or the key and model, of jobs that are beyond a bound of the sums.
pub const OTHER: &str = "(other)";

/// The usage of jobs together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Jobs that have a record.
    pub jobs: u64,
    /// Those of them that did not succeed.
    pub failed_jobs: u64,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Inputs that were cut.
    pub truncated: u64,
    /// Device time, in microseconds.
    pub device_us: u64,
    /// Their cost, in units of 1e-9.
    pub cost: u64,
    /// Tokens that were remembered and not computed again; they are among those read.
    pub cached_tokens: u64,
}

impl Sums {
    /// The usage of one job.
    pub fn of(entry: &UsageEntry) -> Self {
        Self {
            jobs: 1,
            failed_jobs: u64::from(entry.state != State::Succeeded),
            input_tokens: entry.input_tokens,
            output_tokens: entry.output_tokens,
            truncated: entry.truncated,
            device_us: entry.device_us,
            cost: entry.cost,
            cached_tokens: entry.cached_tokens,
        }
    }

    /// Adds other sums.
    pub fn add(&mut self, other: &Self) {
        let own = self.parts();
        let more = other.parts();
        *self = Self::from_parts(std::array::from_fn(|n| own[n].saturating_add(more[n])));
    }

    fn parts(&self) -> [u64; 8] {
        [
            self.jobs,
            self.failed_jobs,
            self.input_tokens,
            self.output_tokens,
            self.truncated,
            self.device_us,
            self.cost,
            self.cached_tokens,
        ]
    }

    fn from_parts(parts: [u64; 8]) -> Self {
        let [
            jobs,
            failed_jobs,
            input_tokens,
            output_tokens,
            truncated,
            device_us,
            cost,
            cached_tokens,
        ] = parts;
        Self {
            jobs,
            failed_jobs,
            input_tokens,
            output_tokens,
            truncated,
            device_us,
            cost,
            cached_tokens,
        }
    }

    /// The sums as Redis keeps them: numbers with spaces between.
    pub(super) fn written(&self) -> String {
        self.parts().map(|part| part.to_string()).join(" ")
    }

    /// Reads what [`Self::written`] wrote. Numbers of a later version behind these are ignored, and the last one, which
    /// an earlier version did not write, is 0 where it is missing.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(str::parse);
        let mut parts = [0; 8];
        let last = parts.len() - 1;
        for (at, part) in parts.iter_mut().enumerate() {
            *part = match numbers.next() {
                Some(number) => number.ok()?,
                None if at == last => 0,
                None => return None,
            };
        }
        Some(Self::from_parts(parts))
    }
}

/// A line of a tenant's day: the jobs of one hour that are alike in these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Line {
    /// The hour of its day.
    pub hour_of_day: u8,
    /// The API key's id, or `-`.
    pub api_key: String,
    /// The model, or `-`.
    pub model: String,
    /// The lane.
    pub lane: String,
    /// The price, or `-` where the model had none.
    pub price: String,
}

impl Line {
    /// The line as a field of a hash in Redis: a JSON list.
    pub(super) fn field(&self) -> String {
        let Self { hour_of_day, api_key, model, lane, price } = self;
        serde_json::json!([hour_of_day, api_key, model, lane, price]).to_string()
    }

    pub(super) fn read(field: &str) -> Option<Self> {
        let (hour_of_day, api_key, model, lane, price) = serde_json::from_str(field).ok()?;
        Some(Self { hour_of_day, api_key, model, lane, price })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_lines_are_read_as_they_were_written() {
        let sums = Sums::from_parts([1, 2, 3, 4, 5, 6, u64::MAX, 8]);
        assert_eq!(Sums::read(&sums.written()), Some(sums));
        let before = Sums { cached_tokens: 0, ..Sums::from_parts([1, 2, 3, 4, 5, 6, 7, 8]) };
        assert_eq!(Sums::read("1 2 3 4 5 6 7"), Some(before));
        assert_eq!(Sums::read(&format!("{} 9", sums.written())), Some(sums));
        for wrong in ["", "1 2 3", "1 2 3 4 5 6 x", "-1 2 3 4 5 6 7"] {
            assert_eq!(Sums::read(wrong), None, "{wrong}");
        }
        let line = Line {
            hour_of_day: 23,
            api_key: "k".into(),
            model: "a \"model\"".into(),
            lane: "batch".into(),
            price: "0.02/0".into(),
        };
        assert_eq!(Line::read(&line.field()), Some(line));
        assert_eq!(Line::read("[1]"), None);
    }

    #[test]
    fn sums_add_up_and_stop_at_the_largest_number() {
        let mut sums = Sums::from_parts([1, 2, 3, 4, 5, 6, u64::MAX - 1, 8]);
        sums.add(&Sums::from_parts([10, 20, 30, 40, 50, 60, 7, 80]));
        assert_eq!(sums, Sums::from_parts([11, 22, 33, 44, 55, 66, u64::MAX, 88]));
    }
}
