//! Requests that are not what HTTP asks for, or that use a corner of it: heads, paths, framing.

use std::time::Instant;

use futures_util::future::join_all;

use super::ground::{Ground, Tally};
use super::raw::{Seen, request, send};

/// The answer that has to come back on the connection.
#[derive(Debug)]
enum Expected {
    /// Answers with these statuses, and the end.
    Statuses(&'static [u16]),
    /// Any refusal, or the end without one.
    Refused,
}

use Expected::{Refused, Statuses};

type Trick = (&'static str, Vec<u8>, Expected);

pub(super) async fn run(ground: &mut Ground) {
    let began = Instant::now();
    let port = ground.gateway.port;
    let key = format!("authorization: {}\r\n", ground.keys[0]);
    let tricks: Vec<Trick> =
        [paths(&key), heads(&key), framing(&key), endless(&key), versions(&key)]
            .into_iter()
            .flatten()
            .collect();
    let seen = join_all(tricks.iter().map(|(_, bytes, _)| send(port, bytes))).await;
    let mut tally = Tally::default();
    let mut surprises = Vec::new();
    for ((name, _, expected), seen) in tricks.iter().zip(seen) {
        tally.count(&seen);
        if !keeps(expected, &seen) {
            let begin: String = seen.text.chars().take(300).collect();
            surprises.push(format!("{name}: {expected:?}, and came {:?}: {begin}", seen.statuses));
        }
    }
    assert!(surprises.is_empty(), "{surprises:#?}");
    ground.after("tricks of heads and framing", began, &tally).await;
}

fn keeps(expected: &Expected, seen: &Seen) -> bool {
    match expected {
        Statuses(statuses) => seen.statuses == *statuses,
        Refused => seen.statuses.iter().all(|status| (400..500).contains(status) || *status == 505),
    }
}

/// A GET of a target with a valid key.
fn get(target: &str, key: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{key}\r\n").into_bytes()
}

fn paths(key: &str) -> Vec<Trick> {
    let cases: [(&str, String, Expected); 16] = [
        ("dot segments", "/v1/../v1/models".into(), Statuses(&[404])),
        ("dot segments in the id", "/v1/models/../../etc/passwd".into(), Statuses(&[404])),
        ("encoded dot segments", "/v1/models/..%2f..%2fetc%2fpasswd".into(), Statuses(&[404])),
        ("an encoded slash in a job's id", "/v1/jobs/a%2Fb".into(), Statuses(&[404])),
        ("an encoded NUL", "/v1/jobs/a%00b".into(), Statuses(&[404])),
        ("an encoded NUL in a model", "/v1/models/a%00b".into(), Statuses(&[404])),
        ("bytes that are not UTF-8", "/v1/models/%ff%fe".into(), Statuses(&[400])),
        ("bytes that are not UTF-8 in a job's id", "/v1/jobs/%ff".into(), Statuses(&[400])),
        ("half of an escape", "/v1/jobs/a%2".into(), Statuses(&[404])),
        ("two slashes", "//v1/models".into(), Statuses(&[404])),
        ("a slash at the end", "/v1/models/".into(), Statuses(&[404])),
        ("another case", "/V1/Models".into(), Statuses(&[404])),
        ("a query that goes on", format!("/v1/models?{}", "a=b&".repeat(10_000)), Statuses(&[200])),
        ("a wait that is no number", "/v1/jobs/x?wait=1e999".into(), Statuses(&[404])),
        ("a path of 60 kB", format!("/{}", "a".repeat(60_000)), Statuses(&[404])),
        ("a path of 70 kB", format!("/{}", "a".repeat(70_000)), Refused),
    ];
    cases.into_iter().map(|(name, target, expected)| (name, get(&target, key), expected)).collect()
}

fn heads(key: &str) -> Vec<Trick> {
    let with = |lines: &str| {
        let head = "GET /v1/models HTTP/1.1\r\nhost: h\r\nconnection: close\r\n";
        format!("{head}{lines}{key}\r\n").into_bytes()
    };
    let many = |count: usize| (0..count).map(|n| format!("x-h{n}: v\r\n")).collect::<String>();
    let no_host = format!("GET /v1/models HTTP/1.1\r\nconnection: close\r\n{key}\r\n").into_bytes();
    vec![
        ("no host", no_host, Statuses(&[200])),
        ("two hosts", with("host: other\r\n"), Statuses(&[200])),
        ("two keys", with("authorization: Bearer x\r\n"), Statuses(&[401])),
        ("90 headers", with(&many(90)), Statuses(&[200])),
        ("10,000 headers", with(&many(10_000)), Refused),
        ("a header of 60 kB", with(&format!("x: {}\r\n", "v".repeat(60_000))), Statuses(&[200])),
        ("a header of 200 kB", with(&format!("x: {}\r\n", "v".repeat(200_000))), Refused),
        ("a blank before the colon", with("x-a : v\r\n"), Refused),
        ("a header without a colon", with("x-a\r\n"), Refused),
        ("a folded header", with("x-a: v\r\n w\r\n"), Refused),
        ("a NUL in a header", with("x-a: a\0b\r\n"), Refused),
        ("a carriage return in a header", with("x-a: a\rb\r\n"), Refused),
        ("bytes above ASCII in a header", with("x-request-id: \u{e4}\u{f6}\r\n"), Statuses(&[200])),
        (
            "lines that end in LF alone",
            b"GET /health HTTP/1.1\nhost: h\nconnection: close\n\n".to_vec(),
            Statuses(&[200]),
        ),
        ("an upgrade", with("upgrade: websocket\r\nsec-websocket-key: x\r\n"), Statuses(&[200])),
    ]
}

/// A POST of a good body, with these headers and a key.
fn post(key: &str, headers: &str, body: &str) -> Vec<u8> {
    let head = "POST /v1/embeddings HTTP/1.1\r\nhost: h\r\nconnection: close\r\n";
    format!("{head}{headers}{key}\r\n{body}").into_bytes()
}

fn framing(key: &str) -> Vec<Trick> {
    let good = r#"{"input": "x"}"#;
    let length = format!("content-length: {}\r\n", good.len());
    let chunked = "transfer-encoding: chunked\r\n";
    let whole = format!("{:x}\r\n{good}\r\n0\r\n\r\n", good.len());
    let hidden = "GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n";
    vec![
        ("chunks", post(key, chunked, &whole), Statuses(&[200])),
        ("two equal lengths", post(key, &length.repeat(2), good), Statuses(&[200])),
        ("two lengths", post(key, &format!("{length}content-length: 3\r\n"), good), Refused),
        ("a negative length", post(key, "content-length: -1\r\n", good), Refused),
        ("a signed length", post(key, "content-length: +14\r\n", good), Refused),
        ("a list of lengths", post(key, "content-length: 14, 14\r\n", good), Refused),
        (
            "a length beyond 64 bits",
            post(key, "content-length: 99999999999999999999\r\n", good),
            Refused,
        ),
        (
            "a length and chunks",
            post(key, &format!("{length}{chunked}"), &format!("{whole}{hidden}")),
            Statuses(&[200]),
        ),
        (
            "chunks and gzip",
            post(key, "transfer-encoding: gzip, chunked\r\n", &whole),
            Statuses(&[200]),
        ),
        (
            "chunks that are not last",
            post(key, "transfer-encoding: chunked, gzip\r\n", &whole),
            Refused,
        ),
        (
            "an unknown transfer encoding",
            post(key, "transfer-encoding: xchunked\r\n", &whole),
            Refused,
        ),
    ]
}

/// Chunks without end, and more than one request in a write.
fn endless(key: &str) -> Vec<Trick> {
    let good = r#"{"input": "x"}"#;
    let length = format!("content-length: {}\r\n", good.len());
    let chunked = "transfer-encoding: chunked\r\n";
    let keep = request("GET", "/health", &[], b"");
    let piped = String::from_utf8_lossy(&keep).replace("connection: close\r\n", "").repeat(99);
    vec![
        ("a chunk of 2^64 bytes", post(key, chunked, "10000000000000000\r\n"), Refused),
        ("a negative chunk", post(key, chunked, "-1\r\n"), Refused),
        (
            "a chunk with an endless extension",
            post(key, chunked, &format!("1;{}", "x".repeat(100_000))),
            Refused,
        ),
        (
            "endless trailers",
            post(key, chunked, &format!("e\r\n{good}\r\n0\r\n{}", "x: y\r\n".repeat(20_000))),
            Refused,
        ),
        (
            "garbage behind the body",
            post(key, &length, &format!("{good}\0\u{1}garbage")),
            Statuses(&[200]),
        ),
        (
            "a hundred requests in one write",
            [piped.as_bytes(), &keep].concat(),
            Statuses(&[200; 100]),
        ),
        (
            "an expectation",
            post(key, &format!("{length}expect: 100-continue\r\n"), good),
            Statuses(&[100, 200]),
        ),
        (
            "an unknown expectation",
            post(key, &format!("{length}expect: the-worst\r\n"), good),
            Statuses(&[200]),
        ),
    ]
}

fn versions(key: &str) -> Vec<Trick> {
    let line =
        |line: &str| format!("{line}\r\nhost: h\r\nconnection: close\r\n{key}\r\n").into_bytes();
    vec![
        ("HTTP/0.9", b"GET /health\r\n\r\n".to_vec(), Refused),
        ("HTTP/1.0", line("GET /v1/models HTTP/1.0"), Statuses(&[200])),
        ("HTTP/1.2", line("GET /v1/models HTTP/1.2"), Refused),
        ("HTTP/3.0", line("GET /v1/models HTTP/3.0"), Refused),
        (
            "a preface of HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
            Refused,
        ),
        ("a hello of TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(), Refused),
        (
            "an absolute target",
            line("GET http://elsewhere.example/v1/models HTTP/1.1"),
            Statuses(&[200]),
        ),
        ("a target without a slash", line("GET v1/models HTTP/1.1"), Refused),
        ("a star as a target", line("OPTIONS * HTTP/1.1"), Refused),
        ("a tunnel", line("CONNECT example.org:443 HTTP/1.1"), Refused),
        ("a trace", line("TRACE /v1/models HTTP/1.1"), Statuses(&[405])),
        ("a method of its own", line("BREW /v1/models HTTP/1.1"), Statuses(&[405])),
        ("a method in lower case", line("get /v1/models HTTP/1.1"), Statuses(&[405])),
        ("blanks in the target", line("GET /v1/models /x HTTP/1.1"), Refused),
        ("nothing but line ends", b"\r\n\r\n\r\n\r\n".to_vec(), Refused),
        ("noise", (0..=255).cycle().take(5_000).collect(), Refused),
    ]
}
