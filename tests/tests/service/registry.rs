//! The registry of workers: an index by Redis' own clock, which says who is alive without a look at all keys.

use forebay_tests::patience::{SOON, until, until_true};
use forebay_tests::stack::{GRACE, Stack};
use redis::AsyncCommands as _;
use serde_json::json;

use super::commands::json_lines;

const INDEX: &str = "forebay:workers";

#[tokio::test]
async fn a_worker_keeps_the_index_dated_by_redis_and_free_of_the_dead() {
    let stack = Stack::start().await.tiny();
    let mut redis = stack.redis().await;
    let () = redis.zadd(INDEX, "dead-for-long", 1).await.unwrap();
    let mut worker = stack.worker(&[]).await;
    let (id, beat_at_ms) = until("only the living are in the index", SOON, async || {
        let found: Vec<(String, u64)> = redis.zrange_withscores(INDEX, 0, -1).await.unwrap();
        let alone = found.len() == 1 && found[0].0 != "dead-for-long";
        found.into_iter().next().filter(|_| alone)
    })
    .await;
    let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
    assert!((seconds * 1_000).abs_diff(beat_at_ms) < 60_000, "{beat_at_ms} at {seconds} s");
    let ttl_ms: i64 = redis.pttl(INDEX).await.unwrap();
    assert!((1..=10_000).contains(&ttl_ms), "an index that stays: {ttl_ms}");
    assert!(redis.exists::<_, bool>(format!("forebay:worker:{id}")).await.unwrap());

    worker.signal("TERM");
    assert_eq!(worker.exit_code(GRACE).await, 0);
    assert!(!redis.exists::<_, bool>(INDEX).await.unwrap(), "a clean exit takes the entry along");
}

#[tokio::test]
async fn a_worker_with_a_wrong_clock_is_listed_without_a_scan_of_keys() {
    let stack = Stack::start().await;
    let mut redis = stack.redis().await;
    // A clock that is an hour slow, in the record; the entry is dated by Redis.
    let record = json!({
        "id": "slow-clock", "model": "m", "state": "ready", "device": "cpu", "dtype": "f32", "host": "h",
        "pid": 1, "version": "0", "started_at_ms": 0, "beat_at_ms": 3_600_000, "progress_at_ms": 0,
        "in_flight": 0, "jobs_done": 0, "tokens_done": 0, "busy_ms": 0, "load_ms": 0,
        "slots_free_tokens": 0,
    });
    let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
    let entries = [(seconds * 1_000, "slow-clock"), (seconds * 1_000, "without-a-record")];
    let () = redis.zadd_multiple(INDEX, &entries).await.unwrap();
    let () = redis.set("forebay:worker:slow-clock", record.to_string()).await.unwrap();

    let listed = json_lines(&stack.forebay(&["workers", "--json"]).await);
    assert_eq!(listed, [record]);
    let asked: String =
        redis::cmd("INFO").arg("commandstats").query_async(&mut redis).await.unwrap();
    assert!(asked.contains("cmdstat_zrevrange"), "{asked}");
    assert!(!asked.contains("cmdstat_scan") && !asked.contains("cmdstat_keys"), "{asked}");
}

#[tokio::test]
async fn a_killed_worker_leaves_the_list_when_its_record_expires() {
    let stack = Stack::start().await.tiny();
    let mut worker = stack.worker(&[]).await;
    assert_eq!(json_lines(&stack.forebay(&["workers", "--json"]).await).len(), 1);
    worker.signal("KILL");
    assert_eq!(worker.exit_code(SOON).await, 128 + 9);
    until_true("no worker is listed", SOON, async || {
        json_lines(&stack.forebay(&["workers", "--json"]).await).is_empty()
    })
    .await;
}
