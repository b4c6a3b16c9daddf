//! Classifiers and rerankers: what `PyTorch` scores, through the queue.

use std::collections::BTreeMap;

use forebay_tests::job::{Codec, Job};
use forebay_tests::model::small_model;
use forebay_tests::record::{Record, result};
use forebay_tests::stack::Stack;
use forebay_tests::workload::{SMALL_BATCHES, Workload};
use serde_json::{Value, json};

/// Whole rows of a model's reference: its own truncation of a longer one may differ from ours.
fn expected(kind: &str) -> Vec<Value> {
    let lines = std::fs::read_to_string(small_model(kind).join("expected.jsonl")).unwrap();
    let rows = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let rows: Vec<Value> =
        rows.filter(|row| row["token_ids"].as_array().unwrap().len() < 128).collect();
    assert!(rows.len() > 4, "the reference of {kind} is nearly empty");
    rows
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

async fn answer(workload: &mut Workload, job: &Job) -> Record {
    workload.submit(job).await;
    result(&mut workload.redis, job.id()).await
}

#[tokio::test]
async fn documents_are_scored_as_pytorch_scores_them_and_ordered() {
    for kind in ["bert-rerank", "xlm-roberta-rerank", "deberta-v2-rerank"] {
        let mut workload = Workload::on(Stack::start().await.tiny_of(kind)).await;
        // So that jobs of several documents are split, and share batches.
        let _worker = workload.stack.worker(&[SMALL_BATCHES]).await;
        let mut queries: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for row in expected(kind) {
            queries.entry(row["query"].as_str().unwrap().to_owned()).or_default().push(row);
        }
        for (query, rows) in queries {
            let documents: Vec<&Value> = rows.iter().map(|row| &row["document"]).collect();
            let input = json!({"query": query, "documents": documents});
            let job = workload.job("").with("task", "rerank").with("input", input);
            let record = answer(&mut workload, &job).await;
            assert_eq!(record.state(), "succeeded", "{}", record.fields);
            let scores = numbers(&record.fields["output"]["scores"]);
            assert_eq!(scores.len(), rows.len());
            for (score, row) in scores.iter().zip(&rows) {
                let logit = row["logits"][0].as_f64().unwrap();
                assert!((score - logit).abs() < 1e-4, "{kind}: {score}, not {logit} for {row}");
            }
            let order = numbers(&record.fields["output"]["order"]);
            let ordered: Vec<f64> = order.iter().map(|&at| scores[at as usize]).collect();
            assert!(
                ordered.len() == rows.len() && ordered.is_sorted_by(|a, b| a >= b),
                "{ordered:?}"
            );
        }
        workload.queues_are_empty().await;
    }
}

#[tokio::test]
async fn texts_are_classified_as_pytorch_classifies_them_best_label_first() {
    let mut workload = Workload::on(Stack::start().await.tiny_of("roberta-classify")).await;
    let _worker = workload.stack.worker(&[]).await;
    let rows = expected("roberta-classify");
    let texts: Vec<&Value> = rows.iter().map(|row| &row["text"]).collect();
    let job = workload.job("").with("task", "classify").with("input", json!(texts));
    let record = answer(&mut workload, &job).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    let labels = record.fields["output"]["labels"].as_array().unwrap();
    assert_eq!(labels.len(), rows.len());
    for (labels, row) in labels.iter().zip(&rows) {
        let powers: Vec<f64> = numbers(&row["logits"]).iter().map(|logit| logit.exp()).collect();
        let expected = ["low", "mid", "high"].into_iter().zip(&powers);
        let expected: BTreeMap<&str, f64> =
            expected.map(|(label, power)| (label, power / powers.iter().sum::<f64>())).collect();
        let labels = labels.as_array().unwrap();
        assert_eq!(labels.len(), 3);
        assert!(labels.is_sorted_by(|a, b| a["score"].as_f64() >= b["score"].as_f64()));
        for label in labels {
            let name = label["label"].as_str().unwrap();
            let score = label["score"].as_f64().unwrap();
            assert!((score - expected[name]).abs() < 1e-4, "{name}: {score} for {row}");
        }
    }
}

#[tokio::test]
async fn only_the_best_documents_are_named_where_that_is_asked_for() {
    let mut workload = Workload::on(Stack::start().await.tiny_of("bert-rerank")).await;
    let _worker = workload.stack.worker(&[]).await;
    let documents: Vec<String> = (0..40).map(|n| format!("document {n} of a river")).collect();
    let input = json!({"query": "water", "documents": documents});
    let job = workload.job("").with("task", "rerank").with("input", input);
    let job = job.with("params", json!({"top_n": 3}));
    let record = answer(&mut workload, &job).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_eq!(record.fields["output"]["order"].as_array().unwrap().len(), 3);
    assert_eq!(record.fields["output"]["scores"].as_array().unwrap().len(), 40);
}

#[tokio::test]
async fn a_task_that_the_model_does_not_do_is_refused_with_the_tasks_that_it_does() {
    let mut workload = Workload::on(Stack::start().await.tiny_of("bert-rerank")).await;
    let _worker = workload.stack.worker(&[]).await;
    for (task, input) in [("embed", json!("text")), ("classify", json!(["text"]))] {
        let job = workload.job("").with("task", task).with("input", input);
        workload.publisher.submit(workload.stack.model(), &job, Codec::Msgpack).await;
        let record = result(&mut workload.redis, job.id()).await;
        let error = &record.fields["error"];
        assert_eq!(error["code"], "task_not_supported", "{}", record.fields);
        assert!(error["message"].as_str().unwrap().contains("it does: rerank"), "{error}");
    }
}
