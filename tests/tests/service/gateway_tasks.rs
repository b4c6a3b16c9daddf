//! Rankings, labels and sparse vectors through the gateway, in the shapes of those who ask for them.

use forebay_tests::gateway::{Gateway, floats};
use forebay_tests::model::small_model;
use forebay_tests::stack::Stack;
use serde_json::{Value, json};

fn expected(kind: &str) -> Vec<Value> {
    let lines = std::fs::read_to_string(small_model(kind).join("expected.jsonl")).unwrap();
    let rows = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    // Whole rows: the reference's own truncation of a longer one may differ from ours.
    rows.filter(|row| row["token_ids"].as_array().is_none_or(|ids| ids.len() < 128)).collect()
}

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 1e-4
}

/// Documents of one query with the raw scores that the reference has for them.
fn one_query() -> (Value, Vec<String>, Vec<f64>) {
    let rows = expected("bert-rerank");
    let query = rows[0]["query"].clone();
    let rows: Vec<Value> = rows.into_iter().filter(|row| row["query"] == query).collect();
    let documents = rows.iter().map(|row| row["document"].as_str().unwrap().to_owned()).collect();
    let scores = rows.iter().map(|row| row["logits"][0].as_f64().unwrap()).collect();
    (query, documents, scores)
}

fn relevance(score: f64) -> f64 {
    1.0 / (1.0 + (-score).exp())
}

#[tokio::test]
async fn one_ranking_is_answered_in_the_shape_of_each_client() {
    let stack = Stack::start().await.tiny_of("bert-rerank");
    let _worker = stack.worker(&[]).await;
    // Jobs of two documents: the parts are joined before they are ordered.
    let gateway = Gateway::of(&stack, &[("FOREBAY_LIMITS__INPUTS_MAX", "2")]).await;
    let (query, documents, scores) = one_query();
    let best = scores.iter().copied().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap();
    let body = |extra: Value| {
        let mut body = json!({"model": "tiny", "query": query, "documents": documents});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    for path in ["/v1/rerank", "/v2/rerank", "/rerank"] {
        let answer = gateway.post(path, &body(json!({})));
        let results = answer.body["results"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
        assert_eq!(results.len(), documents.len(), "{path}");
        for result in results {
            let score = scores[result["index"].as_u64().unwrap() as usize];
            assert!(
                near(result["relevance_score"].as_f64().unwrap(), relevance(score)),
                "{result}"
            );
        }
        assert!(results.is_sorted_by(|a, b| {
            a["relevance_score"].as_f64() >= b["relevance_score"].as_f64()
        }));
    }
    let voyage = body(json!({"top_k": 1, "truncation": true, "return_documents": true}));
    let answer = gateway.post("/v1/rerank", &voyage);
    assert_eq!(answer.body["data"].as_array().map(Vec::len), Some(1), "{answer:?}");
    assert_eq!(answer.body["data"][0]["document"], documents[best.0]);
    assert!(answer.body["usage"]["total_tokens"].as_u64() > Some(0));
    let tei = json!({"query": query, "texts": documents, "raw_scores": true, "return_text": true});
    let answer = gateway.post("/rerank", &tei);
    let first = &answer.body[0];
    assert_eq!((&first["index"], &first["text"]), (&json!(best.0), &json!(documents[best.0])));
    assert!(near(first["score"].as_f64().unwrap(), best.1), "{first}");
}

#[tokio::test]
async fn labels_are_flat_for_one_text_and_a_list_for_a_batch() {
    let stack = Stack::start().await.tiny_of("roberta-classify");
    let _worker = stack.worker(&[]).await;
    let gateway = Gateway::of(&stack, &[]).await;
    let rows = expected("roberta-classify");
    let text = &rows[0]["text"];
    let single = gateway.post("/predict", &json!({"inputs": text}));
    let labels = single.body.as_array().unwrap_or_else(|| panic!("{single:?}"));
    assert_eq!(labels.len(), 3);
    let sum: f64 = labels.iter().map(|label| label["score"].as_f64().unwrap()).sum();
    assert!(near(sum, 1.0) && labels[0]["label"].is_string(), "{labels:?}");
    let batch = json!([[text], [rows[1]["text"]]]);
    let batch = gateway.post("/predict", &json!({"inputs": batch}));
    assert_eq!(batch.body[0], single.body);
    assert_eq!(batch.body.as_array().map(Vec::len), Some(2));
    let other_task = gateway.post("/v1/embeddings", &json!({"model": "tiny", "input": "x"}));
    assert_eq!(other_task.mistake().1, "task_not_supported", "{other_task:?}");
    assert_eq!(other_task.status, 400);
}

#[tokio::test]
async fn sparse_vectors_are_lists_of_indices_and_values() {
    let stack = Stack::start().await.tiny_of("splade");
    let _worker = stack.worker(&[]).await;
    let gateway = Gateway::of(&stack, &[]).await;
    let rows = expected("splade");
    let texts: Vec<&Value> = rows.iter().map(|row| &row["text"]).collect();
    let answer = gateway.post("/embed_sparse", &json!({"inputs": texts}));
    let vectors = answer.body.as_array().unwrap_or_else(|| panic!("{answer:?}"));
    assert_eq!(vectors.len(), rows.len());
    for (vector, row) in vectors.iter().zip(&rows) {
        let field = |name: &str| {
            let values = vector.as_array().unwrap().iter();
            values.map(|value| value[name].clone()).collect::<Value>()
        };
        assert_eq!(field("index"), row["indices"]);
        let pairs = floats(&field("value")).into_iter().zip(floats(&row["values"]));
        pairs.for_each(|(a, b)| assert!(near(a.into(), b.into()), "{a} is not {b}"));
    }
}

#[tokio::test]
async fn teis_clients_name_no_model_and_get_the_only_one() {
    let stack = Stack::start().await.tiny();
    let _worker = stack.worker(&[]).await;
    let gateway = Gateway::of(&stack, &[]).await;
    let plain = gateway.post("/embed", &json!({"inputs": "a text"}));
    assert_eq!(plain.body.as_array().map(Vec::len), Some(1), "{plain:?}");
    assert_eq!(gateway.post("/", &json!({"inputs": ["a text"]})).body, plain.body);
    assert_eq!(gateway.get("/info").body["model_id"], "tiny");
    let unscaled = gateway.post("/embed", &json!({"inputs": "a text", "normalize": false}));
    let length = |body: &Value| floats(&body[0]).iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((length(&plain.body) - 1.0).abs() < 1e-3, "{}", length(&plain.body));
    assert_ne!(unscaled.body, plain.body);
    let few = gateway.post("/embed", &json!({"inputs": "a text", "dimensions": 4}));
    assert_eq!(floats(&few.body[0]).len(), 4);
}
