//! Keys and limits at the gateway: who is let in, to which jobs, and how often.

use forebay_tests::gateway::{Answer, Gateway};
use forebay_tests::model::TINY;
use forebay_tests::patience::{SOON, until_true};
use forebay_tests::stack::Stack;
use serde_json::json;

use super::commands::json_lines;

const EMBEDDINGS: &str = "/v1/embeddings";

/// The header that a key is sent in.
struct Key(String);

impl Key {
    /// A new key of a tenant, with these scopes.
    async fn of(stack: &Stack, tenant: &str, scopes: &str) -> Self {
        let create = ["keys", "create", "--tenant", tenant, "--scope", scopes, "--json"];
        let created = json_lines(&stack.forebay(&create).await);
        Self(format!("Bearer {}", created[0]["key"].as_str().expect("a key")))
    }

    fn header(&self) -> [(&str, &str); 1] {
        [("authorization", &self.0)]
    }

    /// The public part.
    fn id(&self) -> &str {
        &self.0["Bearer fbk_".len()..][..12]
    }
}

async fn tenant(stack: &Stack, id: &str, limits: &[&str]) {
    let created = stack.forebay(&[&["tenants", "create", id][..], limits].concat()).await;
    assert_eq!(created.code, 0, "{created:?}");
}

fn embed(gateway: &Gateway, key: &Key) -> Answer {
    let body = json!({"model": TINY, "input": "a text"});
    gateway.post_with(EMBEDDINGS, &body, &key.header())
}

#[tokio::test]
async fn a_fleet_without_keys_asks_for_none_on_loopback_until_there_is_one() {
    let stack = Stack::start().await.tiny();
    let _worker = stack.worker(&[]).await;
    let gateway = Gateway::of(&stack, &[]).await;
    let any = Key("Bearer whatever-a-client-sends".to_owned());
    assert_eq!(embed(&gateway, &any).status, 200, "without keys any text is one");
    tenant(&stack, "acme", &[]).await;
    let key = Key::of(&stack, "acme", "submit,read").await;
    until_true("a key is asked for", SOON, async || gateway.get("/v1/models").status == 401).await;
    let missing = gateway.post(EMBEDDINGS, &json!({"model": TINY, "input": "a text"}));
    assert_eq!(missing.mistake(), (401, "missing_api_key", None), "{missing:?}");
    assert_eq!(embed(&gateway, &any).mistake(), (401, "invalid_api_key", None));
    assert_eq!(embed(&gateway, &key).status, 200);
    assert_eq!(gateway.get_with("/v1/models", &key.header()).status, 200);
    for open in ["/health", "/healthz", "/readyz"] {
        assert_eq!(gateway.get(open).status, 200, "{open}");
    }
}

#[tokio::test]
async fn a_fleet_whose_last_key_is_gone_stays_closed_until_it_is_reopened() {
    let stack = Stack::start().await.tiny();
    let _worker = stack.worker(&[]).await;
    tenant(&stack, "acme", &[]).await;
    let key = Key::of(&stack, "acme", "submit,read").await;
    let gateway = Gateway::of(&stack, &[]).await;
    assert_eq!(embed(&gateway, &key).status, 200);
    let kept = stack.forebay(&["keys", "reopen"]).await;
    assert_eq!(kept.code, 1, "{kept:?}");
    assert_eq!(stack.forebay(&["tenants", "delete", "acme"]).await.code, 0);
    let is_refused = async || embed(&gateway, &key).status == 401;
    until_true("its key is no more", SOON, is_refused).await;
    let missing = gateway.get("/v1/models");
    assert_eq!(missing.mistake(), (401, "missing_api_key", None), "{missing:?}");
    // A replica that starts now asks for a key too.
    let other = Gateway::of(&stack, &[]).await;
    assert_eq!(other.get("/v1/models").status, 401);
    let listed = stack.forebay(&["keys", "list"]).await;
    assert!(listed.errors.contains("forebay keys reopen"), "{listed:?}");
    assert_eq!(stack.forebay(&["keys", "reopen"]).await.code, 0);
    until_true("no key is asked for", SOON, async || gateway.get("/v1/models").status == 200).await;
}

#[tokio::test]
async fn on_any_other_address_a_key_is_always_needed() {
    let stack = Stack::start().await.tiny();
    // The port is the one that its harness knows; the later setting counts.
    let port = forebay_tests::ports::free_port();
    let address = format!("0.0.0.0:{port}");
    let mut gateway = Gateway::of(&stack, &[("FOREBAY_GATEWAY__LISTEN", &address)]).await;
    gateway.port = port;
    assert_eq!(gateway.get("/v1/models").mistake(), (401, "missing_api_key", None));
}

#[tokio::test]
async fn a_key_allows_what_its_scopes_say() {
    let stack = Stack::start().await.tiny();
    tenant(&stack, "acme", &[]).await;
    let reads = Key::of(&stack, "acme", "read").await;
    let submits = Key::of(&stack, "acme", "submit").await;
    let gateway = Gateway::of(&stack, &[]).await;
    let refused = embed(&gateway, &reads);
    assert_eq!(refused.mistake(), (403, "insufficient_permissions", None), "{refused:?}");
    assert!(refused.message().contains("`submit`"), "{refused:?}");
    assert_eq!(gateway.get_with("/v1/models", &reads.header()).status, 200);
    assert_eq!(gateway.get_with("/v1/models", &submits.header()).status, 403);
}

#[tokio::test]
async fn a_job_of_another_tenant_is_not_found() {
    let stack = Stack::start().await.tiny();
    let _worker = stack.worker(&[]).await;
    tenant(&stack, "acme", &[]).await;
    tenant(&stack, "other", &[]).await;
    let mine = Key::of(&stack, "acme", "submit,read").await;
    let theirs = Key::of(&stack, "other", "submit,read").await;
    let gateway = Gateway::of(&stack, &[]).await;
    let job = json!({"model": TINY, "task": "embed", "input": "a text"});
    for extra in [None, Some(("idempotency-key", "one-key"))] {
        let headers: Vec<(&str, &str)> = mine.header().into_iter().chain(extra).collect();
        let submitted = gateway.post_with("/v1/jobs", &job, &headers);
        assert_eq!(submitted.status, 202, "{submitted:?}");
        let path = format!("/v1/jobs/{}", submitted.body["id"].as_str().unwrap());
        let waits = format!("{path}?wait=30");
        let done = gateway.get_with(&waits, &mine.header());
        assert_eq!((done.status, &done.body["state"]), (200, &json!("succeeded")), "{done:?}");
        for answer in [
            gateway.get_with(&path, &theirs.header()),
            gateway.delete_with(&path, &theirs.header()),
        ] {
            assert_eq!(answer.mistake(), (404, "job_not_found", Some("id")), "{answer:?}");
        }
    }
    // One key of two tenants is two jobs.
    let ids = [&mine, &theirs].map(|key| {
        let headers = [key.header()[0], ("idempotency-key", "the-same")];
        gateway.post_with("/v1/jobs", &job, &headers).body["id"].clone()
    });
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_limit_is_counted_over_two_replicas_and_said_in_headers() {
    let stack = Stack::start().await.tiny();
    let _worker = stack.worker(&[]).await;
    tenant(&stack, "acme", &["--requests-per-minute", "3", "--tokens-per-minute", "1000"]).await;
    let key = Key::of(&stack, "acme", "submit").await;
    let replicas = [Gateway::of(&stack, &[]).await, Gateway::of(&stack, &[]).await];
    for (n, left) in [(0, "2"), (1, "1"), (0, "0")] {
        let answer = embed(&replicas[n], &key);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("3"));
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(left));
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("1000"));
    }
    let refused = embed(&replicas[1], &key);
    assert_eq!(refused.mistake(), (429, "rate_limit_exceeded", None), "{refused:?}");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));
    let seconds: u64 = refused.header("retry-after").expect("when to come back").parse().unwrap();
    assert!((1..=60).contains(&seconds) && refused.header("retry-after-ms").is_some());
    let long = json!({"model": TINY, "input": "word ".repeat(1_000)});
    let never = replicas[0].post_with(EMBEDDINGS, &long, &key.header());
    assert_eq!(never.mistake(), (400, "request_too_large", None), "{never:?}");
}

#[tokio::test]
async fn a_revoked_key_stops_on_two_replicas() {
    let stack = Stack::start().await.tiny();
    tenant(&stack, "acme", &[]).await;
    let key = Key::of(&stack, "acme", "read").await;
    let replicas = [Gateway::of(&stack, &[]).await, Gateway::of(&stack, &[]).await];
    let asked = |gateway: &Gateway| gateway.get_with("/v1/models", &key.header());
    for gateway in &replicas {
        assert_eq!(asked(gateway).status, 200);
    }
    assert_eq!(stack.forebay(&["keys", "revoke", key.id()]).await.code, 0);
    for gateway in &replicas {
        until_true("it is refused", SOON, async || asked(gateway).status == 401).await;
        assert!(asked(gateway).message().contains("revoked"));
    }
}
