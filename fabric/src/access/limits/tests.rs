//! The scripts on a real Redis, beside a model of the window that knows nothing of slices' totals.

use std::time::Duration;

use proptest::prelude::{Strategy as _, any};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;
use crate::store::testing::Redis;

/// Short, so that tests see many windows; its slices are of ten milliseconds.
const TEST_WINDOW_MS: u64 = 2_400;
const SLICE_US: u64 = TEST_WINDOW_MS * 1_000 / SLICES;

fn limits(requests: u64, tokens: u64, in_flight: u64) -> TenantLimits {
    let limit = |limit| (limit > 0).then_some(limit);
    TenantLimits {
        requests_per_minute: limit(requests),
        tokens_per_minute: limit(tokens),
        in_flight: limit(in_flight),
        budget: None,
    }
}

fn lease(id: &str) -> RequestLease {
    RequestLease {
        tenant: "acme".parse().unwrap(),
        id: id.to_owned(),
        lease_ms: 60_000,
        window_ms: TEST_WINDOW_MS,
    }
}

fn request(lease: &RequestLease, limits: TenantLimits, tokens: u64) -> Request<'_> {
    Request { lease, limits, tokens, money: None, waiting_max: 0, patience_ms: 60_000 }
}

async fn ask(store: &Store, id: &str, limits: TenantLimits, tokens: u64) -> Reservation {
    store.reserve(&request(&lease(id), limits, tokens)).await.unwrap()
}

/// Asks as one that waits.
async fn wait(store: &Store, id: &str, limits: TenantLimits) -> Verdict {
    let lease = lease(id);
    let waits = Request { waiting_max: 2, ..request(&lease, limits, 0) };
    store.reserve(&waits).await.unwrap().verdict
}

#[tokio::test]
async fn all_limits_are_reserved_or_none() {
    let redis = Redis::start().await;
    let store = &redis.store;
    let limits = limits(2, 100, 0);
    let first = ask(store, "a", limits, 60).await;
    assert_eq!(first.verdict, Verdict::Granted);
    let reset_us = first.usage.reset_us;
    let usage = Usage { requests: 1, tokens: 60, in_flight: 1, reset_us, spent: 0 };
    assert_eq!(first.usage, usage);
    let window_us = TEST_WINDOW_MS * 1_000;
    assert!((window_us..=window_us + SLICE_US).contains(&usage.reset_us), "{usage:?}");
    let refused = ask(store, "b", limits, 41).await;
    assert_eq!(refused.verdict, Verdict::Tokens);
    assert!((1..=window_us + SLICE_US).contains(&refused.retry_us), "{refused:?}");
    let Usage { requests, tokens, in_flight, .. } = refused.usage;
    assert_eq!((requests, tokens, in_flight), (1, 60, 1), "nothing of it is reserved");
    assert_eq!(ask(store, "c", limits, 40).await.verdict, Verdict::Granted);
    assert_eq!(ask(store, "d", limits, 0).await.verdict, Verdict::Requests);
}

#[tokio::test]
async fn what_was_refused_fits_when_the_answer_says() {
    let redis = Redis::start().await;
    let limits = limits(0, 100, 0);
    for (id, tokens) in [("a", 30), ("b", 30), ("c", 40)] {
        assert_eq!(ask(&redis.store, id, limits, tokens).await.verdict, Verdict::Granted);
        tokio::time::sleep(Duration::from_micros(2 * SLICE_US)).await;
    }
    // It needs the tokens of the first two.
    let refused = ask(&redis.store, "d", limits, 50).await;
    assert_eq!(refused.verdict, Verdict::Tokens);
    tokio::time::sleep(Duration::from_micros(refused.retry_us)).await;
    assert_eq!(ask(&redis.store, "e", limits, 50).await.verdict, Verdict::Granted);
}

#[tokio::test]
async fn settling_returns_what_was_not_used_takes_what_was_used_more_and_happens_once() {
    let redis = Redis::start().await;
    let store = &redis.store;
    let limits = limits(0, 100, 1);
    let reserved = ask(store, "a", limits, 60).await;
    assert_eq!(ask(store, "b", limits, 1).await.verdict, Verdict::InFlight);
    assert!(store.settle(&lease("a"), reserved.slice, -50).await.unwrap());
    assert!(!store.settle(&lease("a"), reserved.slice, -50).await.unwrap(), "settled already");
    let second = ask(store, "b", limits, 90).await;
    assert_eq!((second.verdict, second.usage.tokens), (Verdict::Granted, 100));
    assert!(store.settle(&lease("b"), second.slice, 25).await.unwrap());
    let over = ask(store, "c", limits, 1).await;
    assert_eq!((over.verdict, over.usage.tokens), (Verdict::Tokens, 125));
}

#[tokio::test]
async fn settling_after_redis_lost_its_counts_makes_no_tokens_out_of_nothing() {
    let mut redis = Redis::start().await;
    let reserved = ask(&redis.store, "a", limits(0, 100, 0), 60).await;
    let _: u64 = redis.ask(&["DEL", "forebay:limits:{acme}:window"]).await;
    assert!(redis.store.settle(&lease("a"), reserved.slice, -60).await.unwrap());
    assert_eq!(ask(&redis.store, "b", limits(0, 100, 0), 1).await.usage.tokens, 1);
}

#[tokio::test]
async fn a_slot_whose_gateway_died_is_free_when_its_lease_is_over() {
    let redis = Redis::start().await;
    let limits = limits(0, 0, 1);
    let dies = RequestLease { lease_ms: 30, ..lease("a") };
    assert_eq!(ask(&redis.store, "a", limits, 0).await.verdict, Verdict::Granted);
    redis.store.renew(&dies).await.unwrap();
    tokio::time::sleep(Duration::from_millis(dies.lease_ms)).await;
    let other = ask(&redis.store, "b", limits, 0).await;
    assert_eq!((other.verdict, other.usage.in_flight), (Verdict::Granted, 1));
    assert!(!redis.store.settle(&dies, 0, 0).await.unwrap(), "its lease is over");
}

#[tokio::test]
async fn a_renewed_lease_holds_on_and_a_lost_one_is_entered_again() {
    let mut redis = Redis::start().await;
    let limits = limits(0, 0, 1);
    let first = RequestLease { lease_ms: 2_000, ..lease("a") };
    let granted = redis.store.reserve(&request(&first, limits, 0)).await.unwrap();
    assert_eq!(granted.verdict, Verdict::Granted);
    redis.store.renew(&lease("a")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(first.lease_ms)).await;
    assert_eq!(ask(&redis.store, "b", limits, 0).await.verdict, Verdict::InFlight);
    let _: String = redis.ask(&["FLUSHALL"]).await;
    redis.store.renew(&lease("a")).await.unwrap();
    assert_eq!(ask(&redis.store, "b", limits, 0).await.verdict, Verdict::InFlight);
}

#[tokio::test]
async fn those_that_wait_are_served_in_the_order_in_which_they_came() {
    let redis = Redis::start().await;
    let store = &redis.store;
    let limits = limits(0, 0, 1);
    let mut turns = store.notices(TURNS_CHANNEL).await.unwrap();
    let first = ask(store, "a", limits, 0).await;
    assert_eq!(wait(store, "b", limits).await, Verdict::Waiting);
    assert_eq!(wait(store, "c", limits).await, Verdict::Waiting);
    assert_eq!(wait(store, "d", limits).await, Verdict::InFlight, "two may wait");
    assert!(store.settle(&lease("a"), first.slice, 0).await.unwrap());
    assert_eq!(turns.next_text().await.as_deref(), Some("b"));
    assert_eq!(ask(store, "e", limits, 0).await.verdict, Verdict::InFlight, "it came last");
    assert_eq!(wait(store, "c", limits).await, Verdict::Waiting, "it is not its turn");
    assert_eq!(wait(store, "b", limits).await, Verdict::Granted);
    store.leave_line(&lease("c")).await.unwrap();
    assert!(store.settle(&lease("b"), 0, 0).await.unwrap());
    assert_eq!(ask(store, "e", limits, 0).await.verdict, Verdict::Granted);
}

#[tokio::test]
async fn one_that_waited_and_went_silent_holds_up_no_other() {
    let redis = Redis::start().await;
    let store = &redis.store;
    let limits = limits(0, 0, 1);
    ask(store, "a", limits, 0).await;
    let silent = lease("b");
    let patience_ms = 20;
    let waits = Request { waiting_max: 9, patience_ms, ..request(&silent, limits, 0) };
    assert_eq!(store.reserve(&waits).await.unwrap().verdict, Verdict::Waiting);
    assert_eq!(wait(store, "c", limits).await, Verdict::Waiting);
    tokio::time::sleep(Duration::from_millis(2 * patience_ms)).await;
    store.settle(&lease("a"), 0, 0).await.unwrap();
    assert_eq!(wait(store, "c", limits).await, Verdict::Granted);
}

/// Asks for money in a budget of 1,000.
async fn ask_money(store: &Store, id: &str, name: &str, amount: u64) -> Reservation {
    let lease = lease(id);
    let limits = TenantLimits { budget: Some(1_000), ..TenantLimits::default() };
    let money = Some(Money { name, amount, lease_ms: 60_000 });
    store.reserve(&Request { money, ..request(&lease, limits, 0) }).await.unwrap()
}

async fn spend(redis: &mut Redis, amount: u64) {
    let month = Hour::of_ms(now_ms()).day().month();
    let key = ["HINCRBY", "forebay:usage:{acme}", &format!("cost:{month}"), &amount.to_string()];
    let _: u64 = redis.ask(&key).await;
}

#[tokio::test]
async fn a_budget_holds_over_what_is_spent_and_what_is_reserved() {
    let mut redis = Redis::start().await;
    spend(&mut redis, 300).await;
    let store = &redis.store;
    assert_eq!(ask_money(store, "a", "a", 400).await.verdict, Verdict::Granted);
    let over = ask_money(store, "b", "b", 301).await;
    assert_eq!((over.verdict, over.usage.spent), (Verdict::Budget, 700));
    assert_eq!(over.usage.in_flight, 1, "nothing of it is reserved");
    assert_eq!(ask_money(store, "b", "b", 300).await.verdict, Verdict::Granted);
    assert_eq!(ask_money(store, "c", "c", 1).await.verdict, Verdict::Budget);
    assert_eq!(ask_money(store, "d", "d", 0).await.verdict, Verdict::Granted, "it costs nothing");
}

#[tokio::test]
async fn money_is_settled_to_what_it_cost_until_that_is_summed_up() {
    let redis = Redis::start().await;
    let store = &redis.store;
    assert_eq!(ask_money(store, "a", "a", 1_000).await.verdict, Verdict::Granted);
    let settled = |amount, lease_ms| Some(Money { name: "a", amount, lease_ms });
    assert!(store.settle_with(&lease("a"), 0, 0, settled(600, 60_000)).await.unwrap());
    assert!(!store.settle_with(&lease("a"), 0, 0, settled(0, 0)).await.unwrap(), "settled before");
    let over = ask_money(store, "b", "b", 401).await;
    assert_eq!((over.verdict, over.usage.spent), (Verdict::Budget, 600));
    assert_eq!(ask_money(store, "b", "b", 400).await.verdict, Verdict::Granted);
    assert!(
        store
            .settle_with(&lease("b"), 0, 0, Some(Money { name: "b", amount: 1, lease_ms: 1 }))
            .await
            .unwrap()
    );
    tokio::time::sleep(Duration::from_millis(2)).await;
    let ended = ask_money(store, "c", "c", 400).await;
    assert_eq!((ended.verdict, ended.usage.spent), (Verdict::Granted, 600), "its time is over");
}

#[tokio::test]
async fn a_job_s_money_is_reserved_once_however_often_it_is_submitted() {
    let redis = Redis::start().await;
    for id in ["a", "b", "c"] {
        let granted = ask_money(&redis.store, id, "job", 800).await;
        assert_eq!((granted.verdict, granted.usage.spent), (Verdict::Granted, 0), "{id}");
    }
    assert_eq!(ask_money(&redis.store, "d", "other", 201).await.verdict, Verdict::Budget);
}

/// The window as it is meant: every request that was granted, with the slice that it came in.
#[derive(Default)]
struct Model(Vec<(u64, u64)>);

impl Model {
    /// Requests and tokens of the slices that a window ending in `slice` has.
    fn used(&self, slice: u64) -> (u64, u64) {
        let inside = self.0.iter().filter(|(came, _)| came + SLICES >= slice);
        inside.fold((0, 0), |(requests, used), (_, tokens)| (requests + 1, used + tokens))
    }
}

#[tokio::test]
async fn the_script_decides_as_the_model_does_over_many_windows() {
    let redis = Redis::start().await;
    let limits = limits(4, 250, 0);
    let mut runner = TestRunner::deterministic();
    let mut model = Model::default();
    let mut verdicts = [0_u32; 3];
    let needs = (0..120_u64, 0..30_000_u64, any::<bool>());
    let mut n = 0;
    // A slow machine meets its limits more rarely.
    while n < 500 || verdicts.iter().any(|count| *count < 10) {
        n += 1;
        assert!(n < 5_000, "some verdict is not tried: {verdicts:?}");
        let (tokens, pause_us, pauses) = needs.new_tree(&mut runner).unwrap().current();
        if pauses {
            tokio::time::sleep(Duration::from_micros(pause_us)).await;
        }
        let lease = RequestLease { window_ms: 480, ..lease(&format!("r{n}")) };
        let answer = redis.store.reserve(&request(&lease, limits, tokens)).await.unwrap();
        // The slice in which the server decided, by its own clock.
        let (requests, used) = model.used(answer.slice);
        let expected = match (requests + 1 > 4, used + tokens > 250) {
            (false, false) => Verdict::Granted,
            (true, false) => Verdict::Requests,
            // Of two limits, the one that it takes longer to keep is named.
            (true, true) if answer.verdict == Verdict::Requests => Verdict::Requests,
            (_, true) => Verdict::Tokens,
        };
        assert_eq!(answer.verdict, expected, "request {n} of {tokens} beside {requests}, {used}");
        if answer.verdict == Verdict::Granted {
            model.0.push((answer.slice, tokens));
        }
        verdicts[match answer.verdict {
            Verdict::Granted => 0,
            Verdict::Requests => 1,
            _ => 2,
        }] += 1;
        let (requests, used) = model.used(answer.slice);
        assert_eq!((answer.usage.requests, answer.usage.tokens), (requests, used), "request {n}");
    }
}

/// Two replicas, each with requests at once, ask for more than the limit allows for `windows` windows. Returns the
/// slices in which requests were granted, in order.
async fn saturate(redis: &Redis, limits: TenantLimits, windows: u64) -> Vec<u64> {
    let config = redis.config();
    let replicas = [Store::new(&config).unwrap(), Store::new(&config).unwrap()];
    let clients = (0..8).map(|client| {
        let store = replicas[client % 2].clone();
        let window = Duration::from_millis(TEST_WINDOW_MS);
        async move {
            let began = std::time::Instant::now();
            let mut granted = Vec::new();
            for n in 0.. {
                if began.elapsed() >= window * windows as u32 {
                    break;
                }
                let lease = lease(&format!("{client}-{n}"));
                let answer = store.reserve(&request(&lease, limits, 0)).await.unwrap();
                match answer.verdict {
                    Verdict::Granted => granted.push(answer.slice),
                    _ => tokio::time::sleep(Duration::from_micros(answer.retry_us)).await,
                }
            }
            granted
        }
    });
    let mut granted: Vec<u64> = futures_util::future::join_all(clients).await.concat();
    granted.sort_unstable();
    granted
}

#[tokio::test]
async fn two_replicas_never_exceed_a_limit_in_any_window_and_grant_nearly_all_of_it() {
    const LIMIT: u64 = 100;
    const WINDOWS: u64 = 4;
    let redis = Redis::start().await;
    let granted = saturate(&redis, limits(LIMIT, 0, 0), WINDOWS).await;
    // Whenever it begins, a window of 240 slices' time lies within 241 slices of Redis' clock.
    for (at, first) in granted.iter().enumerate() {
        let inside = granted[at..].iter().take_while(|slice| *slice - first <= SLICES).count();
        assert!(inside as u64 <= LIMIT, "{inside} from slice {first} on");
    }
    let whole = granted.iter().take_while(|slice| *slice - granted[0] < WINDOWS * SLICES).count();
    let share = whole as f64 / (WINDOWS * LIMIT) as f64;
    assert!(share >= 0.99, "{share}: {whole} of {}", WINDOWS * LIMIT);
}
