//! Routes at the gateway: which model answers a name, and which one when that can't.

use std::collections::{BTreeMap, BTreeSet};

use forebay_tests::endpoint::Reply;
use forebay_tests::far::{FAR, TWIN, TwoFleets};
use forebay_tests::gateway::{Answer, Gateway};
use forebay_tests::model::TINY;
use forebay_tests::patience::{PATIENT, until, until_true};
use forebay_tests::pools::{Pools, metric, status};
use serde_json::json;

use super::commands::json_lines;

const ERROR: Reply = Reply::Status(500, "", "{}");

fn embed(gateway: &Gateway, name: &str) -> Answer {
    gateway.post("/v1/embeddings", &json!({"model": name, "input": "a text"}))
}

/// The model that answered, and the header that says why.
fn by(answer: &Answer) -> (&str, &str) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let header = |name| answer.header(name).unwrap_or_default();
    (header("x-forebay-model"), header("x-forebay-route"))
}

#[tokio::test]
async fn a_route_and_its_aliases_are_models_to_clients() {
    let rest = "[routes.\"acme/embed\"]\naliases = [\"text-embedding-3-small\"]\ninputs_max = 2\n\
                truncate = \"refuse\"\nexpires_ms_max = 60000\n\
                targets = [{ model = \"tiny\" }]\n";
    let both = TwoFleets::start("bert", "", rest).await;
    let _worker = both.worker(TINY, &[]).await;
    let gateway = Gateway::of(&both.near, &[]).await;
    for name in ["acme/embed", "text-embedding-3-small"] {
        let answer = embed(&gateway, name);
        assert_eq!(by(&answer), (TINY, "name=acme/embed tier=1 reason=first"), "{answer:?}");
        assert_eq!(answer.body["model"], TINY, "the body has the model that answered");
        assert_eq!(answer.header("x-forebay-wait-ms"), None, "no autoscaler predicts it");
        assert_eq!(gateway.get(&format!("/v1/models/{name}")).body["id"], name);
    }
    let plain = embed(&gateway, TINY);
    assert_eq!(by(&plain), (TINY, ""), "a model's own name works without a route");
    let list = gateway.get("/v1/models");
    let ids = list.body["data"].as_array().unwrap().iter().map(|model| model["id"].clone());
    let names = ["acme/embed", FAR, "text-embedding-3-small", TINY, TWIN];
    assert_eq!(ids.collect::<Vec<_>>(), names.map(|name| json!(name)));

    let three = json!({"model": "acme/embed", "input": ["a", "b", "c"]});
    let answer = gateway.post("/v1/embeddings", &three);
    assert_eq!(answer.mistake(), (400, "invalid_request", Some("input")), "{answer:?}");
    let long = json!({"model": "acme/embed", "input": "long ".repeat(2_000)});
    let answer = gateway.post("/v1/embeddings", &long);
    assert_eq!(answer.mistake(), (400, "input_too_long", Some("input")), "{answer:?}");
    let job = json!({"model": "text-embedding-3-small", "task": "embed", "input": "a"});
    let submitted = gateway.post("/v1/jobs", &job);
    assert_eq!((submitted.status, &submitted.body["model"]), (202, &json!(TINY)), "{submitted:?}");
    assert_eq!(submitted.header("x-forebay-model"), Some(TINY));
    let location = submitted.header("location").unwrap().to_owned();
    let record = gateway.get(&format!("{location}?wait=30"));
    assert_eq!(record.body["state"], "succeeded", "{record:?}");
    let unknown = embed(&gateway, "acme/other");
    assert_eq!(unknown.mistake(), (404, "model_not_found", Some("model")));
    assert!(unknown.message().contains("acme/embed"), "{unknown:?}");
}

#[tokio::test]
async fn weights_split_requests_and_a_sticky_caller_stays() {
    let targets = "targets = [{ model = \"tiny\" }, { model = \"twin\" }]";
    let rest = format!("[routes.split]\n{targets}\n[routes.test]\nsticky = true\n{targets}\n");
    let both = TwoFleets::start("bert", "", &rest).await;
    let _one = both.worker(TINY, &[]).await;
    let _other = both.worker(TWIN, &[]).await;
    let gateway = Gateway::of(&both.near, &[]).await;
    let mut counts = BTreeMap::new();
    for _ in 0..40 {
        *counts.entry(by(&embed(&gateway, "split")).0.to_owned()).or_insert(0) += 1;
    }
    // By chance alone one gets fewer than 5 of 40 in one run of some ten million.
    assert!(counts.len() == 2 && counts.values().all(|count| *count >= 5), "{counts:?}");
    let replica = Gateway::of(&both.near, &[]).await;
    let created = both.near.forebay(&["tenants", "create", "acme"]).await;
    assert_eq!(created.code, 0, "{created:?}");
    let mut variants = BTreeSet::new();
    for _ in 0..12 {
        let create = ["keys", "create", "--tenant", "acme", "--json"];
        let created = json_lines(&both.near.forebay(&create).await);
        let bearer = format!("Bearer {}", created[0]["key"].as_str().unwrap());
        let key = [("authorization", bearer.as_str())];
        let body = json!({"model": "test", "input": "a text"});
        let asked = [&gateway, &gateway, &replica].map(|gateway| {
            let answer = gateway.post_with("/v1/embeddings", &body, &key);
            by(&answer).0.to_owned()
        });
        assert!(asked.iter().all(|model| *model == asked[0]), "{asked:?}");
        variants.insert(asked[0].clone());
    }
    assert_eq!(variants.len(), 2, "keys are spread over the variants");
}

#[tokio::test]
async fn a_predicted_wait_over_the_bound_asks_the_remote_model_and_a_short_one_does_not() {
    let both = TwoFleets::start("bert", "", "").await;
    let pools = Pools::new(both.near.store.folder());
    let route = "[routes.r]\nfallback_wait_ms = 5000\ntargets = [{ model = \"tiny\" }, \
                 { model = \"far\", tier = 2 }]";
    let rest = format!("{route}\n{}batch_tokens_max = 4096\n", settings(&pools));
    let own = |min: u32| {
        format!(
            "[models.tiny.pool]\nmin = {min}\nmax = 1\ncold_start_s_prior = 60.0\nidle_s = 600.0"
        )
    };
    both.configure(&own(0), "", &rest);
    let autoscaler = both.near.autoscaler(&[]).await;
    let _far = both.worker(FAR, &[]).await;
    let gateway = Gateway::of(&both.near, &[]).await;
    let led = async || status(&autoscaler).is_some_and(|status| status["leads"] == true);
    until_true("it leads", PATIENT, led).await;
    let away = until("the cold start is known", PATIENT, async || {
        let answer = embed(&gateway, "r");
        (by(&answer).0 == FAR).then_some(answer)
    })
    .await;
    assert_eq!(by(&away), (FAR, "name=r tier=2 reason=predicted_wait"));
    assert_eq!(away.header("x-forebay-wait-ms"), None, "that of the remote model is not known");
    assert!(metric(&gateway.service, "forebay_gateway_routed_total", "predicted_wait") > 0);
    assert!(metric(&gateway.service, "forebay_gateway_route_wait_unknown_total", FAR) > 0);
    both.configure(&own(1), "", &rest);
    let here = until("its own worker is there", PATIENT, async || {
        let answer = embed(&gateway, "r");
        (by(&answer).0 == TINY).then_some(answer)
    })
    .await;
    assert_eq!(by(&here).1, "name=r tier=1 reason=first");
    assert_eq!(here.header("x-forebay-wait-ms"), Some("0"), "{here:?}");
}

fn settings(pools: &Pools) -> String {
    // The tests' own `[worker]` table comes last, so that keys can follow.
    let settings = pools.settings();
    let (worker, rest) = settings.split_once("[autoscaler]").unwrap();
    format!("[autoscaler]{rest}{worker}")
}

#[tokio::test]
async fn a_model_that_does_not_answer_in_its_time_is_given_up_for_the_next() {
    let rest = "[routes.r]\nfallback_after_ms = 700\ntargets = [{ model = \"tiny\" }, { model = \"far\", tier = 2 }]\n";
    let both = TwoFleets::start("bert", "", rest).await;
    // The own model has no worker.
    let _far = both.worker(FAR, &[]).await;
    let gateway = Gateway::of(&both.near, &[]).await;
    assert_eq!(by(&embed(&gateway, "r")), (FAR, "name=r tier=2 reason=timeout"));
    let _own = both.worker(TINY, &[]).await;
    until_true("it answers again", PATIENT, async || by(&embed(&gateway, "r")).0 == TINY).await;
}

#[tokio::test]
async fn a_remote_model_that_fails_is_followed_by_the_own_one() {
    let targets = "targets = [{ model = \"far\" }, { model = \"tiny\", tier = 2 }]";
    let rest =
        format!("[routes.r]\n{targets}\n[routes.never]\nfallback_on_failure = false\n{targets}\n");
    let both = TwoFleets::start("bert", "tries_max = 1\ncircuit_failures = 1000", &rest).await;
    let _far = both.worker(FAR, &[("FOREBAY_WORKER__ATTEMPTS_MAX", "1")]).await;
    let _own = both.worker(TINY, &[]).await;
    let gateway = Gateway::of(&both.near, &[]).await;
    assert_eq!(by(&embed(&gateway, "r")), (FAR, "name=r tier=1 reason=first"));
    both.endpoint.replies([ERROR]);
    assert_eq!(by(&embed(&gateway, "r")), (TINY, "name=r tier=2 reason=failure"));
    both.endpoint.replies([Reply::Cut]);
    assert_eq!(by(&embed(&gateway, "r")), (TINY, "name=r tier=2 reason=failure"));
    both.endpoint.replies([ERROR]);
    let failed = embed(&gateway, "never");
    assert_eq!(failed.mistake(), (500, "attempts_exhausted", None), "{failed:?}");
    // A mistake is one for every model.
    both.endpoint.replies([Reply::Status(400, "", "{\"error\": \"no\"}")]);
    assert_eq!(embed(&gateway, "r").status, 400);
    assert!(
        metric(&gateway.service, "forebay_gateway_route_failures_total", "attempts_exhausted") == 2
    );
}

#[tokio::test]
async fn a_remote_model_whose_circuit_is_open_is_passed_over() {
    let both = TwoFleets::start("bert", "", "").await;
    let pools = Pools::new(both.near.store.folder());
    let url = both.endpoint.url();
    let source = std::fs::canonicalize(both.near.tiny_model()).unwrap();
    both.near.write_config(&format!(
        "[models.tiny]\nsource = \"folder:{}\"\npool.launcher = \"none\"\n\
         [models.far.pool]\nmin = 1\nmax = 1\n[models.far.remote]\nurl = \"{url}\"\nmodel = \"tiny\"\n\
         tries_max = 1\ncircuit_failures = 1\ncircuit_open_ms = 20000\n\
         [routes.r]\nfallback_after_ms = 3000\n\
         targets = [{{ model = \"far\" }}, {{ model = \"tiny\", tier = 2 }}]\n{}attempts_max = 1\n\
         batch_tokens_max = 4096\n",
        source.display(),
        settings(&pools),
    ));
    let _autoscaler = both.near.autoscaler(&[]).await;
    let _own = both.worker(TINY, &[]).await;
    let gateway = Gateway::of(&both.near, &[]).await;
    until_true("the endpoint is called", PATIENT, async || by(&embed(&gateway, "r")).0 == FAR)
        .await;
    both.endpoint.replies(vec![ERROR; 100]);
    assert_eq!(by(&embed(&gateway, "r")), (TINY, "name=r tier=2 reason=failure"));
    let passed_over = async || by(&embed(&gateway, "r")).1 == "name=r tier=2 reason=circuit_open";
    until_true("it is passed over", PATIENT, passed_over).await;
    both.endpoint.replies([]);
    until_true("it is back", PATIENT, async || by(&embed(&gateway, "r")).0 == FAR).await;
}
