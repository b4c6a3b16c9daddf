//! Who is listed, by a real Redis.

use crate::store::testing::{Redis, record};

#[tokio::test]
async fn workers_are_listed_by_id_until_they_are_removed() {
    let mut redis = Redis::start().await;
    for id in ["b", "a", "c"] {
        redis.store.heartbeat(&record(id)).await.unwrap();
    }
    redis.store.remove_worker("c").await.unwrap();
    let workers = redis.store.workers().await.unwrap();
    assert_eq!(workers, [record("a"), record("b")]);
    let ttl_ms: i64 = redis.ask(&["PTTL", "forebay:worker:a"]).await;
    assert!((1..=10_000).contains(&ttl_ms), "{ttl_ms}");
    let left: Vec<String> = redis.ask(&["ZRANGE", "forebay:workers", "0", "-1"]).await;
    assert_eq!(left.len(), 2, "{left:?}");
}

#[tokio::test]
async fn a_record_that_can_not_be_read_is_a_worker_all_the_same() {
    let mut redis = Redis::start().await;
    for id in ["newer", "older", "expired"] {
        redis.store.heartbeat(&record(id)).await.unwrap();
    }
    redis.store.heartbeat(&record("own")).await.unwrap();
    let () = redis.ask(&["SET", "forebay:worker:older", "{}"]).await;
    let () = redis.ask(&["SET", "forebay:worker:newer", "\u{1}"]).await;
    let () = redis.ask(&["DEL", "forebay:worker:expired"]).await;
    let registered = redis.store.registered().await.unwrap();
    assert_eq!(registered.workers, [record("own")]);
    assert_eq!(registered.unreadable, ["newer", "older"]);
}

#[tokio::test]
async fn the_living_remove_the_entries_of_the_dead() {
    let mut redis = Redis::start().await;
    let () = redis.ask(&["ZADD", "forebay:workers", "1", "dead-for-long"]).await;
    redis.store.heartbeat(&record("own")).await.unwrap();
    let left: Vec<String> = redis.ask(&["ZRANGE", "forebay:workers", "0", "-1"]).await;
    assert_eq!(left, ["own"]);
}
