//! Each mistake in a body has its code, its message, and a head that still finds the publisher.
#![allow(clippy::unwrap_used)]

use forebay_schemas::{ContentType, EmbedParams, ErrorCode, Limits, Refusal, Work, decode_job};
use serde_json::{Value, json};

fn refusal(body: &[u8], content_type: ContentType) -> Refusal {
    decode_job(body, content_type, &Limits::default()).unwrap_err()
}

fn good() -> Value {
    json!({"v": 1, "id": "j1", "model": "m", "task": "embed", "input": "text", "result_ttl_s": 60,
           "metadata": {"k": "v"}, "notify": "channel"})
}

/// The good job with one field changed (or removed, by null); refused equally through both codecs.
fn change(field: &str, value: Value) -> Refusal {
    let mut job = good();
    if value.is_null() {
        job.as_object_mut().unwrap().remove(field);
    } else {
        job[field] = value;
    }
    let json = refusal(&serde_json::to_vec(&job).unwrap(), ContentType::Json);
    let msgpack = refusal(&rmp_serde::to_vec_named(&job).unwrap(), ContentType::Msgpack);
    assert_eq!(json.error.code, msgpack.error.code);
    assert_eq!(json.head, msgpack.head);
    json
}

#[test]
fn parameters_of_sparse_and_token_vectors_are_held_to_their_bounds() {
    let refused = |task: &str, params: Value| {
        let mut job = good();
        job["task"] = json!(task);
        job["params"] = params;
        let json = refusal(&serde_json::to_vec(&job).unwrap(), ContentType::Json);
        let msgpack = refusal(&rmp_serde::to_vec_named(&job).unwrap(), ContentType::Msgpack);
        assert_eq!([json.error.code, msgpack.error.code], [ErrorCode::InvalidRequest; 2]);
        json.error.message
    };
    for (task, params, says) in [
        ("embed_sparse", json!({"top_k": 0}), "`top_k` is 0"),
        ("embed_sparse", json!({"top_k": 1_025}), "at most 1024 values"),
        ("embed_tokens", json!({"input_type": "passage"}), "`passage`: use `document` or `query`"),
        ("embed_tokens", json!({"input_type": "x".repeat(33)}), "longer than 32 characters"),
    ] {
        let message = refused(task, params.clone());
        assert!(message.contains(says), "{params}: {message}");
    }
}

#[test]
fn token_ids_are_sequences_of_numbers_and_stand_in_for_texts_of_one_task_alone() {
    let decoded = |ids: &Value, input: Value, task: &str| {
        let mut job = good();
        job["task"] = json!(task);
        job["input"] = input;
        job["input_ids"] = ids.clone();
        let packed = rmp_serde::to_vec_named(&job).unwrap();
        let json = decode_job(job.to_string().as_bytes(), ContentType::Json, &Limits::default());
        let msgpack = decode_job(&packed, ContentType::Msgpack, &Limits::default());
        let words = |refusal: Refusal| refusal.error.message;
        (json.map(|job| job.work).map_err(words), msgpack.map(|job| job.work).map_err(words))
    };
    for (ids, sequences) in [
        (json!([[101, 102], [7]]), vec![vec![101, 102], vec![7]]),
        (json!([101, 102.0]), vec![vec![101, 102]]),
    ] {
        let work = Work::EmbedIds { input_ids: sequences, params: EmbedParams::default() };
        assert_eq!(decoded(&ids, json!(null), "embed"), (Ok(work.clone()), Ok(work)), "{ids}");
    }
    for (ids, says) in [
        (json!([]), "`input_ids` is empty"),
        (json!([[101], []]), "`input_ids[1]` is empty"),
        (json!([[101], 7]), "`input_ids[1]` must be a list of token ids, not the number 7"),
        (json!([7, [101]]), "`input_ids` must be token ids, whole numbers below 2^32, not a list"),
        (json!([[1, -1]]), "`input_ids[0]` must be token ids, whole numbers below 2^32"),
        (json!([[0.5]]), "`input_ids[0]` must be token ids"),
        (json!([["x"]]), "`input_ids[0]` must be token ids"),
        (json!(["x"]), "`input_ids[0]` must be a list of token ids"),
        (json!([null]), "`input_ids[0]` must be a list of token ids, not null"),
        (json!("x"), "`input_ids` must be a list of lists of token ids"),
        (json!(7), "`input_ids` must be a list of lists of token ids"),
        (json!({}), "`input_ids` must be a list of lists of token ids"),
        (json!(null), "`input` is missing"),
    ] {
        let (json, msgpack) = decoded(&ids, json!(null), "embed");
        for message in [json.unwrap_err(), msgpack.unwrap_err()] {
            assert!(message.contains(says), "{ids}: {message}");
        }
    }
    let both = decoded(&json!([[1]]), json!("x"), "embed").0.unwrap_err();
    assert_eq!(both, "`input` and `input_ids` are both there: send one");
    let other = decoded(&json!([[1]]), json!(null), "classify").0.unwrap_err();
    assert_eq!(other, "task `classify` takes no `input_ids`: send `input`");
    assert!(decoded(&json!([[1]]), json!("x"), "classify").0.is_ok(), "an unknown field there");
}

#[test]
fn each_mistake_has_its_code_and_names_the_field() {
    use ErrorCode::{InvalidRequest, TaskNotSupported, UnsupportedVersion};
    let many = vec!["x"; 3_000];
    for (field, value, code, says) in [
        ("v", json!(2), UnsupportedVersion, "version 2"),
        ("v", json!(null), InvalidRequest, "`v` is missing"),
        ("v", json!("1"), InvalidRequest, "`v` must be the number 1, not the text \"1\""),
        ("v", json!(true), InvalidRequest, "not true"),
        (
            "submitted_at_ms",
            json!(-1),
            InvalidRequest,
            "must be a whole number from 0 up, not the number -1",
        ),
        ("submitted_at_ms", json!(1_795_900_000), InvalidRequest, "looks like seconds"),
        ("submitted_at_ms", json!(1_795_900_000_000_000_000_u64), InvalidRequest, "nanoseconds"),
        ("result_ttl_s", json!(1.5), InvalidRequest, "`result_ttl_s` must be a whole number"),
        ("id", json!(null), InvalidRequest, "`id` is missing"),
        ("id", json!("a b"), InvalidRequest, "`a b` is not a job id"),
        ("id", json!("x".repeat(65)), InvalidRequest, "`id` is longer than 64"),
        ("model", json!("Über"), InvalidRequest, "is not a model id"),
        ("model", json!(7), InvalidRequest, "`model`"),
        ("task", json!("paint"), TaskNotSupported, "unknown task `paint`"),
        ("task", json!(null), InvalidRequest, "`task` is missing"),
        ("input", json!(null), InvalidRequest, "`input` is missing"),
        ("input", json!([]), InvalidRequest, "`input` is empty"),
        ("input", json!(many), InvalidRequest, "2048"),
        ("input", json!(["a", 1]), InvalidRequest, "`input[1]` must be a string, not the number 1"),
        ("input", json!(5), InvalidRequest, "`input` must be a string, a list of strings or a map"),
        ("input", json!({"query": "q"}), InvalidRequest, "a string or a list of strings"),
        ("params", json!({"dimensions": 0}), InvalidRequest, "`dimensions` is 0"),
        (
            "params",
            json!({"normalize": "yes"}),
            InvalidRequest,
            "`normalize` must be true or false",
        ),
        ("params", json!({"dimensions": 1_u64 << 32}), InvalidRequest, "`dimensions` must be"),
        ("params", json!([1]), InvalidRequest, "`params` must be a map, not a list"),
        ("result_ttl_s", json!(0), InvalidRequest, "`result_ttl_s` is 0"),
        ("tenant", json!("t".repeat(129)), InvalidRequest, "`tenant`"),
        ("notify", json!(""), InvalidRequest, "`notify`"),
        (
            "metadata",
            json!({"k": 1}),
            InvalidRequest,
            "`metadata.k` must be a string, not the number 1",
        ),
        ("metadata", json!({"k".repeat(65): ""}), InvalidRequest, "`metadata` key"),
    ] {
        let refusal = change(field, value.clone());
        let message = &refusal.error.message;
        assert_eq!(refusal.error.code, code, "{field}: {message}");
        assert!(message.contains(says), "{field} = {value}: {message}");
    }
}

#[test]
fn what_can_be_read_is_kept_for_the_answer() {
    let head = change("input", json!(3)).head;
    assert_eq!(head.id.unwrap().as_str(), "j1");
    assert_eq!(head.model.unwrap(), "m");
    assert_eq!(head.task.unwrap(), "embed");
    assert_eq!(head.result_ttl_s, Some(60));
    assert_eq!(head.notify.unwrap(), "channel");
    assert_eq!(head.metadata["k"], "v");
}

#[test]
fn the_version_is_at_fault_even_when_the_shape_changed_with_it() {
    let body = json!({"input": [[1, 2]], "params": 7, "v": 9, "id": "later", "model": ["m"]});
    let refusal = refusal(&serde_json::to_vec(&body).unwrap(), ContentType::Json);
    assert_eq!(refusal.error.code, ErrorCode::UnsupportedVersion);
    assert_eq!(refusal.head.id.unwrap().as_str(), "later");
}

#[test]
fn a_body_that_breaks_off_keeps_the_id_that_came_before() {
    let mut body = rmp_serde::to_vec_named(&good()).unwrap();
    body.truncate(body.len() - 3);
    let refusal = refusal(&body, ContentType::Msgpack);
    assert_eq!(refusal.error.code, ErrorCode::InvalidRequest);
    assert_eq!(refusal.head.id.unwrap().as_str(), "j1");
}

#[test]
fn a_body_over_the_limit_is_not_read_at_all() {
    let limits = Limits { body_bytes_max: 100, ..Limits::default() };
    let refusal = decode_job(&[b' '; 101], ContentType::Json, &limits).unwrap_err();
    assert_eq!(refusal.error.code, ErrorCode::PayloadTooLarge);
    assert!(refusal.error.message.contains("101"));
}

#[test]
fn a_field_that_stands_twice_is_refused() {
    let body = br#"{"v":1,"v":1,"id":"j","model":"m","task":"embed","input":"x"}"#;
    assert!(refusal(body, ContentType::Json).error.message.contains("twice"));
}

#[test]
fn a_list_that_announces_more_than_allowed_is_refused_before_it_is_read() {
    // {"v":1,"input": <array of 2^32-1 elements>
    let body = b"\x82\xa1v\x01\xa5input\xdd\xff\xff\xff\xff";
    let refusal = refusal(body, ContentType::Msgpack);
    assert!(refusal.error.message.contains("more than 2048"), "{}", refusal.error.message);
}

#[test]
fn a_thousand_levels_are_refused_without_recursion() {
    for (open, content_type) in
        [(&b"{\"x\":"[..], ContentType::Json), (b"\x81\xa1x", ContentType::Msgpack)]
    {
        let refusal = refusal(&open.repeat(100_000), content_type);
        assert!(refusal.error.message.contains("32 levels"), "{}", refusal.error.message);
    }
}

#[test]
fn unknown_fields_and_nulls_are_passed_over() {
    let mut job = good();
    job["later"] = json!({"a": [1, {"b": 2}]});
    for field in ["tenant", "submitted_at_ms", "expires_in_ms", "params"] {
        job[field] = Value::Null;
    }
    for (body, content_type) in [
        (serde_json::to_vec(&job).unwrap(), ContentType::Json),
        (rmp_serde::to_vec_named(&job).unwrap(), ContentType::Msgpack),
    ] {
        let job = decode_job(&body, content_type, &Limits::default()).unwrap();
        assert_eq!(job.work.inputs(), 1);
    }
}

#[test]
fn a_refusal_never_repeats_a_whole_body() {
    let long = "x".repeat(1 << 20);
    for (field, value) in [
        ("params", json!(long)),
        ("task", json!(long)),
        ("metadata", json!(long)),
        ("input", json!({long.clone(): long})),
    ] {
        let message = change(field, value).error.message;
        assert!(message.chars().count() <= 600, "{field}: {} bytes", message.len());
    }
    let message = change("params", json!(long)).error.message;
    assert!(message.contains("must be a map"), "the remedy is lost: {message}");
}

#[test]
fn a_generation_s_maps_are_held_to_their_shapes() {
    let decoded = |input: &Value, params: &Value| {
        let mut job = good();
        job["task"] = json!("generate");
        job["input"] = input.clone();
        job["params"] = params.clone();
        let packed = rmp_serde::to_vec_named(&job).unwrap();
        let json = decode_job(job.to_string().as_bytes(), ContentType::Json, &Limits::default());
        let msgpack = decode_job(&packed, ContentType::Msgpack, &Limits::default());
        [json, msgpack].map(|job| job.map_err(|refusal| refusal.error.message))
    };
    let prompt = json!({"prompt": "p"});
    for (params, says) in [
        (json!({"response_format": {}}), "a map with one of `json_schema`, `regex` and `choice`"),
        (json!({"response_format": {"regex": "a", "choice": ["b"]}}), "and no more of them"),
        (json!({"response_format": "json"}), "a map with one of"),
        (json!({"response_format": {"json_schema": [1]}}), "`json_schema` must be a map"),
        (json!({"response_format": {"choice": []}}), "`choice` is empty"),
        (json!({"response_format": {"choice": [""]}}), "each `choice` must have 1 to"),
        (json!({"response_format": {"regex": ""}}), "`regex` must have 1 to"),
        (json!({"logit_bias": {"x": 1}}), "`logit_bias` must be a map of token ids to numbers"),
        (json!({"logit_bias": {"-1": 1}}), "a map of token ids"),
        (json!({"logit_bias": [1]}), "a map of token ids to numbers, not a list"),
        (json!({"logit_bias": {"7": "x"}}), "`logit_bias` must be a number"),
        (json!({"stop_token_ids": [-1]}), "token ids, whole numbers below 2^32"),
        (json!({"tools": ["x"]}), "each of `tools` must be a map"),
        (json!({"tools": {}}), "`tools` must be a list"),
        (json!({"n": 0}), "`n` is 0"),
    ] {
        for message in decoded(&prompt, &params) {
            let message = message.expect_err(says);
            assert!(message.contains(says), "{params}: {message}");
        }
    }
    for (message, says) in [
        (json!({"role": "assistant", "content": null}), "has no `content`"),
        (
            json!({"role": "assistant", "tool_calls": [{"id": "c"}]}),
            "`tool_calls[0]` has no `name`",
        ),
        (json!({"role": "assistant", "tool_calls": [7]}), "`tool_calls[0]` must be a map"),
        (json!({"role": "tool", "content": "", "name": 7}), "`name` must be a string"),
    ] {
        for refused in decoded(&json!({"messages": [message]}), &json!({})) {
            let refused = refused.expect_err(says);
            assert!(refused.contains(says), "{message}: {refused}");
        }
    }
    let call = json!({"id": "c", "name": "f", "arguments": "{}"});
    let turn = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    for job in decoded(&json!({"messages": [turn]}), &json!({"n": 1, "logit_bias": []})) {
        assert_eq!(job.unwrap().work.texts(), [""]);
    }
}
