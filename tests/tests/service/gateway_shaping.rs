//! Requests before they are jobs: equal work is done once, and token ids are taken as such.

use std::collections::HashMap;
use std::fs;

use forebay_tests::gateway::{Answer, Gateway, floats, until_closed};
use forebay_tests::model::{TINY, small_model};
use forebay_tests::patience::{SOON, until_true};
use forebay_tests::record::result;
use forebay_tests::workload::Workload;
use redis::AsyncCommands as _;
use serde_json::{Value, json};

const EMBEDDINGS: &str = "/v1/embeddings";

/// The ids of words that the tiny model's vocabulary has, with the special tokens around them.
fn ids(words: &[&str]) -> Vec<u32> {
    let text = fs::read_to_string(small_model("bert").join("tokenizer.json")).unwrap();
    let tokenizer: Value = serde_json::from_str(&text).unwrap();
    let vocabulary: HashMap<String, u32> =
        serde_json::from_value(tokenizer["model"]["vocab"].clone()).unwrap();
    let words = ["[CLS]"].iter().chain(words).chain(&["[SEP]"]);
    words.map(|word| vocabulary[*word]).collect()
}

fn rows(answer: &Answer) -> Vec<Vec<f32>> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let data = answer.body["data"].as_array().unwrap();
    data.iter().map(|element| floats(&element["embedding"])).collect()
}

#[tokio::test]
async fn ids_of_the_models_own_tokenizer_make_the_vectors_of_their_texts() {
    let mut workload = Workload::new().await;
    let _worker = workload.stack.worker(&[]).await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let texts = gateway.vectors(TINY, &json!(["python library", "data"]));
    let sequences = json!([ids(&["python", "library"]), ids(&["data"])]);

    let body = json!({"model": TINY, "input": sequences, "tokenizer": TINY});
    let answer = gateway.post(EMBEDDINGS, &body);
    assert_eq!(rows(&answer), texts);
    let tokens = ids(&["python", "library"]).len() + ids(&["data"]).len();
    assert_eq!(answer.body["usage"]["prompt_tokens"], tokens, "what was sent is what is read");
    let one = json!({"model": TINY, "input": ids(&["data"]), "tokenizer": TINY});
    assert_eq!(rows(&gateway.post(EMBEDDINGS, &one)), texts[1..]);

    let job = json!({"model": TINY, "task": "embed", "input_ids": sequences});
    let submitted = gateway.post("/v1/jobs", &job);
    assert_eq!(submitted.status, 202, "{submitted:?}");
    let path = format!("/v1/jobs/{}?wait=30", submitted.body["id"].as_str().unwrap());
    let record = gateway.get(&path);
    let found = record.body["output"]["embeddings"].as_array().unwrap();
    assert_eq!(found.iter().map(floats).collect::<Vec<_>>(), texts);

    let job = workload.job("").with("input", Value::Null).with("input_ids", sequences);
    workload.submit(&job).await;
    assert_eq!(result(&mut workload.redis, job.id()).await.vectors, texts);
}

#[tokio::test]
async fn ids_of_another_tokenizer_are_refused_and_never_read_as_the_models_own() {
    let mut workload = Workload::new().await;
    let _worker = workload.stack.worker(&[]).await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let unsaid = gateway.post(EMBEDDINGS, &json!({"model": TINY, "input": [[9_906, 1_917]]}));
    assert_eq!(unsaid.mistake(), (400, "invalid_request", Some("input")), "{unsaid:?}");
    assert!(unsaid.message().contains("check_embedding_ctx_length=False"), "{unsaid:?}");
    let others = json!({"model": TINY, "input": [[5]], "tokenizer": "cl100k_base"});
    let others = gateway.post(EMBEDDINGS, &others);
    assert_eq!(others.mistake(), (400, "invalid_request", Some("tokenizer")), "{others:?}");
    let outside = json!({"model": TINY, "input": [[5], [5], [7, 100_257]], "tokenizer": TINY});
    let outside = gateway.post(EMBEDDINGS, &outside);
    assert_eq!(outside.mistake(), (400, "invalid_request", Some("input")), "{outside:?}");
    assert!(outside.message().starts_with("`input[2]`: the token id 100257"), "{outside:?}");
    // Past the gateway the worker says the same, and its batch-mates don't suffer.
    let job = workload.job("").with("input", Value::Null).with("input_ids", json!([[5], [2_000]]));
    workload.submit(&job).await;
    let record = result(&mut workload.redis, job.id()).await;
    assert_eq!(
        (record.error_code(), &record.fields["error"]["index"]),
        ("invalid_request", &json!(1))
    );
}

#[tokio::test]
async fn ids_that_are_too_many_are_cut_as_a_text_is_or_refused() {
    let mut workload = Workload::new().await;
    let _worker = workload.stack.worker(&[]).await;
    let long = vec!["data"; 200];
    let text = workload.job(&long.join(" "));
    let cut = workload.job("").with("input", Value::Null).with("input_ids", json!([ids(&long)]));
    workload.submit(&text).await;
    workload.submit(&cut).await;
    let of_text = result(&mut workload.redis, text.id()).await;
    let of_ids = result(&mut workload.redis, cut.id()).await;
    assert_eq!(of_ids.vectors, of_text.vectors);
    assert_eq!(of_ids.count("/usage/truncated"), 1);
    assert_eq!(of_ids.count("/usage/input_tokens"), of_text.count("/usage/input_tokens"));
    let whole = workload.job("").with("input", Value::Null).with("input_ids", json!([ids(&long)]));
    let whole = whole.with("params", json!({"truncate": false}));
    workload.submit(&whole).await;
    let refused = result(&mut workload.redis, whole.id()).await;
    assert_eq!(refused.error_code(), "input_too_long");
}

#[tokio::test]
async fn equal_texts_of_one_request_are_read_once_and_each_has_its_vector() {
    let workload = Workload::new().await;
    let _worker = workload.stack.worker(&[]).await;
    let gateway = Gateway::of(&workload.stack, &[("FOREBAY_LIMITS__INPUTS_MAX", "2")]).await;
    let embed = |input: Value| gateway.post(EMBEDDINGS, &json!({"model": TINY, "input": input}));
    let once = embed(json!(["water", "gates", "river"]));
    let repeated = embed(json!(["water", "gates", "water", "river", "gates", "water"]));
    let of = rows(&once);
    assert_eq!(rows(&repeated), [0, 1, 0, 2, 1, 0].map(|n: usize| of[n].clone()));
    assert_eq!(repeated.body["usage"], once.body["usage"]);
    let metrics = gateway.service.get("/metrics").unwrap().1;
    assert!(metrics.contains("forebay_gateway_repeated_inputs_total 3"), "{metrics}");
    // The input at fault is named by where it first stands in the request.
    let long = "long ".repeat(2_000);
    let inputs = json!(["a", "a", "a", "b", long, long]);
    let answer = gateway.post("/embed", &json!({"inputs": inputs, "truncate": false}));
    assert!(answer.message().starts_with("`inputs[4]`"), "{answer:?}");
}

#[tokio::test]
async fn equal_requests_at_one_moment_are_one_job_that_outlives_the_first_of_them() {
    let mut workload = Workload::new().await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let queue = format!("forebay.jobs.{TINY}.interactive");
    let depth = || workload.stack.vhost.depth(&queue);
    let metric = |line: &str| {
        gateway.service.get("/metrics").is_some_and(|(_, metrics)| metrics.contains(line))
    };
    let first = gateway.asking(TINY).await;
    until_true("the job is queued", SOON, async || depth() == 1).await;
    let mut second = gateway.asking(TINY).await;
    let mut third = gateway.asking(TINY).await;
    until_true("the others wait for it", SOON, async || {
        metric("forebay_gateway_shared_jobs_total 2")
    })
    .await;
    drop(first);
    until_true("the first has left", SOON, async || metric("forebay_gateway_connections 2")).await;
    let _worker = workload.stack.worker(&[]).await;
    let answers = [until_closed_by_us(&mut second).await, until_closed_by_us(&mut third).await];
    assert!(answers[0].starts_with("HTTP/1.1 200"), "{answers:?}");
    let body = |answer: &str| answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    assert_eq!(body(&answers[0]), body(&answers[1]));
    let cancels: Vec<String> = workload.redis.keys("forebay:cancel:*").await.unwrap();
    assert_eq!(cancels, [""; 0]);
    let results: Vec<String> = workload.redis.keys("forebay:result:*").await.unwrap();
    assert_eq!(results.len(), 1, "{results:?}");
}

/// The answer on a connection that stays open after it: all until its JSON ends.
async fn until_closed_by_us(stream: &mut tokio::net::TcpStream) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut text = String::new();
    let whole = async {
        let mut bytes = vec![0; 65_536];
        while !text.ends_with("}}") {
            let count = stream.read(&mut bytes).await.unwrap();
            assert_ne!(count, 0, "it ended early: {text}");
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    };
    tokio::time::timeout(SOON, whole).await.expect("an answer");
    text
}

#[tokio::test]
async fn a_job_that_several_wait_for_is_cancelled_when_the_last_of_them_leaves() {
    let mut workload = Workload::new().await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let first = gateway.asking(TINY).await;
    let second = gateway.asking(TINY).await;
    until_true("both wait for one", SOON, async || {
        let metrics = gateway.service.get("/metrics");
        metrics.is_some_and(|(_, metrics)| metrics.contains("forebay_gateway_shared_jobs_total 1"))
    })
    .await;
    drop(second);
    drop(first);
    let redis = &mut workload.redis;
    until_true("the job is cancelled", SOON, async || {
        let cancels: Vec<String> = redis.keys("forebay:cancel:*").await.unwrap();
        cancels.len() == 1
    })
    .await;
}

#[tokio::test]
async fn a_vector_that_was_asked_for_before_comes_back_until_the_models_files_change() {
    let workload = Workload::new().await;
    let mut worker = workload.stack.worker(&[]).await;
    let plain = Gateway::of(&workload.stack, &[]).await;
    let overrides = [("FOREBAY_GATEWAY__EMBEDDING_CACHE_BYTES_MAX", "1000000")];
    let gateway = Gateway::of(&workload.stack, &overrides).await;
    let embed = |input: Value| gateway.post(EMBEDDINGS, &json!({"model": TINY, "input": input}));
    let cache = |answer: &Answer| answer.header("x-forebay-cache").map(ToOwned::to_owned);
    until_true("the revision is known", SOON, async || cache(&embed(json!("first"))).is_some())
        .await;
    let of = plain.vectors(TINY, &json!(["water", "gates", "river"]));

    let first = embed(json!(["water", "gates"]));
    assert_eq!((cache(&first).as_deref(), rows(&first)), (Some("hits=0 of=2"), of[..2].to_vec()));
    let mixed = embed(json!(["river", "gates", "water", "gates"]));
    assert_eq!(cache(&mixed).as_deref(), Some("hits=3 of=4"));
    assert_eq!(rows(&mixed), [2, 1, 0, 1].map(|n: usize| of[n].clone()));
    let all = embed(json!(["water", "river"]));
    assert_eq!(cache(&all).as_deref(), Some("hits=2 of=2"));
    assert_eq!(all.body["usage"]["prompt_tokens"], 0, "nothing was read");
    let cut = json!({"model": TINY, "input": "water", "dimensions": 4});
    let cut = gateway.post(EMBEDDINGS, &cut);
    assert_eq!((cache(&cut).as_deref(), rows(&cut)[0].len()), (Some("hits=0 of=1"), 4));
    assert_eq!(plain.post(EMBEDDINGS, &json!({"input": "water"})).header("x-forebay-cache"), None);

    // A file more is another revision.
    let folder = workload.stack.tiny_model();
    let files = fs::canonicalize(&folder).unwrap();
    fs::remove_file(&folder).unwrap();
    fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    for name in fs::read_dir(&files).unwrap().map(|entry| entry.unwrap().file_name()) {
        if files.join(&name).is_file() {
            fs::copy(files.join(&name), folder.join(&name)).unwrap();
        }
    }
    fs::copy(files.join("1_Pooling/config.json"), folder.join("1_Pooling/config.json")).unwrap();
    fs::write(folder.join("README.md"), "another revision").unwrap();
    worker.signal("TERM");
    assert_eq!(worker.exit_code(SOON).await, 0);
    let _worker = workload.stack.worker(&[]).await;
    until_true("what was kept is not found", SOON, async || {
        cache(&embed(json!("gates"))).as_deref() == Some("hits=0 of=1")
    })
    .await;
    until_true("what is computed now is kept", SOON, async || {
        cache(&embed(json!("gates"))).as_deref() == Some("hits=1 of=1")
    })
    .await;
}

#[tokio::test]
async fn a_page_of_another_site_is_refused_where_no_key_is_needed() {
    let workload = Workload::new().await;
    let _worker = workload.stack.worker(&[]).await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let body = json!({"model": TINY, "input": "a text"});
    let own = format!("http://127.0.0.1:{}", gateway.port);
    for (headers, expected) in [
        (vec![], 200),
        (vec![("origin", own.as_str())], 200),
        (vec![("origin", "https://elsewhere.example")], 403),
        (vec![("origin", "null")], 403),
        (vec![("host", "localhost:9000")], 200),
        (vec![("host", "rebound.example")], 403),
    ] {
        let answer = gateway.post_with(EMBEDDINGS, &body, &headers);
        assert_eq!(answer.status, expected, "{headers:?}: {answer:?}");
        if expected == 403 {
            assert_eq!(answer.body["error"]["code"], "foreign_origin");
        }
    }
    let mut rebound = gateway
        .sending(b"GET /v1/models HTTP/1.1\r\nhost: rebound.example\r\nconnection: close\r\n\r\n")
        .await;
    assert!(until_closed(&mut rebound, SOON).await.starts_with("HTTP/1.1 403"));
}
