//! The lease in a real Redis: its scripts are what keeps two autoscalers apart.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use forebay_fabric::{Config, Store};

const LEASE_MS: u64 = 60_000;

/// A server with an empty store, which ends with the test.
struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn store() -> (Redis, Store) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let server = Command::new("redis-server")
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server, which `scripts/test` installs");
    let redis = Redis(server);
    let redis_url = format!("redis://127.0.0.1:{port}/0").as_str().into();
    let store = Store::new(&Config { redis_url, ..Config::default() }).unwrap();
    let began = Instant::now();
    while let Err(error) = store.probe().await {
        assert!(began.elapsed() < Duration::from_secs(60), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (redis, store)
}

#[tokio::test]
async fn a_lease_holds_for_the_token_that_it_was_taken_with_and_for_no_other() {
    let (_redis, store) = store().await;
    assert!(!store.holds_lease(1).await.unwrap() && !store.is_led().await.unwrap());
    let first = store.take_lease("first", LEASE_MS).await.unwrap();
    assert_eq!(first.holder, "first");
    assert!(store.holds_lease(first.token).await.unwrap());
    assert!(!store.holds_lease(first.token - 1).await.unwrap(), "a token of another leader");
    assert!(!store.holds_lease(first.token + 1).await.unwrap());
    let renewed = store.take_lease("first", LEASE_MS).await.unwrap();
    assert_eq!(renewed, first, "renewing keeps the token");
    let second = store.take_lease("second", LEASE_MS).await.unwrap();
    assert_eq!(second, first, "the lease is taken, and its holder is named");
}

#[tokio::test]
async fn one_that_lost_its_lease_does_not_end_its_successor_s() {
    let (_redis, store) = store().await;
    let first = store.take_lease("first", 1).await.unwrap();
    let began = Instant::now();
    while store.is_led().await.unwrap() {
        assert!(began.elapsed() < Duration::from_secs(60), "a lease of a millisecond ends");
    }
    let second = store.take_lease("second", LEASE_MS).await.unwrap();
    assert!(second.token > first.token, "tokens grow: {} after {}", second.token, first.token);
    store.release_lease(first.token).await.unwrap();
    assert!(store.holds_lease(second.token).await.unwrap(), "it is not the first one's to end");
    store.release_lease(second.token).await.unwrap();
    assert!(!store.is_led().await.unwrap());
}
