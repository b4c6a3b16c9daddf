//! Who is dead and who is not, by a real Redis.

use super::*;
use crate::store::{
    ResultRecord,
    testing::{Redis, record},
};

fn id(text: &str) -> JobId {
    text.parse().unwrap()
}

fn free(deaths: u32) -> Standing {
    Standing::Free { deaths }
}

/// The standing of one job, for a worker named `reader`.
async fn standing(redis: &Redis, job: &str) -> Result<Standing, StoreError> {
    Ok(redis.store.standings("reader", &[id(job)]).await?[0])
}

/// A worker that has journaled a job and has never written a record.
async fn died_of(redis: &Redis, worker: &str, job: &str) {
    redis.store.write_journal(worker, 1, &[id(job)]).await.unwrap();
}

#[test]
fn a_journal_is_read_as_it_was_written() {
    let json = encode(7, &[id("a"), id("b"), id("a")]).unwrap();
    assert_eq!(json, r#"{"7":["a","b","a"]}"#);
    let journal = decode(&json).unwrap();
    assert_eq!(journal.jobs, BTreeSet::from([id("a"), id("b")]));
    assert_eq!(journal.death_of("w"), "w@7");
}

#[test]
fn a_journal_with_a_list_for_each_batch_is_read_too() {
    let journal = decode(r#"{"7":["a","b"],"8":["b","c"]}"#).unwrap();
    assert_eq!(journal.jobs, BTreeSet::from([id("a"), id("b"), id("c")]));
    assert_eq!(decode("[]"), None);
}

#[tokio::test]
async fn a_job_is_held_while_its_worker_has_a_record_and_a_death_once_it_has_none() {
    let redis = Redis::start().await;
    redis.store.heartbeat(&record("other")).await.unwrap();
    redis.store.write_journal("other", 1, &[id("a"), id("b")]).await.unwrap();
    let ids = [id("a"), id("b"), id("c")];
    let standings = redis.store.standings("reader", &ids).await.unwrap();
    assert_eq!(standings, [Standing::Held, Standing::Held, free(0)]);
    redis.store.write_journal("other", 1, &[id("b")]).await.unwrap();
    assert_eq!(standing(&redis, "a").await.unwrap(), free(0), "its worker has done with it");

    redis.store.remove_worker("other").await.unwrap();
    assert_eq!(standing(&redis, "b").await.unwrap(), free(1));
    assert_eq!(standing(&redis, "b").await.unwrap(), free(1), "a death counts once");
    assert_eq!(standing(&redis, "c").await.unwrap(), free(0));
    died_of(&redis, "another", "b").await;
    assert_eq!(standing(&redis, "b").await.unwrap(), free(2));
}

#[tokio::test]
async fn a_job_with_a_record_is_answered_whatever_the_journals_say() {
    let redis = Redis::start().await;
    died_of(&redis, "dead", "a").await;
    let answer = ResultRecord {
        id: id("a"),
        bytes: b"{}".to_vec(),
        ttl_s: 60,
        notify: None,
        ends_tokens: false,
        usage: None,
    };
    redis.store.write_results(&[answer]).await.unwrap();
    assert_eq!(standing(&redis, "a").await.unwrap(), Standing::Answered);
}

#[tokio::test]
async fn a_job_in_the_reader_s_own_journal_is_held_also_without_a_record() {
    let redis = Redis::start().await;
    redis.store.write_journal("reader", 1, &[id("a")]).await.unwrap();
    assert_eq!(standing(&redis, "a").await.unwrap(), Standing::Held);
}

#[tokio::test]
async fn a_record_of_another_version_is_a_worker_that_lives() {
    let mut redis = Redis::start().await;
    for json in ["{\"id\": 7}", "no JSON", ""] {
        let () = redis.ask(&["SET", "forebay:worker:other", json]).await;
        died_of(&redis, "other", "a").await;
        assert_eq!(standing(&redis, "a").await.unwrap(), Standing::Held, "{json}");
    }
}

#[tokio::test]
async fn while_records_can_not_be_written_no_worker_is_dead() {
    let mut redis = Redis::start().await;
    died_of(&redis, "other", "a").await;
    // The store took no writes until a moment ago: the other worker may come next.
    redis.writes_came_through_for(Duration::from_millis(HEARTBEAT_TTL_MS - 1_000));
    assert_eq!(standing(&redis, "a").await.unwrap(), Standing::Held);
    // It took writes for long enough, and takes none any more: the death can't be recorded, so there is none.
    redis.writes_came_through_for(Duration::from_millis(HEARTBEAT_TTL_MS));
    let () = redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(standing(&redis, "a").await.is_err());
    let () = redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let recorded: u32 = redis.ask(&["SCARD", "forebay:suspect:a"]).await;
    assert_eq!(recorded, 0);
    assert_eq!(standing(&redis, "a").await.unwrap(), free(1));
}

#[tokio::test]
async fn a_worker_whose_launcher_reports_its_end_is_dead_at_once() {
    let mut redis = Redis::start().await;
    redis.writes_came_through_for(Duration::ZERO);
    redis.store.heartbeat(&record("other")).await.unwrap();
    redis.store.write_journal("other", 1, &[id("a"), id("b")]).await.unwrap();
    for _ in 0..2 {
        redis.store.worker_ended("other").await.unwrap();
        let ids = [id("a"), id("b"), id("c")];
        let standings = redis.store.standings("reader", &ids).await.unwrap();
        assert_eq!(standings, [free(1), free(1), free(0)]);
    }
    let left: Vec<String> = redis.ask(&["KEYS", "forebay:[cw]*"]).await;
    assert!(left.is_empty(), "{left:?}");
    redis.store.worker_ended("that never was").await.unwrap();
}

#[tokio::test]
async fn a_journal_stays_where_its_deaths_can_not_be_written() {
    let mut redis = Redis::start().await;
    died_of(&redis, "other", "a").await;
    let () = redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(redis.store.worker_ended("other").await.is_err());
    let () = redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(standing(&redis, "a").await.unwrap(), free(1));
}

#[tokio::test]
async fn a_worker_that_starts_again_under_its_name_has_died_each_time() {
    let redis = Redis::start().await;
    for life in 1..=3 {
        redis.store.name_taken_over("reader").await.unwrap();
        assert_eq!(standing(&redis, "a").await.unwrap(), free(life - 1));
        redis.store.write_journal("reader", life.into(), &[id("a")]).await.unwrap();
        assert_eq!(standing(&redis, "a").await.unwrap(), Standing::Held);
    }
}

#[tokio::test]
async fn an_empty_journal_leaves_no_key() {
    let mut redis = Redis::start().await;
    died_of(&redis, "other", "a").await;
    redis.store.write_journal("other", 1, &[]).await.unwrap();
    let left: Vec<String> = redis.ask(&["KEYS", "*"]).await;
    assert!(left.is_empty(), "{left:?}");
}
