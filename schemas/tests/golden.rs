//! The wire format does not change by accident: bytes and schemas are held against files.
//!
//! `FOREBAY_BLESS=1 cargo test -p forebay-schemas` rewrites the files after a change that was meant.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, path::PathBuf};

use forebay_schemas::{ContentType, Limits, Outcome, decode_job, export::json_schemas};

fn check(folder: &str, name: &str, now: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
    if std::env::var_os("FOREBAY_BLESS").is_some() {
        fs::write(&path, now).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(golden == now, "{} is not what is written now", path.display());
}

const CODECS: [(ContentType, &str); 2] =
    [(ContentType::Msgpack, "msgpack"), (ContentType::Json, "json")];

#[test]
fn jobs_are_written_and_read_as_ever() {
    for (name, job) in common::sample_jobs() {
        for (content_type, extension) in CODECS {
            let body = job.encode(content_type).unwrap();
            check("golden", &format!("{name}.{extension}"), &body);
            assert_eq!(decode_job(&body, content_type, &Limits::default()).unwrap(), job, "{name}");
        }
    }
}

#[test]
fn outcomes_are_written_and_read_as_ever() {
    for (name, outcome) in common::sample_outcomes() {
        for (content_type, extension) in CODECS {
            let bytes = outcome.encode(content_type).unwrap();
            check("golden", &format!("{name}.{extension}"), &bytes);
            assert_eq!(Outcome::decode(&bytes).unwrap(), outcome, "{name} {extension}");
        }
    }
}

#[test]
fn exported_schemas_are_up_to_date() {
    for (name, schema) in json_schemas() {
        check("json", name, schema.as_bytes());
    }
}
