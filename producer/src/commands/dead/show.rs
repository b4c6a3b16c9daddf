//! `forebay dead show`.

use std::io;

use base64::{Engine, engine::general_purpose::STANDARD};
use forebay_client::{Client, DeadLetter, DeadLetterInfo, Outcome, WaitError};
use forebay_fabric::clock::now_ms;
use forebay_schemas::{JobError, Limits, codec};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    browse::Browser,
    selection::{Selection, addressee, job},
};
use crate::{
    context::Context,
    error::{CommandError, CommandResult},
    output::{Output, grouped, plain, span},
};

/// Dead letters shown without --limit.
const LIMIT: usize = 10;
/// Characters of a decoded body that are shown, unless as JSON.
const BODY_CHARS_SHOWN: usize = 4_096;
/// Bytes of a body that can't be decoded that are shown, unless as JSON.
const BODY_BYTES_SHOWN: usize = 512;

pub(super) async fn run(selection: Selection, context: &mut Context) -> CommandResult {
    let client = context.client()?;
    let mut browser = Browser::begin(selection, LIMIT, context).await?;
    while let Some(dead) = browser.next(context).await? {
        let record = Record::of(&dead, &client).await?;
        let body = Body::of(&dead, &context.config.limits);
        let output = &mut context.output;
        browser.progress.aside(|| {
            if output.json {
                json(output, &dead, &record, body)
            } else {
                text(output, &dead, &record, &body)
            }
        })?;
    }
    browser.end().await
}

/// The value at the result key of the job.
#[derive(Serialize)]
#[serde(untagged)]
enum Record {
    None,
    Present {
        state: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<JobError>,
        finished_at_ms: u64,
    },
    Unreadable {
        unreadable: String,
    },
}

impl Record {
    async fn of(dead: &DeadLetter, client: &Client) -> Result<Self, CommandError> {
        let Some(id) = &dead.info.job else { return Ok(Self::None) };
        match client.get(id).await {
            Ok(None) => Ok(Self::None),
            Ok(Some(Outcome { state, error, finished_at_ms, .. })) => {
                Ok(Self::Present { state: state.as_str(), error, finished_at_ms })
            }
            Err(WaitError::Unreadable { error, .. }) => {
                Ok(Self::Unreadable { unreadable: error.to_string() })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn line(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Present { state, error: None, .. } => (*state).to_owned(),
            Self::Present { state, error: Some(error), .. } => format!("{state}: {error}"),
            Self::Unreadable { unreadable } => unreadable.clone(),
        }
    }
}

/// A body: its fields, or its bytes where it can't be decoded.
#[derive(Serialize)]
#[serde(untagged)]
enum Body {
    Fields { body: Value },
    Bytes { body_base64: String },
}

impl Body {
    fn of(dead: &DeadLetter, limits: &Limits) -> Self {
        let bytes = dead.body();
        // A body that is too long for a job is not decoded here either.
        let fields = (bytes.len() <= limits.body_bytes_max)
            .then(|| codec::decode(bytes, dead.info.content_type, limits.depth_max).ok());
        match fields.flatten() {
            Some(body) => Self::Fields { body },
            None => Self::Bytes { body_base64: STANDARD.encode(bytes) },
        }
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    info: &'a DeadLetterInfo,
    headers: Map<String, Value>,
    record: &'a Record,
    #[serde(flatten)]
    body: Body,
}

fn json(to: &mut Output, dead: &DeadLetter, record: &Record, body: Body) -> io::Result<()> {
    to.json_line(&Shown { info: &dead.info, headers: dead.headers(), record, body })
}

fn text(to: &mut Output, dead: &DeadLetter, record: &Record, body: &Body) -> io::Result<()> {
    let info = &dead.info;
    to.line(format_args!("name      {}", info.name))?;
    to.line(format_args!("job       {}", job(info)))?;
    let [model, lane] = addressee(info);
    to.line(format_args!("model     {model} ({lane})"))?;
    to.line(format_args!("reason    {}", reason(dead, now_ms())))?;
    to.line(format_args!("record    {}", plain(&record.line())))?;
    for (name, value) in dead.headers() {
        to.line(format_args!("header    {} = {}", plain(&name), plain(&value.to_string())))?;
    }
    let bytes = grouped(info.bytes as u64);
    to.line(format_args!("body      {bytes} bytes, {}", info.content_type))?;
    for line in body_lines(dead.body(), body) {
        to.line(format_args!("          {line}"))?;
    }
    to.line("")
}

fn reason(dead: &DeadLetter, now_ms: u64) -> String {
    let info = &dead.info;
    let detail = info.detail.as_ref().map(|detail| format!(": {detail}"));
    let queue = info.queue.as_ref().map(|queue| format!(" in {queue}"));
    let ago = info.died_at_ms.map(|at| format!(", {} ago", span(now_ms.saturating_sub(at))));
    let parts = [Some(info.reason.to_string()), detail, queue, ago];
    plain(&parts.into_iter().flatten().collect::<String>())
}

fn body_lines(bytes: &[u8], body: &Body) -> Vec<String> {
    let (shown, cut) = match body {
        Body::Fields { body } => {
            let whole = format!("{body:#}");
            let shown: String = whole.chars().take(BODY_CHARS_SHOWN).collect();
            let cut = shown.len() < whole.len();
            (shown, cut)
        }
        Body::Bytes { .. } => {
            let prefix = &bytes[..bytes.len().min(BODY_BYTES_SHOWN)];
            (prefix.escape_ascii().to_string(), prefix.len() < bytes.len())
        }
    };
    let rest = cut.then(|| "… (--json shows the rest)".to_owned());
    shown.lines().map(plain).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_shown_decoded_if_possible_and_within_bounds() {
        let fields = Body::Fields { body: serde_json::json!({"input": "x".repeat(100_000)}) };
        let lines = body_lines(b"", &fields);
        assert_eq!(lines[0], "{");
        assert!(lines.concat().chars().count() < BODY_CHARS_SHOWN + 100);
        assert!(lines.last().is_some_and(|line| line.contains("--json")));
        let bytes = Body::Bytes { body_base64: String::new() };
        assert_eq!(body_lines(b"\xc1\x1b[31m", &bytes), ["\\xc1\\x1b[31m"]);
        assert!(body_lines(&vec![0; 100_000], &bytes).concat().len() < 4 * BODY_BYTES_SHOWN + 100);
    }

    #[test]
    fn control_characters_in_a_body_do_not_reach_the_terminal() {
        let body = serde_json::json!({"input": "\u{9b}31m"});
        let lines = body_lines(b"", &Body::Fields { body });
        assert!(lines.iter().all(|line| !line.contains('\u{9b}')), "{lines:?}");
    }
}
