//! The headers of answers: one row for each, and which answers have them.

use serde_json::{Map, Value, json};

/// A header: its name, whether each answer of its kind has it, the type of its value, an example, and its meaning.
type Row = (&'static str, bool, &'static str, &'static str, &'static str);

/// On every answer.
const ALWAYS: [&str; 1] = ["x-request-id"];
/// On answers to requests that limits count, and on refusals by a limit.
const LIMITED: [&str; 6] = [
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
];
/// On refusals after which the client may come back.
const RETRY: [&str; 2] = ["retry-after", "retry-after-ms"];

/// On answers with an output, and on those to jobs that a route led to a model.
pub(super) const ROUTED: [&str; 3] = ["x-forebay-model", "x-forebay-route", "x-forebay-wait-ms"];

const ROWS: [Row; 18] = [
    (
        "x-request-id",
        true,
        "string",
        "req_7f3a",
        "The request's id, also in the gateway's log: the client's own, or a new one.",
    ),
    (
        "x-ratelimit-limit-requests",
        false,
        "integer",
        "600",
        "Requests a minute, for all keys of the tenant.",
    ),
    (
        "x-ratelimit-remaining-requests",
        false,
        "integer",
        "599",
        "Requests that are left in this minute.",
    ),
    ("x-ratelimit-reset-requests", false, "string", "1m0s", "When all of them are there again."),
    (
        "x-ratelimit-limit-tokens",
        false,
        "integer",
        "200000",
        "Tokens a minute, for all keys of the tenant.",
    ),
    (
        "x-ratelimit-remaining-tokens",
        false,
        "integer",
        "199000",
        "Tokens that are left in this minute.",
    ),
    ("x-ratelimit-reset-tokens", false, "string", "120ms", "When all of them are there again."),
    ("retry-after", false, "integer", "2", "When to try again, in whole seconds."),
    ("retry-after-ms", false, "integer", "2000", "When to try again, in milliseconds."),
    ("x-should-retry", false, "string", "false", "`false`: trying again is of no use."),
    ("x-forebay-model", false, "string", "all-minilm-l6-v2", "The model that answered."),
    (
        "x-forebay-route",
        false,
        "string",
        "name=search tier=1 reason=first",
        "The route that led to it, its tier, and why this one; only where there is one.",
    ),
    (
        "x-forebay-wait-ms",
        false,
        "integer",
        "120",
        "The wait that was predicted for the model when it was chosen, where it is known.",
    ),
    (
        "x-forebay-cache",
        false,
        "string",
        "hits=3 of=5",
        "For how many of the inputs the vector was there before.",
    ),
    ("x-accel-buffering", false, "string", "no", "Asks a proxy to pass each event on at once."),
    ("allow", true, "string", "GET,HEAD", "The methods that the path takes."),
    ("location", true, "string", "/v1/jobs/A1b2", "The path of the job."),
    ("idempotent-replayed", false, "string", "true", "The job was there before, and has ended."),
];

/// References to the headers of an answer with this status, and to `others`.
pub(super) fn of(status: u16, is_limited: bool, others: &[&'static str]) -> Value {
    let limited = if is_limited || status == 429 { &LIMITED[..] } else { &[] };
    let retry = if matches!(status, 429 | 503) { &RETRY[..] } else { &[] };
    let final_for_all =
        if matches!(status, 409 | 429 | 500) { &["x-should-retry"][..] } else { &[] };
    let allow = if status == 405 { &["allow"][..] } else { &[] };
    let names = [&ALWAYS, limited, retry, final_for_all, allow, others].concat().into_iter();
    let entry =
        |name: &str| (name.to_owned(), json!({"$ref": format!("#/components/headers/{name}")}));
    names.map(entry).collect::<Map<_, _>>().into()
}

/// All headers.
pub(super) fn components() -> Value {
    let written = |(name, required, kind, example, meaning): &Row| {
        let example = if *kind == "integer" {
            json!(example.parse::<u64>().unwrap_or_default())
        } else {
            json!(example)
        };
        let header = json!({
            "description": meaning, "required": required, "schema": {"type": kind}, "example": example,
        });
        ((*name).to_owned(), header)
    };
    ROWS.iter().map(written).collect::<Map<_, _>>().into()
}
