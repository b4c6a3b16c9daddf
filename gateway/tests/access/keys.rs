//! Verifying keys: who is let in, and how soon no more.

use std::time::Duration;

use forebay_fabric::access::TenantLimits;
use forebay_gateway::access::{Denied, Scope, Verifier};
use forebay_schemas::names::ACCESS_CHANNEL;

use super::redis::{Redis, until};

/// Two replicas that hear of changes.
async fn replicas(redis: &Redis) -> [Verifier; 2] {
    let replicas = [(); 2].map(|()| Verifier::start(&redis.store(), &redis.stop));
    redis.subscribed(ACCESS_CHANNEL, 2).await;
    replicas
}

#[tokio::test]
async fn a_key_is_let_in_for_its_scopes_and_no_other_text_is() {
    let redis = Redis::start().await;
    let credential = redis.tenant("acme", TenantLimits::default()).await;
    let other = redis.key("acme", None).await.expose();
    let [verifier, _] = replicas(&redis).await;
    let key = credential.expose();
    let caller = verifier.verify(&key).await.unwrap();
    assert_eq!((caller.tenant().id.as_str(), caller.key()), ("acme", credential.id()));
    assert!(caller.require(Scope::Submit).is_ok());
    let denied = caller.require(Scope::Admin).unwrap_err();
    assert_eq!((denied.status(), denied.to_string().contains("`admin`")), (403, true), "{denied}");
    let secret_of_another = format!("{}{}", &key[..17], &other[17..]);
    let of_no_key = format!("fbk_aaaaaaaaaaaa{}", &key[16..]);
    for wrong in ["", "fake", "sk-abc", &key[..key.len() - 1], &secret_of_another, &of_no_key] {
        let denied = verifier.verify(wrong).await.unwrap_err();
        assert!(matches!(denied, Denied::Unknown), "{wrong}: {denied}");
        assert!(!denied.to_string().contains("acme"), "{denied}");
    }
}

#[tokio::test]
async fn a_revoked_key_stops_on_two_replicas_within_a_second() {
    let redis = Redis::start().await;
    let credential = redis.tenant("acme", TenantLimits::default()).await;
    let stays = redis.key("acme", None).await.expose();
    let replicas = replicas(&redis).await;
    let key = credential.expose();
    for replica in &replicas {
        replica.verify(&key).await.unwrap();
    }
    redis.store().revoke_key(credential.id()).await.unwrap();
    for replica in &replicas {
        let took = until("the key is revoked", async || {
            matches!(replica.verify(&key).await, Err(Denied::Revoked(_)))
        });
        assert!(took.await < Duration::from_secs(1));
        replica.verify(&stays).await.unwrap();
    }
}

#[tokio::test]
async fn a_new_key_works_at_once_although_it_was_tried_before() {
    let redis = Redis::start().await;
    let replicas = replicas(&redis).await;
    // Taken out of Redis, tried, and put back as if it were created then.
    let key = redis.tenant("acme", TenantLimits::default()).await;
    let json: String = redis.ask(&["HGET", "forebay:keys", key.id().as_str()]).await;
    let _: u64 = redis.ask(&["HDEL", "forebay:keys", key.id().as_str()]).await;
    for replica in &replicas {
        assert!(matches!(replica.verify(&key.expose()).await, Err(Denied::Unknown)));
    }
    let _: u64 = redis.ask(&["HSET", "forebay:keys", key.id().as_str(), &json]).await;
    let _: u64 = redis.ask(&["PUBLISH", ACCESS_CHANNEL, key.id().as_str()]).await;
    for replica in &replicas {
        let took = until("it works", async || replica.verify(&key.expose()).await.is_ok()).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[tokio::test]
async fn the_keys_of_a_deleted_tenant_stop_and_do_not_come_back_with_another_of_its_id() {
    let redis = Redis::start().await;
    let key = redis.tenant("acme", TenantLimits::default()).await;
    let [verifier, _] = replicas(&redis).await;
    verifier.verify(&key.expose()).await.unwrap();
    let json: String = redis.ask(&["HGET", "forebay:keys", key.id().as_str()]).await;
    redis.store().delete_tenant(&"acme".parse().unwrap()).await.unwrap();
    // As if the command had been interrupted before it removed the keys.
    let _: u64 = redis.ask(&["HSET", "forebay:keys", key.id().as_str(), &json]).await;
    let is_unknown = async || matches!(verifier.verify(&key.expose()).await, Err(Denied::Unknown));
    until("the key has stopped", is_unknown).await;
    let newer = redis.tenant("acme", TenantLimits::default()).await;
    until("the newer key works", async || verifier.verify(&newer.expose()).await.is_ok()).await;
    assert!(is_unknown().await);
}

#[tokio::test]
async fn an_expired_key_stops_when_it_expires() {
    let redis = Redis::start().await;
    redis.tenant("acme", TenantLimits::default()).await;
    let [verifier, _] = replicas(&redis).await;
    let key = redis.key("acme", Some(Duration::from_millis(1))).await.expose();
    until("it has expired", async || {
        matches!(verifier.verify(&key).await, Err(Denied::Expired(_)))
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_hears_of_nothing_trusts_a_key_for_five_seconds_at_most() {
    let redis = Redis::start().await;
    let credential = redis.tenant("acme", TenantLimits::default()).await;
    let [verifier, _] = replicas(&redis).await;
    let key = credential.expose();
    verifier.verify(&key).await.unwrap();
    // Revoked behind its back: nothing is published.
    let json: String = redis.ask(&["HGET", "forebay:keys", credential.id().as_str()]).await;
    let json = json.replacen('{', "{\"revoked_at_ms\":1,", 1);
    let _: u64 = redis.ask(&["HSET", "forebay:keys", credential.id().as_str(), &json]).await;
    let took = until("the key is revoked", async || {
        matches!(verifier.verify(&key).await, Err(Denied::Revoked(_)))
    });
    assert!(took.await < Duration::from_secs(8), "five seconds, and a slow machine");
}

#[tokio::test]
async fn a_subscription_that_was_lost_is_made_again_and_what_it_missed_is_forgotten() {
    let redis = Redis::start().await;
    let credential = redis.tenant("acme", TenantLimits::default()).await;
    let other = redis.key("acme", None).await;
    let [verifier, _] = replicas(&redis).await;
    for key in [&credential, &other] {
        verifier.verify(&key.expose()).await.unwrap();
    }
    let _: u64 = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    redis.store().revoke_key(credential.id()).await.unwrap();
    until("the key is revoked", async || {
        matches!(verifier.verify(&credential.expose()).await, Err(Denied::Revoked(_)))
    })
    .await;
    redis.subscribed(ACCESS_CHANNEL, 2).await;
    verifier.verify(&other.expose()).await.unwrap();
    redis.store().revoke_key(other.id()).await.unwrap();
    let took = until("the other one too", async || verifier.verify(&other.expose()).await.is_err());
    assert!(took.await < Duration::from_secs(1));
}

#[tokio::test]
async fn without_redis_a_key_is_trusted_for_five_seconds_and_then_none_is() {
    let mut redis = Redis::start().await;
    let key = redis.tenant("acme", TenantLimits::default()).await.expose();
    let [verifier, _] = replicas(&redis).await;
    verifier.verify(&key).await.unwrap();
    redis.kill();
    verifier.verify(&key).await.unwrap();
    let took = until("it can't be looked up", async || {
        matches!(verifier.verify(&key).await, Err(Denied::Unavailable(_)))
    });
    assert!(took.await < Duration::from_secs(8), "five seconds, and a slow machine");
    let denied = verifier.verify(&key).await.unwrap_err();
    assert_eq!(denied.status(), 503);
    assert!(!denied.to_string().contains("127.0.0.1"), "{denied}");
}
