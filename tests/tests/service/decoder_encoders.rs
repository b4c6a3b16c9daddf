//! Decoders that embed and rerank: what sentence-transformers computes, through the queue and over HTTP.

use std::fs;
use std::path::Path;

use forebay_tests::gateway::{Gateway, floats};
use forebay_tests::model::{TINY, small_model};
use forebay_tests::record::result;
use forebay_tests::stack::Stack;
use forebay_tests::workload::{SMALL_BATCHES, Workload};
use serde_json::{Value, json};

fn expected(kind: &str) -> Vec<Value> {
    let lines = fs::read_to_string(small_model(kind).join("expected.jsonl")).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let off = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    let off = off.fold(0.0, f32::max);
    assert!(off < 1e-5, "off by {off}");
}

#[tokio::test]
async fn a_decoder_embeds_texts_of_jobs_and_of_openai_s_clients() {
    let mut workload = Workload::on(Stack::start().await.tiny_of("qwen3-embed")).await;
    let _worker = workload.stack.worker(&[SMALL_BATCHES]).await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let rows = expected("qwen3-embed");
    let texts: Value = rows.iter().map(|row| row["text"].clone()).collect();
    let job = workload.job("").with("input", texts.clone());
    workload.submit(&job).await;
    let record = result(&mut workload.redis, job.id()).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    for (vector, row) in record.vectors.iter().zip(&rows) {
        assert_near(vector, &floats(&row["vector"]));
    }
    assert!(record.count("/usage/truncated") > 0);
    assert_eq!(gateway.vectors(TINY, &texts), record.vectors);
}

/// A copy of the reranker as it was released: nothing in it says that it reranks.
fn released(folder: &Path) {
    let from = small_model("qwen3-rerank");
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(from.join(file), folder.join(file)).unwrap();
    }
}

#[tokio::test]
async fn a_language_model_reranks_documents_of_jobs_and_of_rankings_if_the_configuration_says_so() {
    let folder = tempfile::tempdir().unwrap();
    released(folder.path());
    let kind = folder.path().display().to_string();
    let mut workload = Workload::on(Stack::start().await.tiny_of(&kind)).await;
    let task = ("FOREBAY_MODELS__TINY__TASK", "rerank");
    let _worker = workload.stack.worker(&[SMALL_BATCHES, task]).await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let rows = expected("qwen3-rerank");
    let rows: Vec<&Value> = rows.iter().filter(|row| row["query"] == rows[0]["query"]).collect();
    let documents: Value = rows.iter().map(|row| row["document"].clone()).collect();
    let logits: Vec<f32> = rows.iter().flat_map(|row| floats(&row["logits"])).collect();
    let input = json!({"query": rows[0]["query"], "documents": documents});
    let job = workload.job("").with("task", "rerank").with("input", input);
    workload.submit(&job).await;
    let record = result(&mut workload.redis, job.id()).await;
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_near(&floats(&record.fields["output"]["scores"]), &logits);
    let body = json!({"model": TINY, "query": rows[0]["query"], "documents": documents});
    let answer = gateway.post("/rerank", &body);
    let results = answer.body["results"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
    assert_eq!(results.len(), logits.len());
    for result in results {
        let logit = logits[result["index"].as_u64().unwrap() as usize];
        // The probability of `yes` against `no`.
        let probability = 1.0 / (1.0 + (-logit).exp());
        assert_near(&floats(&json!([result["relevance_score"]])), &[probability]);
    }
}
