//! The exported JSON Schemas say what really goes over the wire.

use std::fs;

use forebay_tests::binaries::checkout;
use forebay_tests::job::{Codec, Job};
use forebay_tests::publisher::BATCH;
use forebay_tests::record::result;
use forebay_tests::stack::SharedFleet;
use jsonschema::Validator;
use serde_json::{Value, json};

fn schema(name: &str) -> Validator {
    let path = checkout().join("schemas/json").join(name);
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let schema: Value = serde_json::from_str(&text).unwrap();
    jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_valid(validator: &Validator, instance: &Value) {
    let errors: Vec<String> = validator
        .iter_errors(instance)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?} in {instance}");
}

#[tokio::test]
async fn jobs_that_are_done_and_records_of_all_kinds_keep_their_schemas() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let jobs = schema("job.schema.json");
    let results = schema("result.schema.json");
    let good = [
        Job::embed("text"),
        Job::embed(json!(["one", "two"]))
            .with("metadata", json!({"key": "value"}))
            .with("result_ttl_s", 60),
        Job::embed("text")
            .with("params", json!({"normalize": false, "dimensions": 8, "truncate": true})),
        Job::embed("text")
            .with("expires_in_ms", 60_000)
            .with("notify", "channel")
            .with("tenant", "someone"),
        Job::embed("text").with("submitted_at_ms", 1_700_000_000_000_u64).with("expires_in_ms", 1),
    ];
    for job in &good {
        assert_valid(&jobs, job.fields());
    }
    let bad = [
        Job::embed(7),
        Job::embed("text").with("v", 2),
        Job::embed("text").with("task", "translate"),
    ];
    for job in &bad {
        assert!(!jobs.is_valid(job.fields()), "{}", job.fields());
    }
    for job in good.iter().chain(&bad) {
        publisher.submit(BATCH, job, Codec::Json).await;
        assert_valid(&results, &result(&mut redis, job.id()).await.fields);
    }
}
