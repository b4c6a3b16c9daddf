//! The exported JSON Schemas say what really goes over the wire.

use boon::{Compiler, SchemaIndex, Schemas};
use forebay_tests::binaries::checkout;
use forebay_tests::job::{Codec, Job};
use forebay_tests::publisher::BATCH;
use forebay_tests::record::result;
use forebay_tests::stack::SharedFleet;
use serde_json::{Value, json};

/// A schema, ready to validate with.
struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Schema {
    fn read(name: &str) -> Self {
        let path = checkout().join("schemas/json").join(name);
        let mut schemas = Schemas::new();
        let compiled = Compiler::new().compile(&path.to_string_lossy(), &mut schemas);
        let index = compiled.unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
        Self { schemas, index }
    }

    fn is_valid(&self, instance: &Value) -> bool {
        self.schemas.validate(instance, self.index).is_ok()
    }

    fn assert_valid(&self, instance: &Value) {
        if let Err(error) = self.schemas.validate(instance, self.index) {
            panic!("{error} in {instance}");
        }
    }
}

#[tokio::test]
async fn jobs_that_are_done_and_records_of_all_kinds_keep_their_schemas() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let jobs = Schema::read("job.schema.json");
    let results = Schema::read("result.schema.json");
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
        jobs.assert_valid(job.fields());
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
        results.assert_valid(&result(&mut redis, job.id()).await.fields);
    }
}
