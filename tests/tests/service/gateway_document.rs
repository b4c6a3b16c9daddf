//! The gateway's `OpenAPI` document: it is served, and what it shows works.
//!
//! That every other answer keeps to it is checked wherever a test asks the gateway: see `forebay_tests::api`.

use forebay_tests::api::{Api, Exchange};
use forebay_tests::gateway::Gateway;
use forebay_tests::model::TINY;
use forebay_tests::stack::Stack;
use serde_json::{Value, json};

/// The examples of an operation, for a fleet with the tiny model alone.
fn examples(path: &str) -> Vec<Value> {
    let pointer = "/post/requestBody/content/application~1json/examples";
    let (_, item) = Api::of_the_gateway().item(path).expect("a path");
    let shown = item.pointer(pointer).and_then(Value::as_object).expect("examples");
    let bodies = shown.values().map(|example| {
        let mut body = example["value"].clone();
        if body.get("model").is_some() {
            body["model"] = json!(TINY);
        }
        body
    });
    bodies.collect()
}

#[tokio::test]
async fn every_example_works() {
    for (kind, paths) in [
        ("bert", &["/v1/embeddings", "/v1/embed", "/v2/embed", "/embed", "/", "/v1/jobs"][..]),
        ("bert-rerank", &["/v1/rerank", "/v2/rerank", "/rerank"]),
        ("roberta-classify", &["/predict"]),
        ("splade", &["/embed_sparse"]),
    ] {
        let stack = Stack::start().await.tiny_of(kind);
        let _worker = stack.worker(&[]).await;
        let gateway = Gateway::of(&stack, &[]).await;
        for path in paths {
            let examples = examples(path);
            assert!(!examples.is_empty(), "{path} has no example");
            for body in examples {
                let answer = gateway.post(path, &body);
                assert!(answer.status < 300, "{path} {body}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_document_is_served_without_a_key() {
    let stack = Stack::start().await.tiny();
    let created = stack.forebay(&["tenants", "create", "acme"]).await;
    assert_eq!(created.code, 0, "{created:?}");
    let created = stack.forebay(&["keys", "create", "--tenant", "acme"]).await;
    assert_eq!(created.code, 0, "{created:?}");
    let gateway = Gateway::of(&stack, &[]).await;
    assert_eq!(gateway.get("/v1/models").status, 401);
    let served = gateway.get("/openapi.json");
    assert_eq!(served.status, 200, "{served:?}");
    assert_eq!(served.header("content-type"), Some("application/json"));
    assert_eq!(&served.body, Api::of_the_gateway().document());
    let page = gateway.get("/docs");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
}

#[test]
fn an_answer_that_the_document_does_not_have_is_found() {
    let api = Api::of_the_gateway();
    let good = json!({"id": "m", "object": "model", "created": 7, "owned_by": "forebay"});
    let json_type = ("content-type".to_owned(), "application/json".to_owned());
    let headers = vec![json_type.clone(), ("x-request-id".to_owned(), "r".to_owned())];
    let of = |path: &str, status, body: &Value, headers: &[(String, String)]| {
        let exchange = Exchange { method: "GET", path, sent: None, status, headers, body };
        api.check(&exchange).is_ok()
    };
    let path = "/v1/models/owner/name?x=1";
    assert!(of(path, 200, &good, &headers));
    assert!(!of(path, 201, &good, &headers), "a status");
    assert!(!of(path, 200, &json!({"id": "m"}), &headers), "a body");
    assert!(!of(path, 200, &good, &[json_type]), "a header that is missing");
    let stranger = [headers.clone(), vec![("x-new".to_owned(), "1".to_owned())]].concat();
    assert!(!of(path, 200, &good, &stranger), "a header that is not described");
    let kind = "invalid_request_error";
    let error =
        |code: &str| json!({"error": {"message": "m", "type": kind, "param": null, "code": code}});
    assert!(of("/nothing", 404, &error("unknown_path"), &headers));
    assert!(!of("/nothing", 404, &error("no_such_code"), &headers), "a code");
}
