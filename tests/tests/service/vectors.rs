//! Sparse vectors and token vectors: what sentence-transformers computes, through the queue, in both codecs.

use forebay_tests::job::{Codec, Job};
use forebay_tests::model::small_model;
use forebay_tests::record::{Record, result};
use forebay_tests::stack::Stack;
use forebay_tests::workload::{SMALL_BATCHES, Workload};
use serde_json::{Value, json};

fn expected(kind: &str) -> Vec<Value> {
    let lines = std::fs::read_to_string(small_model(kind).join("expected.jsonl")).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn texts(rows: &[Value]) -> Value {
    rows.iter().map(|row| row["text"].clone()).collect()
}

async fn answer(workload: &mut Workload, job: &Job, codec: Codec) -> Record {
    workload.publisher.submit(workload.stack.model(), job, codec).await;
    let record = result(&mut workload.redis, job.id()).await;
    assert_eq!((record.state(), record.codec), ("succeeded", codec), "{}", record.fields);
    record
}

/// A field of the output of a record in msgpack.
fn field(record: &Record, name: &str) -> rmpv::Value {
    let whole = rmpv::decode::read_value(&mut record.raw.as_slice()).unwrap();
    let of = |map: &rmpv::Value, name: &str| {
        let pairs = map.as_map().unwrap().iter();
        let mut found = pairs.filter(|(key, _)| key.as_str() == Some(name));
        found.next().unwrap_or_else(|| panic!("no {name}")).1.clone()
    };
    of(&of(&whole, "output"), name)
}

/// Four little-endian bytes each.
fn words<T>(record: &Record, name: &str, read: fn([u8; 4]) -> T) -> Vec<T> {
    let bytes = field(record, name);
    let (words, rest) = bytes.as_slice().unwrap().as_chunks::<4>();
    assert!(rest.is_empty());
    words.iter().map(|word| read(*word)).collect()
}

/// As many values for each input as `lengths` says, times `width`.
fn split<T: Clone>(record: &Record, width: usize, values: &[T]) -> Vec<Vec<T>> {
    let mut begin = 0;
    let lengths = field(record, "lengths");
    let parts = lengths.as_array().unwrap().iter().map(|length| {
        let end = begin + width * length.as_u64().unwrap() as usize;
        let part = values[begin..end].to_vec();
        begin = end;
        part
    });
    let parts: Vec<Vec<T>> = parts.collect();
    assert_eq!(begin, values.len());
    parts
}

fn assert_near(actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        assert!((actual - expected).abs() < 1e-4, "{actual}, not {expected}");
    }
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn indices(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|index| index.as_u64().unwrap() as u32).collect()
}

/// Vectors end to end.
fn vectors(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().flat_map(floats).collect()
}

/// The vectors of a record in either codec: indices and values.
fn sparse(record: &Record) -> Vec<(Vec<u32>, Vec<f32>)> {
    let output = &record.fields["output"];
    assert_eq!(output["dim"], 2000);
    match record.codec {
        Codec::Json => {
            let vectors = output["vectors"].as_array().unwrap().iter();
            vectors.map(|vector| (indices(&vector["indices"]), floats(&vector["values"]))).collect()
        }
        Codec::Msgpack => {
            assert_eq!(output["dtype"], "f32");
            let indices = split(record, 1, &words(record, "indices", u32::from_le_bytes));
            let values = split(record, 1, &words(record, "values", f32::from_le_bytes));
            indices.into_iter().zip(values).collect()
        }
    }
}

/// The token vectors of a record in either codec, those of an input end to end.
fn tokens(record: &Record) -> Vec<Vec<f32>> {
    let output = &record.fields["output"];
    assert_eq!(output["dim"], 16);
    match record.codec {
        Codec::Json => output["token_embeddings"].as_array().unwrap().iter().map(vectors).collect(),
        Codec::Msgpack => split(record, 16, &words(record, "data", f32::from_le_bytes)),
    }
}

#[tokio::test]
async fn texts_become_sparse_vectors_as_sentence_transformers_makes_them() {
    let mut workload = Workload::on(Stack::start().await.tiny_of("splade")).await;
    // So that jobs of several texts are split, and share batches.
    let _worker = workload.stack.worker(&[SMALL_BATCHES]).await;
    let rows = expected("splade");
    for codec in Codec::BOTH {
        let job = || workload.job("").with("task", "embed_sparse").with("input", texts(&rows));
        let [job, cut_job] = [job(), job().with("params", json!({"top_k": 2}))];
        let whole = sparse(&answer(&mut workload, &job, codec).await);
        assert_eq!(whole.len(), rows.len());
        for ((found, values), row) in whole.iter().zip(&rows) {
            assert_eq!(*found, indices(&row["indices"]));
            assert_near(values, &floats(&row["values"]));
        }
        let cut = sparse(&answer(&mut workload, &cut_job, codec).await);
        for ((found, values), (_, whole)) in cut.iter().zip(&whole) {
            let mut largest = whole.clone();
            largest.sort_by(|a, b| b.total_cmp(a));
            assert!(found.len() == 2 && found.is_sorted(), "{found:?}");
            assert!(values.iter().all(|value| largest[..2].contains(value)), "{values:?}");
        }
    }
    workload.queues_are_empty().await;
}

#[tokio::test]
async fn tokens_become_vectors_as_sentence_transformers_makes_them_of_queries_and_documents() {
    let mut workload = Workload::on(Stack::start().await.tiny_of("colbert")).await;
    let _worker = workload.stack.worker(&[SMALL_BATCHES]).await;
    let rows = expected("colbert");
    for codec in Codec::BOTH {
        for kind in ["query", "document"] {
            let job = workload.job("").with("task", "embed_tokens").with("input", texts(&rows));
            let job = job.with("params", json!({"input_type": kind}));
            let found = tokens(&answer(&mut workload, &job, codec).await);
            assert_eq!(found.len(), rows.len());
            for (values, row) in found.iter().zip(&rows) {
                assert_near(values, &vectors(&row[kind]));
            }
        }
    }
    workload.queues_are_empty().await;
}

#[tokio::test]
async fn a_model_of_token_vectors_refuses_other_tasks_and_names_its_own() {
    let mut workload = Workload::on(Stack::start().await.tiny_of("colbert")).await;
    let _worker = workload.stack.worker(&[]).await;
    for task in ["embed", "embed_sparse"] {
        let job = workload.job("text").with("task", task);
        workload.submit(&job).await;
        let record = result(&mut workload.redis, job.id()).await;
        assert_eq!(record.error_code(), "task_not_supported", "{}", record.fields);
        assert!(record.error_message().contains("embed_tokens"), "{}", record.error_message());
    }
}
