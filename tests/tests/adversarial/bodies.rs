//! Bodies that are too large, too deep, too many, or not what they say.

use std::fmt::Write as _;
use std::time::Instant;

use forebay_tests::model::TINY;
use serde_json::{Value, json};

use super::ground::{Ground, Tally};

/// As deep as no stack would bear.
const DEEP: usize = 500_000;

fn nested(open: &str, inner: &str, close: &str) -> String {
    format!("{}{inner}{}", open.repeat(DEEP), close.repeat(DEEP))
}

/// Its name, the endpoint, the body, and the status that it has to get.
type Case = (&'static str, &'static str, Vec<u8>, u16);

fn job(field: &str, value: &str) -> Vec<u8> {
    format!(r#"{{"model":"{TINY}","task":"embed","input":"x","{field}":{value}}}"#).into_bytes()
}

/// Bodies that are deep, long, or have very many parts.
fn large() -> Vec<Case> {
    let embeddings = "/v1/embeddings";
    let deep_list = nested("[", "", "]");
    let deep_map = nested(r#"{"a":"#, "1", "}");
    let many_keys = (0..100_000).fold(String::new(), |mut keys, n| {
        let _ = write!(keys, r#""k{n}":1,"#);
        keys
    });
    let texts = |count: usize| Value::from(vec!["x"; count]);
    vec![
        ("a list of lists", embeddings, format!(r#"{{"input":{deep_list}}}"#).into(), 400),
        ("a map of maps", embeddings, format!(r#"{{"input":{deep_map}}}"#).into(), 400),
        (
            "depth beside the input",
            embeddings,
            format!(r#"{{"x":{deep_map},"input":"x"}}"#).into(),
            200,
        ),
        ("a body of lists", embeddings, deep_list.clone().into(), 400),
        ("deep parameters", "/v1/jobs", job("params", &deep_map), 400),
        ("deep metadata", "/v1/jobs", job("metadata", &deep_map), 400),
        (
            "a deep document",
            "/v1/rerank",
            format!(r#"{{"query":"q","documents":[{deep_map}]}}"#).into(),
            400,
        ),
        ("a deep pair", "/predict", format!(r#"{{"inputs":{deep_list}}}"#).into(), 400),
        ("100,000 unknown keys", embeddings, format!(r#"{{{many_keys}"input":"x"}}"#).into(), 200),
        (
            "more metadata than allowed",
            "/v1/jobs",
            job("metadata", &format!("{{{}}}", many_keys.trim_end_matches(','))),
            400,
        ),
        ("one text too many", embeddings, json!({"input": texts(16_385)}).to_string().into(), 400),
        (
            "a list of 5 million",
            embeddings,
            format!(r#"{{"input":[{}1]}}"#, "1,".repeat(5_000_000)).into(),
            400,
        ),
        (
            "a text of 9 MB",
            embeddings,
            json!({"input": "x".repeat(9 << 20)}).to_string().into(),
            413,
        ),
        ("one byte too many", embeddings, vec![b' '; (32 << 20) + 1], 413),
        ("blanks as far as allowed", embeddings, vec![b' '; 32 << 20], 400),
        (
            "a number of a million digits",
            embeddings,
            format!(r#"{{"input":"x","dimensions":1{}}}"#, "0".repeat(1_000_000)).into(),
            400,
        ),
        ("a key of a megabyte", "/v1/jobs", job(&"k".repeat(1 << 20), "1"), 202),
        (
            "a name of a megabyte",
            embeddings,
            json!({"model": "m".repeat(1 << 20), "input": "x"}).to_string().into(),
            404,
        ),
    ]
}

/// Small bodies that are not what is asked for.
fn wrong() -> Vec<Case> {
    let embeddings = "/v1/embeddings";
    let utf16: Vec<u8> = r#"{"input":"x"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        ("an id of a tokenizer", embeddings, br#"{"input":[[9906]]}"#.into(), 400),
        ("half of a surrogate pair", embeddings, br#"{"input":"\ud800"}"#.into(), 400),
        ("bytes that are not UTF-8", embeddings, b"{\"input\":\"\xff\xfe\"}".into(), 400),
        ("UTF-16", embeddings, utf16, 400),
        ("a byte order mark", embeddings, b"\xef\xbb\xbf{\"input\":\"x\"}".into(), 400),
        (
            "gzip",
            embeddings,
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xabV*(-Q\xb2R\xaaP\xaa\x05\0".into(),
            400,
        ),
        ("a form", embeddings, b"input=x&model=m".into(), 400),
        ("a key twice", embeddings, br#"{"input":"x","input":"y"}"#.into(), 400),
        ("another tenant", "/v1/jobs", job("tenant", r#""other""#), 400),
        ("another's channel", "/v1/jobs", job("notify", r#""forebay:access""#), 400),
        ("another's id", "/v1/jobs", job("id", r#""mine""#), 400),
    ]
}

pub(super) async fn run(ground: &mut Ground) {
    let began = Instant::now();
    let mut tally = Tally::default();
    for (name, path, body, expected) in large().into_iter().chain(wrong()) {
        let answer = ground.gateway.post_bytes(path, &body, &[ground.key()]);
        assert_eq!(answer.status, expected, "{name}: {answer:?}");
        assert!(answer.message().len() < 4_096, "{name}: an answer of {}", answer.message().len());
        tally.status(answer.status);
    }
    let disguises = [
        ("content-encoding", "gzip"),
        ("content-encoding", "br"),
        ("content-type", "application/json; charset=utf-16"),
        ("content-type", "text/plain"),
        ("content-type", "multipart/form-data; boundary=x"),
    ];
    for (name, value) in disguises {
        // The bytes count, and these are JSON: what their labels say changes nothing.
        let body = json!({"input": "x"});
        let answer =
            ground.gateway.post_with("/v1/embeddings", &body, &[ground.key(), (name, value)]);
        assert_eq!(answer.status, 200, "{name}: {value}: {answer:?}");
        tally.status(answer.status);
    }
    ground.after("bodies", began, &tally).await;
}
