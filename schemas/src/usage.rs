//! An entry of the usage stream: what one job took, and what that costs.
//!
//! It is written in the same step as the job's terminal record, and only by its first writer.

use std::{collections::HashMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    names::{JobId, Lane},
    outcome::State,
};

/// Stands for a name that is not known: no tenant, key or model can be called so.
pub const UNKNOWN: &str = "-";

/// The usage of one job. A name that is not known is [`UNKNOWN`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageEntry {
    /// The job.
    pub id: JobId,
    /// The tenant that it is accounted to, as its publisher named it.
    pub tenant: String,
    /// The public id of the API key that it came with.
    pub api_key: String,
    /// The model.
    pub model: String,
    /// The lane that it came by.
    pub lane: Lane,
    /// How it ended.
    pub state: State,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Tokens read that the worker remembered from an earlier prompt; 0 in entries of versions without them.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Inputs that were cut.
    pub truncated: u64,
    /// Its share of the device's time, in microseconds.
    pub device_us: u64,
    /// Its cost, in units of 1e-9.
    pub cost: u64,
    /// The price that this is by, as `<input>/<output>` for a million tokens.
    pub price: String,
    /// When its record was made, in Unix milliseconds.
    pub finished_at_ms: u64,
}

/// An entry that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the usage entry's field `{field}` is {came}; run all programs at one version")]
pub struct UsageEntryError {
    /// The field.
    pub field: &'static str,
    /// Its fields.
    pub came: String,
}

impl UsageEntry {
    /// The names of all fields, in their order.
    pub const FIELDS: [&'static str; 14] = [
        "id",
        "tenant",
        "api_key",
        "model",
        "lane",
        "state",
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "truncated",
        "device_us",
        "cost",
        "price",
        "finished_at_ms",
    ];

    /// The values of all fields, as the stream has them. Every entry has every field: Redis then keeps their names
    /// once for many entries.
    pub fn values(&self) -> [String; 14] {
        [
            self.id.to_string(),
            self.tenant.clone(),
            self.api_key.clone(),
            self.model.clone(),
            self.lane.to_string(),
            self.state.to_string(),
            self.input_tokens.to_string(),
            self.output_tokens.to_string(),
            self.cached_tokens.to_string(),
            self.truncated.to_string(),
            self.device_us.to_string(),
            self.cost.to_string(),
            self.price.clone(),
            self.finished_at_ms.to_string(),
        ]
    }

    /// Reads an entry's fields; others than these are ignored.
    pub fn read(fields: &HashMap<String, String>) -> Result<Self, UsageEntryError> {
        let text = |field: &'static str| {
            let missing = || UsageEntryError { field, came: "missing".to_owned() };
            fields.get(field).cloned().ok_or_else(missing)
        };
        Ok(Self {
            id: parsed("id", fields)?,
            tenant: text("tenant")?,
            api_key: text("api_key")?,
            model: text("model")?,
            lane: parsed("lane", fields)?,
            state: match text("state")?.as_str() {
                "succeeded" => State::Succeeded,
                "failed" => State::Failed,
                "expired" => State::Expired,
                "cancelled" => State::Cancelled,
                other => return Err(wrong("state", other)),
            },
            input_tokens: parsed("input_tokens", fields)?,
            output_tokens: parsed("output_tokens", fields)?,
            cached_tokens: match fields.get("cached_tokens") {
                Some(_) => parsed("cached_tokens", fields)?,
                None => 0,
            },
            truncated: parsed("truncated", fields)?,
            device_us: parsed("device_us", fields)?,
            cost: parsed("cost", fields)?,
            price: text("price")?,
            finished_at_ms: parsed("finished_at_ms", fields)?,
        })
    }
}

fn parsed<T: FromStr<Err: fmt::Display>>(
    field: &'static str,
    fields: &HashMap<String, String>,
) -> Result<T, UsageEntryError> {
    let Some(text) = fields.get(field) else {
        return Err(UsageEntryError { field, came: "missing".to_owned() });
    };
    text.parse().map_err(|_| wrong(field, text))
}

fn wrong(field: &'static str, came: &str) -> UsageEntryError {
    let came: String = came.chars().take(80).collect();
    UsageEntryError { field, came: format!("`{came}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> UsageEntry {
        UsageEntry {
            id: "j1".parse().unwrap(),
            tenant: "acme".into(),
            api_key: UNKNOWN.into(),
            model: "m".into(),
            lane: Lane::Interactive,
            state: State::Expired,
            input_tokens: u64::MAX,
            output_tokens: 2,
            cached_tokens: 1,
            truncated: 3,
            device_us: 4,
            cost: 5,
            price: "0.02/0".into(),
            finished_at_ms: 6,
        }
    }

    fn fields(entry: &UsageEntry) -> HashMap<String, String> {
        UsageEntry::FIELDS.into_iter().map(str::to_owned).zip(entry.values()).collect()
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_beside_fields_of_a_later_version() {
        let mut fields = fields(&entry());
        fields.insert("batch".into(), "b1".into());
        assert_eq!(UsageEntry::read(&fields), Ok(entry()));
    }

    #[test]
    fn the_field_of_an_entry_that_can_t_be_read_is_named() {
        for (field, value) in [("id", "a b"), ("lane", "fast"), ("state", "odd"), ("cost", "-1")] {
            let mut fields = fields(&entry());
            fields.insert(field.into(), value.into());
            let error = UsageEntry::read(&fields).unwrap_err();
            assert_eq!((error.field, error.came), (field, format!("`{value}`")));
            fields.remove(field);
            assert_eq!(UsageEntry::read(&fields).unwrap_err().came, "missing");
        }
    }
}
