//! Messages that publishers of other languages send by the habits of their libraries: read wherever they have one
//! meaning, and refused by words that name the mistake where they have none.
#![allow(clippy::unwrap_used)]

use forebay_schemas::{ContentType, Job, Limits, Refusal, decode_job};
use proptest::prelude::*;
use rmpv::Value;
use serde_json::json;

fn decode(body: &[u8], content_type: ContentType) -> Result<Job, Refusal> {
    decode_job(body, content_type, &Limits::default())
}

fn packed(pairs: Vec<(Value, Value)>) -> Vec<u8> {
    let mut body = Vec::new();
    rmpv::encode::write_value(&mut body, &Value::Map(pairs)).unwrap();
    body
}

/// The pairs of a good job.
fn pairs() -> Vec<(Value, Value)> {
    [
        ("v", 1.into()),
        ("id", "j1".into()),
        ("model", "m".into()),
        ("task", "embed".into()),
        ("input", "text".into()),
    ]
    .map(|(name, value): (&str, Value)| (name.into(), value))
    .into()
}

/// The good job with one more pair, or another value for one.
fn with(key: impl Into<Value>, value: impl Into<Value>) -> Vec<(Value, Value)> {
    let key = key.into();
    let value = value.into();
    let mut all = pairs();
    all.retain(|(name, _)| *name != key);
    all.push((key, value));
    all
}

fn read(pairs: Vec<(Value, Value)>) -> Job {
    decode(&packed(pairs), ContentType::Msgpack).unwrap()
}

fn refused(pairs: Vec<(Value, Value)>) -> Refusal {
    decode(&packed(pairs), ContentType::Msgpack).unwrap_err()
}

#[test]
fn whole_floats_are_whole_numbers() {
    for number in [1.0_f64, 60_000.0] {
        assert_eq!(read(with("expires_in_ms", number)).expires_in_ms, Some(number as u64));
    }
    assert_eq!(read(with("v", 1.0_f64)).work.inputs(), 1);
    let body = br#"{"v":1e0,"id":"j1","model":"m","task":"embed","input":"x","submitted_at_ms":1.7328e+12}"#;
    assert_eq!(decode(body, ContentType::Json).unwrap().submitted_at_ms, Some(1_732_800_000_000));
    let refusal = refused(with("expires_in_ms", 0.5_f64));
    assert!(
        refusal.error.message.contains("whole number from 0 up, not the number 0.5"),
        "{refusal}"
    );
}

#[test]
fn bytes_that_are_utf_8_are_text_in_keys_and_values() {
    let bytes = |text: &str| Value::Binary(text.as_bytes().to_vec());
    let all: Vec<_> = [("id", "j1"), ("model", "m"), ("task", "embed"), ("input", "text")]
        .map(|(name, value)| (bytes(name), bytes(value)))
        .into_iter()
        .chain([(bytes("v"), 1.into())])
        .collect();
    assert_eq!(read(all).id.as_str(), "j1");
    let refusal = refused(with("input", Value::Array(vec![Value::Binary(vec![0xff, 0xfe])])));
    assert!(
        refusal.error.message.contains("`input[0]` must be a string, not 2 bytes"),
        "{refusal}"
    );
}

#[test]
fn an_empty_list_is_an_empty_map() {
    for field in ["params", "metadata"] {
        assert!(read(with(field, Value::Array(vec![]))).metadata.is_empty());
        let body =
            json!({"v": 1, "id": "j1", "model": "m", "task": "embed", "input": "x", field: []});
        decode(&serde_json::to_vec(&body).unwrap(), ContentType::Json).unwrap();
    }
}

#[test]
fn keys_that_are_no_text_name_no_field() {
    let numbered = [1.into(), "j1".into(), "m".into(), "embed".into(), "text".into()];
    let numbered = numbered.into_iter().enumerate().map(|(at, value)| (at.into(), value)).collect();
    assert_eq!(refused(numbered).head.id, None);
    let extension = Value::Ext(5, vec![1, 2]);
    for key in
        [1.into(), Value::Nil, true.into(), 1.5.into(), Value::Array(vec![1.into()]), extension]
    {
        let mut all = pairs();
        all.insert(0, (key.clone(), "remark".into()));
        assert_eq!(read(all).id.as_str(), "j1", "{key}");
    }
    // A key that is a position in `params` or `metadata` is unknown too.
    let params = Value::Map(vec![(0.into(), false.into())]);
    assert_eq!(read(with("params", params.clone())).work, read(pairs()).work);
    assert!(read(with("metadata", params)).metadata.is_empty());
}

#[test]
fn null_undefined_and_absent_are_one() {
    let undefined = || Value::Ext(0, vec![0]);
    for field in [
        "params",
        "tenant",
        "submitted_at_ms",
        "expires_in_ms",
        "result_ttl_s",
        "notify",
        "metadata",
    ] {
        for nothing in [Value::Nil, undefined()] {
            assert_eq!(read(with(field, nothing)), read(pairs()), "{field}");
        }
    }
    for (field, nothing) in [("id", Value::Nil), ("input", undefined())] {
        let refusal = refused(with(field, nothing));
        assert!(refusal.error.message.contains(&format!("`{field}` is missing")), "{refusal}");
    }
    let metadata = Value::Map(vec![("a".into(), Value::Nil), ("b".into(), "kept".into())]);
    assert_eq!(
        read(with("metadata", metadata)).metadata.into_iter().collect::<Vec<_>>(),
        [("b".into(), "kept".into())]
    );
}

#[test]
fn a_null_list_is_absent_and_not_empty() {
    let rerank = json!({"query": "q", "documents": ["d"], "prompt": null, "messages": null});
    let generate = json!({"prompt": "p", "messages": null, "documents": null});
    for (task, input) in [("rerank", rerank), ("generate", generate)] {
        let job = json!({"v": 1, "id": "j", "model": "m", "task": task, "input": input});
        let limits = Limits::default();
        let body = serde_json::to_vec(&job).unwrap();
        decode_job(&body, ContentType::Json, &limits).unwrap();
        let body = rmp_serde::to_vec_named(&job).unwrap();
        decode_job(&body, ContentType::Msgpack, &limits).unwrap();
    }
}

#[test]
fn a_field_that_is_there_twice_is_named_wherever_it_stands() {
    for (field, value, says) in [
        ("params", r#"{"normalize": true, "normalize": false}"#, "`normalize` is there twice"),
        ("metadata", r#"{"k": "a", "k": "b"}"#, "`metadata.k` is there twice"),
        ("input", r#"{"documents": ["a"], "documents": ["b"]}"#, "`documents` is there twice"),
        ("input", r#"{"messages": [{"role": "a", "role": "b"}]}"#, "`role` is there twice"),
        ("v", "1, \"v\": 1", "`v` is there twice"),
    ] {
        let body = format!(r#"{{"id": "j", "model": "m", "task": "embed", "{field}": {value}}}"#);
        let refusal = decode(body.as_bytes(), ContentType::Json).unwrap_err();
        assert!(refusal.error.message.contains(says), "{body}: {refusal}");
    }
}

#[test]
fn zero_times_of_languages_without_null_are_absent() {
    let job = read(with("submitted_at_ms", 0));
    assert_eq!(job.submitted_at_ms, None);
    assert_eq!(read(with("expires_in_ms", 0)).expires_in_ms, None);
}

/// Python writes half of a surrogate pair for a name of a file that is no text.
#[test]
fn a_value_that_can_t_be_read_hides_no_other_field_wherever_it_stands() {
    let head = [r#""v":1"#, r#""id":"j1""#, r#""model":"m""#, r#""task":"embed""#].join(",");
    for field in ["remark", "tenant", "input", "notify", "metadata"] {
        for value in [r#""\ud800""#, "1e999", r#"["\udc00"]"#, r#"{"a":"\ud800"}"#] {
            let odd = format!(r#""{field}":{value}"#);
            for body in [format!("{{{head},{odd}}}"), format!("{{{odd},{head}}}")] {
                let refusal = decode(body.as_bytes(), ContentType::Json).unwrap_err();
                assert_eq!(refusal.head.id.unwrap().as_str(), "j1", "{body}");
                assert_eq!(refusal.head.task.as_deref(), Some("embed"), "{body}");
            }
        }
    }
}

#[test]
fn a_value_of_an_extension_type_is_named_wherever_it_stands() {
    for field in ["submitted_at_ms", "id", "model", "input", "params", "metadata", "notify"] {
        for value in [Value::Ext(-1, vec![1, 2, 3, 4]), Value::Ext(7, vec![0])] {
            let what =
                if value == Value::Ext(7, vec![0]) { "extension of type 7" } else { "timestamp" };
            let refusal = refused(with(field, value));
            assert!(refusal.error.message.contains(what), "{refusal}");
            assert!(refusal.error.message.contains(&format!("`{field}` must be")), "{refusal}");
            assert_eq!(refusal.head.id.is_some(), field != "id");
        }
    }
    assert_eq!(read(with("unknown", Value::Ext(-1, vec![1, 2, 3, 4]))).id.as_str(), "j1");
}

#[test]
fn an_id_of_sixteen_bytes_is_answered_at_its_text() {
    let id = *b"\x01\x92\xf0\xc1\x7d\x3e\x70\x00\x80\x00\x00\x00\x00\x00\xe0\x01";
    let refusal = refused(with("id", Value::Binary(id.into())));
    assert!(refusal.error.message.contains("`id` must be a string, not 16 bytes"), "{refusal}");
    assert!(refusal.error.message.contains("send its text"), "{refusal}");
    assert_eq!(refusal.head.id.unwrap().as_str(), "0192f0c1-7d3e-7000-8000-00000000e001");
}

#[test]
fn a_body_of_another_kind_is_called_by_its_kind() {
    let json = br#"{"v":1,"id":"j1","model":"m","task":"embed","input":"x"}"#;
    let msgpack = packed(pairs());
    let list = rmp_serde::to_vec(&(1, "j1", "m")).unwrap();
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00";
    let celery =
        br#"[[1, 2], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#;
    for (body, content_type, says) in [
        (&json[..], ContentType::Msgpack, "looks like JSON"),
        (&msgpack, ContentType::Json, "looks like msgpack"),
        (b"", ContentType::Msgpack, "the body is empty"),
        (b" \n", ContentType::Json, "the body is empty"),
        (b"hello", ContentType::Json, "neither a JSON nor a msgpack map"),
        (b"\x00", ContentType::Msgpack, "neither a JSON nor a msgpack map"),
        (&list, ContentType::Msgpack, "to_vec_named"),
        (b"[1, 2]", ContentType::Json, "the body is a list"),
        (celery, ContentType::Json, "a Celery task"),
        (gzip, ContentType::Json, "looks like gzip"),
    ] {
        let refusal = decode(body, content_type).unwrap_err();
        assert!(refusal.error.message.contains(says), "{refusal}");
    }
    // Found at the id in the body, whatever the body was declared to be.
    for (body, content_type) in [(&json[..], ContentType::Msgpack), (&msgpack, ContentType::Json)] {
        assert_eq!(decode(body, content_type).unwrap_err().head.id.unwrap().as_str(), "j1");
    }
}

#[test]
fn names_in_capitals_are_pointed_out() {
    let go = r#"{"V":1,"ID":"j1","Model":"m","Task":"embed","Input":"x"}"#;
    let refusal = decode(go.as_bytes(), ContentType::Json).unwrap_err();
    assert!(
        refusal.error.message.contains("`v` is missing: every job has one (there is a `V`"),
        "{refusal}"
    );
}

#[test]
fn two_different_ids_are_none() {
    let mut all = pairs();
    all.push(("id".into(), "j2".into()));
    assert_eq!(refused(all.clone()).head.id, None);
    all.swap(1, 5);
    assert_eq!(refused(all).head.id, None);
}

#[test]
fn a_body_that_nests_too_deep_is_answered_at_its_id_wherever_that_stands() {
    for (levels, found) in [(33, true), (100, true), (10_000, false)] {
        let json = [b"[".repeat(levels), b"]".repeat(levels)].concat();
        let msgpack = [b"\x91".repeat(levels - 1), b"\x90".to_vec()].concat();
        let json = [&b"{\"deep\":"[..], &json, b",\"id\":\"j1\"}"].concat();
        let msgpack = [&b"\x82\xa4deep"[..], &msgpack, b"\xa2id\xa2j1"].concat();
        for (body, content_type) in [(json, ContentType::Json), (msgpack, ContentType::Msgpack)] {
            let refusal = decode(&body, content_type).unwrap_err();
            assert!(refusal.error.message.contains("deeper than 32 levels"), "{refusal}");
            assert_eq!(refusal.head.id.is_some(), found, "{levels} {content_type}");
        }
    }
}

/// Values of every type that msgpack has.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z1 ]{0,6}".prop_map(Value::from),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Binary),
        (any::<i8>(), proptest::collection::vec(any::<u8>(), 0..5))
            .prop_map(|(kind, data)| Value::Ext(kind, data)),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
        ]
    })
}

/// Values of JSON, right and wrong ones for each field.
const JSON_VALUE: &str = "0|[1-9][0-9]{0,2}|null|true|\\[\\]|\\{\\}|\"[a-z:]{0,4}\"|1\\.0";

proptest! {
    #[test]
    fn whether_and_where_a_job_is_answered_never_depends_on_the_order_of_its_keys(
        changed in proptest::collection::vec((0_usize..11, any_value()), 0..4),
        strange in proptest::option::of((any_value(), any_value())),
        order in Just((0..16).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        const FIELDS: [&str; 11] = ["v", "id", "model", "task", "input", "params", "metadata", "notify", "tenant",
            "submitted_at_ms", "result_ttl_s"];
        let mut all = pairs();
        for (field, value) in changed {
            all.retain(|(name, _)| *name != Value::from(FIELDS[field]));
            all.push((FIELDS[field].into(), value));
        }
        // Not a second spelling of a field: which of two counts would be a matter of taste.
        all.extend(strange.filter(|(key, _)| !matches!(key, Value::String(_) | Value::Binary(_))));
        let mut shuffled = Vec::new();
        for at in order {
            shuffled.extend(all.get(at).cloned());
        }
        let answered = |pairs| match decode(&packed(pairs), ContentType::Msgpack) {
            Ok(job) => (true, Some(job.id), Some(job.metadata)),
            Err(refusal) => (false, refusal.head.id, None),
        };
        prop_assert_eq!(answered(all), answered(shuffled));
    }

    #[test]
    fn nor_does_it_in_json(
        changed in proptest::collection::vec((0_usize..8, JSON_VALUE), 0..4),
        order in Just((0..12).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        const FIELDS: [&str; 8] = ["v", "id", "model", "task", "input", "params", "metadata", "notify"];
        let mut all: Vec<(&str, String)> = [("v", "1"), ("id", "\"j1\""), ("model", "\"m\""), ("task", "\"embed\""),
            ("input", "[]")].map(|(name, value)| (name, value.to_owned())).into();
        for (field, value) in changed {
            all.retain(|(name, _)| *name != FIELDS[field]);
            all.push((FIELDS[field], value));
        }
        let answered = |pairs: &[(&str, String)]| {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            match decode(format!("{{{}}}", pairs.join(",")).as_bytes(), ContentType::Json) {
                Ok(job) => (true, Some(job.id)),
                Err(refusal) => (false, refusal.head.id),
            }
        };
        let shuffled: Vec<_> = order.into_iter().filter_map(|at| all.get(at).cloned()).collect();
        prop_assert_eq!(answered(&all), answered(&shuffled));
    }
}
