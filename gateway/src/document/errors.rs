//! Answers that are errors: one row for each status, with the codes that it may have.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::headers;

/// The body of every answer that is an error.
#[derive(Serialize, JsonSchema)]
#[allow(dead_code)] // only the schema is made of it
pub(super) struct Error {
    /// The error.
    error: Fault,
}

/// An error, in the shape that OpenAI's clients read.
#[derive(Serialize, JsonSchema)]
#[allow(dead_code)] // only the schema is made of it
pub(super) struct Fault {
    /// The error for a person: what came, what was expected, what to do.
    #[schemars(length(min = 1))]
    message: String,
    /// The kind of error.
    #[serde(rename = "type")]
    kind: Kind,
    /// The field at fault.
    param: Option<String>,
    /// The error for a program.
    code: String,
}

/// The kind of an error.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ErrorKind")]
#[allow(clippy::enum_variant_names, dead_code)] // the names of the wire; only the schema is made of it
enum Kind {
    /// The request's own mistake.
    #[serde(rename = "invalid_request_error")]
    InvalidRequest,
    /// A fault of the fleet.
    #[serde(rename = "server_error")]
    Server,
    /// A limit of the tenant is reached.
    #[serde(rename = "rate_limit_error")]
    RateLimit,
    /// The month's budget of the tenant is spent or reserved.
    #[serde(rename = "insufficient_quota")]
    Quota,
    /// The fleet can't take or do it now.
    #[serde(rename = "service_unavailable")]
    Unavailable,
}

/// A status with the codes of its errors, its name in the document, and its meaning.
struct Row(u16, &'static str, &'static [&'static str], &'static str);

const ROWS: [Row; 12] = [
    Row(
        400,
        "InvalidRequest",
        &["invalid_request", "task_not_supported", "input_too_long", "request_too_large"],
        "The request has a mistake, which the message names. Sending it again is of no use.",
    ),
    Row(
        401,
        "Unauthorized",
        &["missing_api_key", "invalid_api_key"],
        "No key came, or one that is unknown, revoked or expired.",
    ),
    Row(
        403,
        "Forbidden",
        &["insufficient_permissions", "foreign_origin"],
        "The key lacks a scope, which the message names; or no key is needed, and a web page of another site asks.",
    ),
    Row(
        404,
        "NotFound",
        &["model_not_found", "job_not_found", "unknown_path"],
        "There is no such model, job or path.",
    ),
    Row(405, "WrongMethod", &["wrong_method"], "The path does not take this method."),
    Row(408, "RequestTimeout", &["request_timeout"], "The body did not come in time."),
    Row(409, "Cancelled", &["cancelled"], "Somebody cancelled the request's job."),
    Row(
        413,
        "PayloadTooLarge",
        &["payload_too_large"],
        "The body, or one text, is over its limit.",
    ),
    Row(
        422,
        "NumericalError",
        &["numerical_error"],
        "The model's output for a text was not finite.",
    ),
    Row(
        429,
        "RateLimited",
        &["rate_limit_exceeded", "insufficient_quota"],
        "A limit of the tenant is reached, and the headers say when to come back; or its month's budget is spent, and \
         they say that trying again is of no use.",
    ),
    Row(
        500,
        "Internal",
        &["internal", "attempts_exhausted", "out_of_memory", "unsupported_version"],
        "A fault of the fleet. With `x-should-retry: false` trying again is of no use.",
    ),
    Row(
        503,
        "Unavailable",
        &["overloaded", "deadline_exceeded", "unavailable", "store_unavailable"],
        "The fleet is full, away, or had no result in time: come back soon.",
    ),
];

/// The responses of all statuses that are errors; `error` is the schema of their body.
pub(super) fn responses(error: &Value) -> Value {
    let written = |Row(status, name, codes, meaning): &Row| {
        let narrowed = json!({"properties": {"error": {"properties": {"code": {"enum": codes}}}}});
        let response = json!({
            "x-status": status,
            "description": meaning,
            "headers": headers::of(*status, false, &[]),
            "content": {"application/json": {"schema": {"allOf": [error, narrowed]}}},
        });
        ((*name).to_owned(), response)
    };
    ROWS.iter().map(written).collect::<Map<_, _>>().into()
}

/// A reference to the response of a status.
pub(super) fn reference(status: u16) -> Value {
    let row = ROWS.iter().find(|Row(known, ..)| *known == status);
    debug_assert!(row.is_some(), "no row for {status}");
    json!({"$ref": format!("#/components/responses/{}", row.map_or("", |Row(_, name, ..)| name))})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_codes_are_those_of_the_table_in_the_documentation() {
        let documented = include_str!("../../../docs/gateway.md");
        let rows = documented.lines().filter_map(|line| line.strip_prefix("| "));
        let mut expected = BTreeSet::new();
        for (status, rest) in rows.filter_map(|row| row.split_once(" | ")) {
            let Ok(status) = status.parse::<u16>() else { continue };
            let codes = rest.split(" | ").next().unwrap().split(", ");
            expected.extend(codes.map(|code| (status, code.trim_matches('`'))));
        }
        assert!(expected.len() > 20, "{expected:?}");
        let written = ROWS
            .iter()
            .flat_map(|Row(status, _, codes, _)| codes.iter().map(move |code| (*status, *code)));
        assert_eq!(written.collect::<BTreeSet<_>>(), expected);
    }
}
