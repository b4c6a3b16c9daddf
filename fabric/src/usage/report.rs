//! A report: usage by tenant, key, model, or what else it is to be grouped by.

use std::{collections::BTreeMap, fmt, str::FromStr};

use forebay_schemas::usage::UNKNOWN;
use serde::Serialize;

use super::{
    read::Used,
    sums::{OTHER, Sums},
};
use crate::config::format_decimal;

/// The most rows of a report. What is beyond is in one row, so that the total is right.
const ROWS_MAX: usize = 10_000;

/// The property by which a report groups usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The tenant.
    Tenant,
    /// The API key.
    Key,
    /// The model.
    Model,
    /// The lane.
    Lane,
    /// The price.
    Price,
    /// By day, in UTC.
    Day,
    /// The hour.
    Hour,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Tenant, Self::Key, Self::Model, Self::Lane, Self::Price, Self::Day, Self::Hour];

    /// Its name, and that of its column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Key => "key",
            Self::Model => "model",
            Self::Lane => "lane",
            Self::Price => "price",
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }

    fn of(self, used: &Used) -> String {
        match self {
            Self::Tenant => used.tenant.clone(),
            Self::Key => used.line.api_key.clone(),
            Self::Model => used.line.model.clone(),
            Self::Lane => used.line.lane.clone(),
            Self::Price => used.line.price.clone(),
            Self::Day => used.hour.day().to_string(),
            Self::Hour => used.hour.to_string(),
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name of no [`By`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("usage is grouped by tenant, key, model, lane, price, day or hour, not by `{0}`")]
pub struct UnknownBy(String);

impl FromStr for By {
    type Err = UnknownBy;

    fn from_str(text: &str) -> Result<Self, UnknownBy> {
        let found = Self::ALL.into_iter().find(|by| by.as_str() == text);
        found.ok_or_else(|| UnknownBy(text.chars().take(40).collect()))
    }
}

/// A row of a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// All jobs of the row.
    pub sums: Sums,
    /// Those of them whose model had no price: what they cost is not known, and not in the sums.
    pub unpriced_jobs: u64,
}

impl Row {
    fn add(&mut self, used: &Used) {
        self.sums.add(&used.sums);
        if used.line.price == UNKNOWN {
            self.unpriced_jobs = self.unpriced_jobs.saturating_add(used.sums.jobs);
        }
    }

    /// The cost of the jobs, exactly; `None` where no price is known of any of them.
    pub fn cost(&self) -> Option<String> {
        let is_known = self.sums.jobs == 0 || self.unpriced_jobs < self.sums.jobs;
        is_known.then(|| format_decimal(self.sums.cost))
    }
}

/// A row as it is written: what it is about under the name of the report's `by`.
#[derive(Debug, Serialize)]
pub struct WrittenRow<'a> {
    #[serde(flatten)]
    of: BTreeMap<&'static str, &'a str>,
    jobs: u64,
    failed_jobs: u64,
    unpriced_jobs: u64,
    input_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    truncated: u64,
    device_us: u64,
    cost: Option<String>,
}

/// Usage grouped by one property, with the total.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The property.
    pub by: By,
    /// The rows by their value of it.
    pub rows: BTreeMap<String, Row>,
    /// All rows together.
    pub total: Row,
}

impl Report {
    /// An empty report.
    pub fn new(by: By) -> Self {
        Self { by, rows: BTreeMap::new(), total: Row::default() }
    }

    /// Adds usage.
    pub fn add(&mut self, used: &Used) {
        let of = self.by.of(used);
        let has_room = self.rows.len() < ROWS_MAX || self.rows.contains_key(&of);
        let of = if has_room { of } else { OTHER.to_owned() };
        self.rows.entry(of).or_default().add(used);
        self.total.add(used);
    }

    /// The rows as they are written in JSON.
    pub fn written(&self) -> impl Iterator<Item = WrittenRow<'_>> {
        self.rows.iter().map(|(of, row)| written(Some((self.by, of)), row))
    }

    /// The total as it is written in JSON.
    pub fn written_total(&self) -> WrittenRow<'static> {
        written(None, &self.total)
    }

    /// The rows as CSV (RFC 4180), under their heads. There is no row of the total.
    pub fn csv(&self) -> String {
        let mut csv = format!(
            "{},jobs,failed_jobs,unpriced_jobs,input_tokens,output_tokens,truncated,device_us,cost,cached_tokens\r\n",
            self.by
        );
        for (of, row) in &self.rows {
            let Sums {
                jobs, failed_jobs, input_tokens, output_tokens, truncated, device_us, ..
            } = row.sums;
            let numbers = [
                jobs,
                failed_jobs,
                row.unpriced_jobs,
                input_tokens,
                output_tokens,
                truncated,
                device_us,
            ];
            csv.push_str(&quoted(of));
            for number in numbers {
                csv.push(',');
                csv.push_str(&number.to_string());
            }
            csv.push(',');
            csv.push_str(&row.cost().unwrap_or_default());
            // Behind the others, where readers by position don't look.
            csv.push(',');
            csv.push_str(&row.sums.cached_tokens.to_string());
            csv.push_str("\r\n");
        }
        csv
    }
}

fn written<'a>(of: Option<(By, &'a String)>, row: &Row) -> WrittenRow<'a> {
    let sums = row.sums;
    WrittenRow {
        of: of.into_iter().map(|(by, of)| (by.as_str(), of.as_str())).collect(),
        jobs: sums.jobs,
        failed_jobs: sums.failed_jobs,
        unpriced_jobs: row.unpriced_jobs,
        input_tokens: sums.input_tokens,
        cached_tokens: sums.cached_tokens,
        output_tokens: sums.output_tokens,
        truncated: sums.truncated,
        device_us: sums.device_us,
        cost: row.cost(),
    }
}

/// A value for CSV. One that a spreadsheet would take for a formula is made a text: publishers choose tenants' names.
fn quoted(text: &str) -> String {
    let is_formula = text.len() > 1 && text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::{Line, parse_time};

    fn used(tenant: &str, model: &str, price: &str, sums: Sums) -> Used {
        let hour = parse_time("2026-11-29T13:00:00Z").unwrap();
        let line = Line {
            hour_of_day: hour.of_day(),
            api_key: "-".into(),
            model: model.into(),
            lane: "batch".into(),
            price: price.into(),
        };
        Used { tenant: tenant.into(), hour, line, sums }
    }

    #[test]
    fn a_report_adds_up_and_keeps_unpriced_jobs_apart_from_free_ones() {
        let sums = |jobs, cost| Sums { jobs, cost, input_tokens: 10, ..Sums::default() };
        let mut report = Report::new(By::Model);
        for used in [
            used("a", "m", "0.02/0", sums(2, 420)),
            used("b", "m", "-", sums(1, 0)),
            used("a", "unpriced", "-", sums(3, 0)),
            used("a", "free", "0/0", sums(4, 0)),
        ] {
            report.add(&used);
        }
        let costs: Vec<_> = report.rows.iter().map(|(of, row)| (of.as_str(), row.cost())).collect();
        let cost = |text: &str| Some(text.to_owned());
        assert_eq!(costs, [("free", cost("0")), ("m", cost("0.00000042")), ("unpriced", None)]);
        assert_eq!((report.total.sums.jobs, report.total.unpriced_jobs), (10, 4));
        let rows = serde_json::to_value(report.written().collect::<Vec<_>>()).unwrap();
        assert_eq!((&rows[1]["model"], &rows[1]["cost"]), (&"m".into(), &"0.00000042".into()));
        assert!(rows[2]["cost"].is_null(), "{rows}");
        let csv = report.csv();
        assert!(
            csv.starts_with("model,jobs,") && csv.contains("\r\nm,3,0,1,20,0,0,0,0.00000042,0\r\n"),
            "{csv}"
        );
        assert_eq!(Report::new(By::Day).total.cost(), cost("0"));
    }

    #[test]
    fn every_property_is_known_by_its_name() {
        for by in By::ALL {
            assert_eq!(by.as_str().parse(), Ok(by));
        }
        assert!("colour".parse::<By>().unwrap_err().to_string().contains("`colour`"));
    }

    #[test]
    fn a_name_can_break_no_row_and_run_in_no_spreadsheet() {
        for (name, written) in [
            ("acme", "acme"),
            ("-", "-"),
            ("a,b", "\"a,b\""),
            ("a\"b\n", "\"a\"\"b\n\""),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
        ] {
            assert_eq!(quoted(name), written);
        }
    }
}
