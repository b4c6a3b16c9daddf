//! Limits over two replicas: waiting for a slot, leaving, settling, and Redis away.

use std::time::Duration;

use forebay_fabric::access::TenantLimits;
use forebay_gateway::access::{Limiter, Need, Outcome, Permit, Reason, Refusal, Tenant};
use forebay_schemas::names::TURNS_CHANNEL;
use tokio::time::Instant;

use super::redis::{Redis, SOON, until};

const ONE_AT_ONCE: TenantLimits = TenantLimits {
    requests_per_minute: None,
    tokens_per_minute: None,
    in_flight: Some(1),
    budget: None,
};

fn tenant(limits: TenantLimits) -> Tenant {
    Tenant { id: "acme".parse().unwrap(), name: String::new(), created_at_ms: 1, limits }
}

/// Two replicas that hear of turns.
async fn replicas(redis: &Redis) -> [Limiter; 2] {
    let replicas = [(); 2].map(|()| Limiter::start(&redis.store(), &redis.stop));
    redis.subscribed(TURNS_CHANNEL, 2).await;
    replicas
}

fn tokens(tokens: u64) -> Need {
    Need { tokens: tokens.into(), ..Need::default() }
}

fn waits() -> Need {
    Need { wait_until: Some(Instant::now() + SOON), ..Need::default() }
}

async fn granted(limiter: &Limiter, tenant: &Tenant, need: Need) -> Permit {
    match limiter.reserve(tenant, need).await.unwrap() {
        Outcome::Granted(permit) => permit,
        other @ Outcome::Refused(_) => panic!("{other:?}"),
    }
}

async fn refused(limiter: &Limiter, tenant: &Tenant, need: Need) -> Refusal {
    match limiter.reserve(tenant, need).await.unwrap() {
        Outcome::Refused(refusal) => refusal,
        other @ Outcome::Granted(_) => panic!("{other:?}"),
    }
}

/// How many requests stand in the line.
async fn line(redis: &Redis) -> u64 {
    redis.ask(&["ZCARD", "forebay:limits:{acme}:waiting"]).await
}

async fn in_flight(redis: &Redis) -> u64 {
    redis.ask(&["ZCARD", "forebay:limits:{acme}:in_flight"]).await
}

#[tokio::test]
async fn a_limit_holds_over_all_replicas_and_settling_returns_what_was_not_used() {
    let redis = Redis::start().await;
    let [one, two] = replicas(&redis).await;
    let tenant = tenant(TenantLimits { tokens_per_minute: Some(100), ..TenantLimits::default() });
    let permit = granted(&one, &tenant, tokens(90)).await;
    let share = permit.standing().tokens.unwrap();
    assert_eq!((share.limit, share.remaining), (100, 10));
    assert!((60_000..=60_250).contains(&share.reset_ms), "{share:?}");
    let refusal = refused(&two, &tenant, tokens(11)).await;
    assert_eq!(refusal.reason, Reason::Tokens);
    assert!((50_000..=60_250).contains(&refusal.retry_ms.unwrap()), "{refusal:?}");
    permit.settle(20_u64);
    until("the rest is returned", async || {
        matches!(two.reserve(&tenant, tokens(80)).await.unwrap(), Outcome::Granted(_))
    })
    .await;
    let never = refused(&two, &tenant, tokens(101)).await;
    assert_eq!(
        (never.reason, never.retry_ms),
        (Reason::NeverFits { tokens: 101, limit: 100 }, None)
    );
}

#[tokio::test]
async fn one_over_the_limit_waits_for_a_slot_of_another_replica_and_gets_it_at_once() {
    let redis = Redis::start().await;
    let [one, two] = replicas(&redis).await;
    let tenant = tenant(ONE_AT_ONCE);
    let first = granted(&one, &tenant, Need::default()).await;
    assert_eq!(refused(&two, &tenant, Need::default()).await.reason, Reason::InFlight);
    let waiting = tokio::spawn({
        let tenant = tenant.clone();
        async move { granted(&two, &tenant, waits()).await }
    });
    until("it stands in the line", async || line(&redis).await == 1).await;
    first.settle(0_u64);
    let _second = waiting.await.unwrap();
    assert_eq!((line(&redis).await, in_flight(&redis).await), (0, 1));
}

#[tokio::test]
async fn those_that_wait_on_two_replicas_are_admitted_in_the_order_in_which_they_came() {
    let redis = Redis::start().await;
    let replicas = replicas(&redis).await;
    let tenant = tenant(ONE_AT_ONCE);
    let first = granted(&replicas[0], &tenant, Need::default()).await;
    let (admitted, mut order) = tokio::sync::mpsc::channel(16);
    for n in 0..6_u64 {
        let limiter = replicas[n as usize % 2].clone();
        let tenant = tenant.clone();
        let admitted = admitted.clone();
        tokio::spawn(async move {
            let permit = granted(&limiter, &tenant, waits()).await;
            admitted.send(n).await.unwrap();
            permit.settle(0_u64);
        });
        until("it stands in the line", async || line(&redis).await == n + 1).await;
    }
    let began = Instant::now();
    first.settle(0_u64);
    for n in 0..6 {
        assert_eq!(order.recv().await, Some(n));
    }
    // Woken, and not found by asking once a second.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn one_that_waits_is_refused_at_its_deadline_and_leaves_the_line() {
    let redis = Redis::start().await;
    let [limiter, _] = replicas(&redis).await;
    let tenant = tenant(ONE_AT_ONCE);
    let _first = granted(&limiter, &tenant, Need::default()).await;
    let deadline = Instant::now() + Duration::from_millis(200);
    let need = Need { wait_until: Some(deadline), ..Need::default() };
    let refusal = refused(&limiter, &tenant, need).await;
    assert!(Instant::now() >= deadline);
    assert_eq!((refusal.reason, refusal.retry_ms), (Reason::InFlight, Some(1_000)));
    until("the line is empty", async || line(&redis).await == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot_and_its_position() {
    let redis = Redis::start().await;
    let [limiter, _] = replicas(&redis).await;
    let tenant = tenant(ONE_AT_ONCE);
    let first = granted(&limiter, &tenant, Need::default()).await;
    let waiting = tokio::spawn({
        let limiter = limiter.clone();
        let tenant = tenant.clone();
        async move { limiter.reserve(&tenant, waits()).await.map(|_| ()) }
    });
    until("it stands in the line", async || line(&redis).await == 1).await;
    waiting.abort();
    until("the line is empty", async || line(&redis).await == 0).await;
    drop(first);
    until("the slot is free", async || in_flight(&redis).await == 0).await;
    limiter.drain().await;
}

#[tokio::test]
async fn without_redis_only_tenants_without_limits_are_admitted() {
    let mut redis = Redis::start().await;
    let [limiter, _] = replicas(&redis).await;
    redis.kill();
    let began = Instant::now();
    let error = limiter.reserve(&tenant(ONE_AT_ONCE), Need::default()).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    granted(&limiter, &tenant(TenantLimits::default()), tokens(1)).await;
}
