//! Tests of token streams, against a real Redis.

use super::*;
use crate::store::testing::Redis;

fn append(id: &JobId, owner: &str, at: u32, ids: &[u32]) -> TokenAppend {
    let text = format!("{ids:?}");
    let chunk = TokenChunk { at, ids: ids.to_vec(), text, logprobs: None };
    TokenAppend { id: id.clone(), owner: owner.into(), chunk, ttl_s: 60, notify: None }
}

fn ids(chunks: &[TokenChunk]) -> Vec<u32> {
    chunks.iter().flat_map(|chunk| chunk.ids.clone()).collect()
}

#[tokio::test]
async fn entries_follow_each_other_and_are_read_from_any_token_on() {
    let mut redis = Redis::start().await;
    let id = JobId::random();
    let appends =
        [append(&id, "a", 0, &[10, 11]), append(&id, "a", 2, &[12]), append(&id, "a", 3, &[13])];
    let store = redis.store.clone();
    assert_eq!(store.append_tokens(&appends).await.unwrap(), [Appended::Written; 3]);
    for (from, expected) in [
        (0, vec![10, 11, 12, 13]),
        (1, vec![10, 11, 12, 13]),
        (2, vec![12, 13]),
        (3, vec![13]),
        (4, vec![]),
        (u32::MAX, vec![]),
    ] {
        assert_eq!(ids(&store.read_tokens(&id, from, 10).await.unwrap()), expected, "from {from}");
    }
    assert_eq!(store.read_tokens(&id, 0, 1).await.unwrap(), [appends[0].chunk.clone()]);
    assert_eq!(store.read_tokens(&JobId::random(), 0, 1).await.unwrap(), []);
    let ttl: i64 = redis.ask(&["TTL", &id.tokens_key()]).await;
    assert!((50..=60).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn an_entry_that_is_written_again_is_there_once_and_a_gap_is_named() {
    let redis = Redis::start().await;
    let id = JobId::random();
    let store = &redis.store;
    let first = append(&id, "a", 0, &[10, 11]);
    for _ in 0..2 {
        assert_eq!(
            store.append_tokens(std::slice::from_ref(&first)).await.unwrap(),
            [Appended::Written]
        );
    }
    let gap = store.append_tokens(&[append(&id, "a", 4, &[14])]).await.unwrap();
    assert_eq!(gap, [Appended::Ends { at: 2 }]);
    let overlap = store.append_tokens(&[append(&id, "a", 1, &[11, 12])]).await.unwrap();
    assert_eq!(overlap, [Appended::Ends { at: 2 }]);
    assert_eq!(ids(&store.read_tokens(&id, 0, 10).await.unwrap()), [10, 11]);
}

#[tokio::test]
async fn who_claims_a_stream_goes_on_from_its_end_and_fences_all_others() {
    let redis = Redis::start().await;
    let id = JobId::random();
    let store = &redis.store;
    assert_eq!(store.claim_tokens(&id, "none yet").await.unwrap(), []);
    let fenced = store.append_tokens(&[append(&id, "a", 0, &[10])]).await.unwrap();
    assert_eq!(fenced, [Appended::Fenced], "it was claimed before its first entry");
    store.append_tokens(&[append(&id, "none yet", 0, &[10, 11])]).await.unwrap();
    for owner in ["b", "c"] {
        assert_eq!(ids(&store.claim_tokens(&id, owner).await.unwrap()), [10, 11]);
    }
    let written = store
        .append_tokens(&[
            append(&id, "none yet", 2, &[12]),
            append(&id, "b", 2, &[12]),
            append(&id, "c", 2, &[12]),
        ])
        .await
        .unwrap();
    assert_eq!(written, [Appended::Fenced, Appended::Fenced, Appended::Written]);
    assert_eq!(ids(&store.read_tokens(&id, 0, 10).await.unwrap()), [10, 11, 12]);
}

#[tokio::test]
async fn a_reader_is_woken_by_each_entry_on_the_job_s_own_channel() {
    let redis = Redis::start().await;
    let id = JobId::random();
    let mut notices = redis.store.token_notices("mine").await.unwrap();
    let notify = Some("mine".to_owned());
    let appends = [
        TokenAppend { notify: notify.clone(), ..append(&id, "a", 0, &[1]) },
        append(&id, "a", 1, &[2]),
        TokenAppend { notify, ..append(&id, "a", 2, &[3]) },
    ];
    redis.store.append_tokens(&appends).await.unwrap();
    assert_eq!(notices.next().await, Some(id.clone()));
    assert_eq!(notices.next().await, Some(id));
}

#[tokio::test]
async fn a_stream_that_was_lost_is_written_again_from_its_beginning() {
    let mut redis = Redis::start().await;
    let id = JobId::random();
    let store = redis.store.clone();
    store.append_tokens(&[append(&id, "a", 0, &[10, 11])]).await.unwrap();
    let _: i64 = redis.ask(&["DEL", &id.tokens_key()]).await;
    let lost = store.append_tokens(&[append(&id, "a", 2, &[12])]).await.unwrap();
    assert_eq!(lost, [Appended::Ends { at: 0 }]);
    let again = store.append_tokens(&[append(&id, "a", 0, &[10, 11, 12])]).await.unwrap();
    assert_eq!(again, [Appended::Written]);
}

#[tokio::test]
async fn a_suspicion_that_is_forgotten_takes_the_tokens_of_earlier_attempts_with_it() {
    let redis = Redis::start().await;
    let id = JobId::random();
    redis.store.append_tokens(&[append(&id, "a", 0, &[10])]).await.unwrap();
    redis.store.forget_suspicion(&id).await.unwrap();
    assert_eq!(redis.store.read_tokens(&id, 0, 10).await.unwrap(), []);
    let again = redis.store.append_tokens(&[append(&id, "b", 0, &[10])]).await.unwrap();
    assert_eq!(again, [Appended::Written]);
}

#[test]
fn entries_that_do_not_follow_each_other_are_not_taken() {
    let chunk = |at, ids: &[u32]| {
        TokenChunk { at, ids: ids.to_vec(), ..TokenChunk::default() }.encode().unwrap()
    };
    let of = |entries| ids(&following(0, entries).unwrap());
    assert_eq!(of(vec![chunk(0, &[1, 2]), Vec::new(), chunk(2, &[3])]), [1, 2, 3]);
    assert_eq!(of(vec![chunk(0, &[1, 2]), chunk(3, &[4])]), [1, 2], "the oldest were trimmed");
    assert_eq!(of(vec![chunk(1, &[2]), chunk(2, &[3])]), [] as [u32; 0]);
}
