//! Usage over HTTP: the query of `GET /v1/usage`, and its answers.

use forebay_fabric::usage::{Asked, By, Hour, Report, parse_time};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{access::Scope, error::ApiError};

/// Stands for all tenants.
const ALL: &str = "*";
/// The parameters of the query.
const PARAMETERS: [&str; 5] = ["start", "end", "by", "tenant", "format"];

/// The answer in JSON, as the document has it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UsageReport")]
#[allow(dead_code)] // only the schema is made of it
pub struct UsageAnswer {
    #[schemars(extend("const" = "usage"))]
    object: String,
    /// From when on.
    start: String,
    /// Until when, not included.
    end: String,
    /// The property by which usage is grouped; each row has its value under this name.
    by: String,
    data: Vec<UsageRow>,
    total: UsageRow,
}

/// Sums of what was used; a row of `data` has the value of the property beside it.
#[derive(Serialize, JsonSchema)]
#[allow(dead_code)] // only the schema is made of it
struct UsageRow {
    /// Jobs that ended in any state.
    jobs: u64,
    /// Those that did not succeed.
    failed_jobs: u64,
    /// Those of models without a price, whose cost is not known.
    unpriced_jobs: u64,
    input_tokens: u64,
    /// Those that were remembered and not computed again; they are among `input_tokens`.
    cached_tokens: u64,
    output_tokens: u64,
    /// Jobs with a text that was cut.
    truncated: u64,
    /// Microseconds of devices.
    device_us: u64,
    /// Exact, in units of 1e-9; null where no job had a price.
    cost: Option<String>,
}

/// The query of `GET /v1/usage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageQuery {
    /// The property by which usage is grouped.
    pub by: By,
    /// Whether the answer is CSV, and not JSON.
    pub is_csv: bool,
    start: Hour,
    end: Hour,
    /// The tenant that is named; `*` for all.
    tenant: Option<String>,
}

impl UsageQuery {
    /// Reads the query and the header `Accept`. Unless they are named, it is about this month up to now.
    pub fn parse(query: &str, accept: Option<&str>, now_ms: u64) -> Result<Self, ApiError> {
        let mut values: [Option<String>; PARAMETERS.len()] = Default::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(at) = PARAMETERS.iter().position(|known| *known == name) else {
                let name: String = name.chars().take(40).collect();
                let known = PARAMETERS.join(", ");
                let message = format!("`{name}` is not a parameter: there are {known}");
                return Err(ApiError::invalid(name, message));
            };
            if values[at].replace(value.into_owned()).is_some() {
                let name = PARAMETERS[at];
                return Err(ApiError::invalid(name, format!("`{name}` is there twice")));
            }
        }
        let [start, end, by, tenant, format] = values;
        let now = Hour::of_ms(now_ms);
        let time = |name: &str, text: Option<String>, default| match text {
            None => Ok(default),
            Some(text) => parse_time(&text)
                .map_err(|error| ApiError::invalid(name, format!("`{name}`: {error}"))),
        };
        let start = time("start", start, Hour::on(now.day().first_of_month(), 0))?;
        let end = time("end", end, now.next())?;
        if end <= start {
            let message = format!("`end` ({end}) must be later than `start` ({start})");
            return Err(ApiError::invalid("end", message));
        }
        let by = by.map_or(Ok(By::Model), |by| {
            by.parse().map_err(|error| ApiError::invalid("by", format!("{error}")))
        })?;
        let is_csv = match format.as_deref() {
            None => accept.is_some_and(accepts_csv),
            Some("csv") => true,
            Some("json") => false,
            Some(_) => {
                return Err(ApiError::invalid("format", "`format` is neither json nor csv"));
            }
        };
        // Who asks by tenant means all of them.
        let tenant = tenant.or_else(|| (by == By::Tenant).then(|| ALL.to_owned()));
        Ok(Self { by, is_csv, start, end, tenant })
    }

    /// The scope that it needs: usage of any but the caller's own tenant is the operator's to see.
    pub fn scope(&self) -> Scope {
        if self.tenant.is_some() { Scope::Admin } else { Scope::Read }
    }

    /// The usage that it asks for, from a caller of this tenant.
    pub fn asked(&self, own: &str) -> Asked {
        let tenant = match self.tenant.as_deref() {
            None => Some(own.to_owned()),
            Some(ALL) => None,
            Some(named) => Some(named.to_owned()),
        };
        Asked { from: self.start, until: self.end, tenant }
    }

    /// The answer in JSON.
    pub fn json(&self, report: &Report) -> Value {
        json!({
            "object": "usage",
            "start": self.start.to_string(),
            "end": self.end.to_string(),
            "by": self.by.as_str(),
            "data": report.written().collect::<Vec<_>>(),
            "total": report.written_total(),
        })
    }
}

fn accepts_csv(accept: &str) -> bool {
    let first = accept.split([',', ';']).next().unwrap_or_default();
    first.trim().eq_ignore_ascii_case("text/csv")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-29T13:30:00Z
    const NOW_MS: u64 = 1_795_959_000_000;

    fn parse(query: &str) -> Result<UsageQuery, ApiError> {
        UsageQuery::parse(query, None, NOW_MS)
    }

    #[test]
    fn without_parameters_it_is_the_caller_s_own_month_by_model() {
        let query = parse("").unwrap();
        let Asked { from, until, tenant } = query.asked("acme");
        assert_eq!(from.to_string(), "2026-11-01T00:00:00Z");
        assert_eq!(until.to_string(), "2026-11-29T14:00:00Z");
        assert_eq!(
            (tenant.as_deref(), query.by, query.scope()),
            (Some("acme"), By::Model, Scope::Read)
        );
    }

    #[test]
    fn parameters_are_read_with_their_escapes() {
        let query =
            parse("start=2026-11-29T10%3A00%3A00Z&end=2026-11-30&by=hour&tenant=a%26b").unwrap();
        let Asked { from, until, tenant } = query.asked("acme");
        assert_eq!(from.to_string(), "2026-11-29T10:00:00Z");
        assert_eq!(until.to_string(), "2026-11-30T00:00:00Z");
        assert_eq!((tenant.as_deref(), query.scope()), (Some("a&b"), Scope::Admin));
    }

    #[test]
    fn usage_of_other_tenants_and_of_all_is_the_operator_s() {
        for query in ["tenant=other", "tenant=*", "by=tenant"] {
            assert_eq!(parse(query).unwrap().scope(), Scope::Admin, "{query}");
        }
        assert_eq!(parse("by=tenant").unwrap().asked("acme").tenant, None);
    }

    #[test]
    fn csv_is_written_where_it_is_asked_for() {
        let is_csv = |query, accept| UsageQuery::parse(query, accept, NOW_MS).unwrap().is_csv;
        assert!(is_csv("format=csv", None));
        assert!(is_csv("", Some("text/csv; charset=utf-8")));
        assert!(!is_csv("format=json", Some("text/csv")));
        assert!(!is_csv("", Some("*/*")));
    }

    #[test]
    fn a_mistake_is_named_by_its_parameter() {
        for (query, param) in [
            ("start=soon", "start"),
            ("end=2026-13-01", "end"),
            ("start=2026-11-29&end=2026-11-29", "end"),
            ("by=colour", "by"),
            ("format=xml", "format"),
            ("since=2026-11-29", "since"),
            ("by=day&by=day", "by"),
        ] {
            let error = parse(query).unwrap_err();
            assert_eq!(
                (error.status.as_u16(), error.param.as_deref()),
                (400, Some(param)),
                "{query}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "[a-z0-9=&%*:-]{0,60}|.{0,60}") {
            let _ = parse(&query);
        }
    }
}
