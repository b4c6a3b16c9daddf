//! A job's way from end to end: what goes in, what comes out, field by field.

use forebay_tests::MODEL;
use forebay_tests::job::{Codec, Job, now_ms};
use forebay_tests::oracle::{COSINE_MIN, Row, cosine, rows};
use forebay_tests::publisher::{BATCH, INTERACTIVE};
use forebay_tests::record::{Record, result};
use forebay_tests::stack::SharedFleet;
use redis::AsyncCommands as _;
use serde_json::{Value, json};

/// The short way to the batch lane, and both lanes by name.
const KEYS: [&str; 3] = [BATCH, "all-minilm-l6-v2.batch", INTERACTIVE];

#[tokio::test]
async fn single_texts_agree_with_the_reference_in_both_codecs_and_lanes() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    for codec in Codec::BOTH {
        for key in KEYS {
            let jobs: Vec<(Row, Job)> =
                rows().into_iter().map(|row| (row.clone(), Job::embed(row.text))).collect();
            for (_, job) in &jobs {
                publisher.submit(key, job, codec).await;
            }
            for (row, job) in &jobs {
                let record = result(&mut redis, job.id()).await;
                assert_eq!(record.codec, codec);
                assert_vectors(&record, std::slice::from_ref(row));
            }
        }
    }
}

#[tokio::test]
async fn a_list_comes_back_in_its_order_in_both_codecs_and_lanes() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let rows = rows();
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    for codec in Codec::BOTH {
        for key in KEYS {
            let job = Job::embed(json!(texts));
            publisher.submit(key, &job, codec).await;
            assert_vectors(&result(&mut redis, job.id()).await, &rows);
        }
    }
}

#[tokio::test]
async fn both_codecs_give_equal_vectors() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let mut vectors = Vec::new();
    for codec in Codec::BOTH {
        let job = Job::embed("The gates close when there is nothing to turn.");
        publisher.submit(INTERACTIVE, &job, codec).await;
        vectors.push(result(&mut redis, job.id()).await.vectors);
    }
    assert_eq!(vectors[0].len(), 1);
    let off =
        vectors[0][0].iter().zip(&vectors[1][0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 1e-6, "they differ by {off}");
}

#[tokio::test]
async fn a_result_has_the_fields_of_the_contract_and_no_others() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    for codec in Codec::BOTH {
        let metadata = json!({"order": "4711", "ключ": "значение"});
        let job = Job::embed(json!(["one", "two words"]))
            .with("metadata", metadata)
            .with("tenant", "someone");
        let before = now_ms();
        publisher.submit(BATCH, &job, codec).await;
        let record = result(&mut redis, job.id()).await;
        let fields = &record.fields;
        assert_fields(
            fields,
            &[
                "attempts",
                "finished_at_ms",
                "id",
                "metadata",
                "model",
                "output",
                "state",
                "task",
                "tenant",
                "timing",
                "usage",
                "v",
                "worker",
            ],
        );
        assert_eq!(fields["v"], 1);
        assert_eq!(fields["state"], "succeeded");
        for same in ["id", "model", "task", "metadata", "tenant"] {
            assert_eq!(fields[same], job.fields()[same], "{same}");
        }
        assert_eq!(fields["attempts"], 1);
        assert!((before..=now_ms()).contains(&record.count("/finished_at_ms")), "{fields}");
        assert_output(&record);
        assert_counts(&record);
        let worker = fields["worker"].as_str().expect("a worker's id");
        let known: bool = redis.exists(format!("forebay:worker:{worker}")).await.unwrap();
        assert!(known, "{worker} is not in the registry");
    }
}

#[tokio::test]
async fn parameters_change_the_vectors_as_they_say() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let row = rows().into_iter().last().unwrap();
    let length = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>().sqrt();

    let plain = Job::embed(row.text.as_str()).with("params", json!({"normalize": false}));
    publisher.submit(BATCH, &plain, Codec::Msgpack).await;
    let record = result(&mut redis, plain.id()).await;
    assert!(
        (length(&record.vectors[0]) - 1.0).abs() > 0.01,
        "it was scaled to length 1 all the same"
    );
    assert!(cosine(&record.vectors[0], &row.embedding) >= COSINE_MIN);

    let short = Job::embed(row.text.as_str()).with("params", json!({"dimensions": 64}));
    publisher.submit(BATCH, &short, Codec::Json).await;
    let record = result(&mut redis, short.id()).await;
    assert_eq!(record.count("/output/dim"), 64);
    assert!(cosine(&record.vectors[0], &row.embedding[..64]) >= COSINE_MIN);
    assert!((length(&record.vectors[0]) - 1.0).abs() < 1e-5, "cut vectors are scaled again");
}

#[tokio::test]
async fn a_text_that_may_not_be_cut_is_refused_by_its_index_and_a_cut_one_is_counted() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let texts = json!(["short", "word ".repeat(600)]);
    let strict = Job::embed(texts.clone()).with("params", json!({"truncate": false}));
    let lenient = Job::embed(texts);
    for job in [&strict, &lenient] {
        publisher.submit(BATCH, job, Codec::Json).await;
    }
    let record = result(&mut redis, strict.id()).await;
    assert_eq!(
        (record.state(), record.error_code()),
        ("failed", "input_too_long"),
        "{}",
        record.fields
    );
    assert_eq!(record.fields["error"]["index"], 1);
    assert_eq!(record.fields["error"]["retryable"], false);
    let record = result(&mut redis, lenient.id()).await;
    assert_eq!(record.count("/usage/truncated"), 1);
    assert_eq!(record.count("/usage/input_tokens"), 3 + 256);
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    for codec in Codec::BOTH {
        let job = Job::embed("text")
            .with("colour", json!({"deep": [1, 2.5, null, {"more": true}]}))
            .with("params", json!({"unheard_of": [1]}));
        publisher.submit(BATCH, &job, codec).await;
        assert_eq!(result(&mut redis, job.id()).await.state(), "succeeded");
    }
}

fn assert_vectors(record: &Record, rows: &[Row]) {
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_eq!(record.vectors.len(), rows.len());
    for (vector, row) in record.vectors.iter().zip(rows) {
        let cosine = cosine(vector, &row.embedding);
        assert!(cosine >= COSINE_MIN, "{cosine} for {:?}", row.text);
    }
}

fn assert_output(record: &Record) {
    let output = &record.fields["output"];
    match record.codec {
        Codec::Msgpack => {
            assert_fields(output, &["count", "data", "dim", "dtype"]);
            assert_eq!(output["dtype"], "f32");
            assert_eq!(output["data"], format!("<{} bytes>", 2 * 384 * 4));
        }
        Codec::Json => assert_fields(output, &["count", "dim", "embeddings"]),
    }
    assert_eq!((record.count("/output/dim"), record.count("/output/count")), (384, 2));
}

fn assert_counts(record: &Record) {
    assert_fields(
        &record.fields["usage"],
        &["device_us", "input_tokens", "output_tokens", "truncated"],
    );
    // `[CLS] one [SEP]` and `[CLS] two words [SEP]`
    let device_us = record.count("/usage/device_us");
    assert_eq!(
        record.fields["usage"],
        json!({"input_tokens": 7, "output_tokens": 0, "truncated": 0, "device_us": device_us})
    );
    assert!(device_us > 0);
    let timing = &record.fields["timing"];
    assert_fields(
        timing,
        &["batch_size", "batch_tokens", "batch_wait_ms", "compute_ms", "queued_ms"],
    );
    for field in ["queued_ms", "batch_wait_ms", "compute_ms"] {
        assert!(record.count(&format!("/timing/{field}")) < 60_000, "{timing}");
    }
    assert!(record.count("/timing/batch_size") >= 1);
    assert!(record.count("/timing/batch_tokens") >= 3);
    assert_eq!(record.fields["model"], MODEL);
}

fn assert_fields(value: &Value, expected: &[&str]) {
    let fields = value.as_object().unwrap_or_else(|| panic!("no map: {value}"));
    let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, expected);
}
