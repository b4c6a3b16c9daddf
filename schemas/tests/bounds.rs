//! Every bound of a job holds at its last value and is refused at the next one, through both codecs.
#![allow(clippy::unwrap_used)]

use forebay_schemas::{ContentType, ErrorCode, Job, Limits, Refusal, decode_job};
use serde_json::{Map, Value, json};

/// Fields as JSON, for a text of `n` characters or a list or map of `n` elements.
type Make = fn(usize) -> Value;

/// Two bytes a character: bounds count characters.
fn text(chars: usize) -> String {
    "é".repeat(chars)
}

fn texts(count: usize) -> Vec<String> {
    vec!["x".to_owned(); count]
}

fn rerank(documents: usize) -> Value {
    json!({"task": "rerank", "input": {"query": "q", "documents": texts(documents)}})
}

fn ids(ids: &impl serde::Serialize) -> Value {
    json!({"input": null, "input_ids": ids})
}

fn generate(params: &Value) -> Value {
    json!({"task": "generate", "input": {"prompt": "p"}, "params": params})
}

fn guided(by: &str, guide: &Value) -> Value {
    generate(&json!({"response_format": {by: guide}}))
}

fn biases(count: usize) -> Map<String, Value> {
    (0..count).map(|id| (id.to_string(), json!(0.5))).collect()
}

fn messages(count: usize) -> Value {
    let all = vec![json!({"role": "user", "content": "x"}); count];
    json!({"task": "generate", "input": {"messages": all}})
}

fn pairs(count: usize) -> Value {
    let all: Map<String, Value> = (0..count).map(|n| (format!("k{n}"), "v".into())).collect();
    json!({"metadata": all})
}

/// The bounds: how to make fields of a size, the last size that is allowed, and the refusal's words for the next.
const BOUNDS: &[(Make, usize, &str)] = &[
    (|n| json!({"id": "j".repeat(n)}), 64, "`id` is longer than 64 characters"),
    (|n| json!({"model": "m".repeat(n)}), 63, "`model` is longer than 63 characters"),
    (|n| json!({"tenant": text(n)}), 128, "`tenant` is longer than 128 characters"),
    (|n| json!({"notify": text(n)}), 256, "`notify` is longer than 256 characters"),
    (|n| json!({"input": texts(n)}), 2_048, "`input` has more than 2048 elements"),
    (|n| ids(&vec![[7]; n]), 2_048, "`input_ids` has more than 2048 elements"),
    (|n| ids(&[vec![7; n]]), 1 << 20, "`input_ids` has more than 1048576 token ids"),
    (|n| ids(&vec![7; n]), 1 << 20, "`input_ids` has more than 1048576 token ids"),
    (|n| ids(&[[n]]), 4_294_967_295, "token ids, whole numbers below 2^32"),
    (rerank, 2_048, "`documents` has more than 2048 elements"),
    (messages, 2_048, "`messages` has more than 2048 elements"),
    (pairs, 16, "`metadata` has more than 16 pairs"),
    (|n| json!({"metadata": {text(n): "v"}}), 64, "a `metadata` key is longer than 64 characters"),
    (|n| json!({"metadata": {"k": text(n)}}), 512, "`metadata.k` is longer than 512 characters"),
    (|n| generate(&json!({"stop": texts(n)})), 16, "`stop` has more than 16 elements"),
    (|n| generate(&json!({"stop": [text(n)]})), 256, "`stop[0]` is longer than 256 characters"),
    (|n| generate(&json!({"stop": text(n)})), 256, "`stop` is longer than 256 characters"),
    (
        |n| generate(&json!({"stop_token_ids": vec![7; n]})),
        256,
        "`stop_token_ids` has more than 256",
    ),
    (|n| generate(&json!({"stop_token_ids": [n]})), 4_294_967_295, "whole numbers below 2^32"),
    (
        |n| generate(&json!({"logit_bias": biases(n)})),
        1_024,
        "`logit_bias` has more than 1024 pairs",
    ),
    (|n| generate(&json!({"logit_bias": {"7": n}})), 100, "`logit_bias.7` is 101: use -100 to 100"),
    (|n| generate(&json!({"logprobs": n})), 20, "`logprobs` is 21: use at most 20"),
    (|n| generate(&json!({"n": n})), 1, "`n` is 2: a job has one output"),
    (
        |n| generate(&json!({"max_tokens": 8, "min_tokens": n})),
        8,
        "`min_tokens` is 9, more than `max_tokens`, which is 8",
    ),
    (
        |n| generate(&json!({"tools": vec![json!({}); n]})),
        128,
        "`tools` has more than 128 elements",
    ),
    (
        |n| generate(&json!({"tools": [{"x": vec![0; n]}]})),
        65_534,
        "`tools` has more than 65536 values",
    ),
    (|n| guided("choice", &json!(texts(n))), 1_024, "`choice` has more than 1024 elements"),
    (|n| guided("choice", &json!([text(n)])), 8_192, "`choice[0]` is longer than 8192 characters"),
    (|n| guided("regex", &json!(text(n))), 8_192, "`regex` is longer than 8192 characters"),
    (
        |n| guided("json_schema", &json!({"enum": vec![0; n]})),
        65_534,
        "`json_schema` has more than 65536 values",
    ),
    (|n| json!({"result_ttl_s": n}), 2_592_000, "`result_ttl_s` is 2592001"),
    (|n| json!({"submitted_at_ms": n}), 99_999_999_999_999, "micro- or nanoseconds"),
    (|n| json!({"params": {"dimensions": n}}), 4_294_967_295, "a whole number below 2^32"),
    (
        |n| json!({"task": "embed_sparse", "params": {"top_k": n}}),
        1_024,
        "`top_k` is 1025: a sparse vector has at most 1024 values",
    ),
];

fn job(fields: &Value) -> Value {
    let mut job = json!({"v": 1, "id": "j", "model": "m", "task": "embed", "input": "x"});
    for (field, value) in fields.as_object().unwrap() {
        job[field] = value.clone();
    }
    job
}

fn decode(fields: &Value) -> [Result<Job, Refusal>; 2] {
    let job = job(fields);
    let limits = Limits::default();
    let packed = rmp_serde::to_vec_named(&job).unwrap();
    [
        decode_job(&serde_json::to_vec(&job).unwrap(), ContentType::Json, &limits),
        decode_job(&packed, ContentType::Msgpack, &limits),
    ]
}

#[test]
fn each_bound_holds_at_its_last_value_and_is_refused_at_the_next() {
    for (make, last, says) in BOUNDS {
        for job in decode(&make(*last)) {
            job.unwrap_or_else(|refusal| panic!("{says}: at {last}: {refusal}")).id.as_str();
        }
        for job in decode(&make(last + 1)) {
            let refusal = job.expect_err(says);
            assert_eq!(refusal.error.code, ErrorCode::InvalidRequest);
            assert!(refusal.error.message.contains(says), "{says}: {refusal}");
        }
    }
}

#[test]
fn each_lower_bound_holds_at_its_first_value_and_is_refused_below() {
    let lower: &[(Make, usize, &str)] = &[
        (|n| json!({"input": texts(n)}), 1, "`input` is empty"),
        (rerank, 1, "`documents` is empty"),
        (messages, 1, "`messages` is empty"),
        (|n| json!({"notify": text(n)}), 1, "`notify` must have 1 to 256 characters"),
        (|n| json!({"result_ttl_s": n}), 1, "`result_ttl_s` is 0"),
        (|n| json!({"submitted_at_ms": n}), 100_000_000_000, "looks like seconds"),
        (|n| json!({"params": {"dimensions": n}}), 1, "`dimensions` is 0"),
        (|n| json!({"task": "embed_sparse", "params": {"top_k": n}}), 1, "`top_k` is 0"),
        (|n| generate(&json!({"max_tokens": n})), 1, "`max_tokens` is 0"),
        (|n| generate(&json!({"top_k": n})), 1, "`top_k` is 0"),
        (|n| generate(&json!({"stop": [text(n)]})), 1, "each `stop` must have 1 to 256 characters"),
        (
            |n| {
                let input = json!({"query": "q", "documents": ["d"]});
                json!({"task": "rerank", "input": input, "params": {"top_n": n}})
            },
            1,
            "`top_n` is 0",
        ),
    ];
    for (make, first, says) in lower {
        for job in decode(&make(*first)) {
            job.unwrap_or_else(|refusal| panic!("{says}: at {first}: {refusal}"));
        }
        for job in decode(&make(first - 1)) {
            let refusal = job.expect_err(says);
            assert!(refusal.error.message.contains(says), "{says}: {refusal}");
        }
    }
}

#[test]
fn numbers_of_sampling_are_held_to_their_ranges() {
    for (param, right, wrong) in [
        ("temperature", [0.0, 2.0], [-0.1, 2.1]),
        ("top_p", [0.1, 1.0], [0.0, 1.1]),
        ("min_p", [0.0, 1.0], [-0.1, 1.1]),
        ("presence_penalty", [-2.0, 2.0], [-2.1, 2.1]),
        ("frequency_penalty", [-2.0, 2.0], [-2.1, 2.1]),
        ("repetition_penalty", [0.1, 2.0], [0.0, 2.1]),
    ] {
        for value in right {
            for job in decode(&generate(&json!({param: value}))) {
                assert!(job.is_ok(), "{param} {value}");
            }
        }
        for value in wrong {
            for job in decode(&generate(&json!({param: value}))) {
                let message = job.unwrap_err().error.message;
                assert!(message.contains(&format!("`{param}` is {value}")), "{message}");
            }
        }
    }
}

#[test]
fn a_body_and_its_depth_are_held_to_the_fleet_s_limits() {
    let body = serde_json::to_vec(&job(&json!({"deep": [[[1]]]}))).unwrap();
    let with = |limits: &Limits| decode_job(&body, ContentType::Json, limits);
    let exact = Limits { body_bytes_max: body.len(), depth_max: 4, ..Limits::default() };
    with(&exact).unwrap();
    let shorter = with(&Limits { body_bytes_max: body.len() - 1, ..exact.clone() }).unwrap_err();
    assert_eq!(shorter.error.code, ErrorCode::PayloadTooLarge);
    let flatter = with(&Limits { depth_max: 3, ..exact }).unwrap_err();
    assert!(flatter.error.message.contains("nests deeper than 3 levels"), "{flatter}");
}

#[test]
fn what_a_refused_body_names_is_kept_within_the_same_bounds() {
    let kept = |fields: Value| {
        let mut fields = fields;
        fields["input"] = json!(7);
        decode(&fields).map(|job| job.unwrap_err().head)
    };
    for [json, msgpack] in [
        kept(
            json!({"notify": text(256), "result_ttl_s": 2_592_000, "metadata": {text(64): text(512)}}),
        ),
        kept(json!({"notify": text(1), "result_ttl_s": 1, "metadata": {"k": "v"}})),
    ] {
        assert_eq!(json, msgpack);
        assert!(json.notify.is_some() && json.result_ttl_s.is_some() && json.metadata.len() == 1);
    }
    for [json, msgpack] in [
        kept(json!({"notify": text(257), "result_ttl_s": 2_592_001, "metadata": {text(65): "v"}})),
        kept(json!({"notify": "", "result_ttl_s": 0, "metadata": {"k": text(513)}})),
    ] {
        assert_eq!(json, msgpack);
        assert!(json.notify.is_none() && json.result_ttl_s.is_none() && json.metadata.is_empty());
    }
    for partly in [pairs(17), json!({"metadata": {"k": "v", "user_id": 42}})] {
        let [json, msgpack] = kept(partly);
        assert!(json.metadata.is_empty() && msgpack.metadata.is_empty(), "half of it is returned");
    }
}
