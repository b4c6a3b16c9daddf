//! A private Redis, and patience.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use forebay_fabric::{
    Config, Store,
    access::{Credential, NewKey, Scope, TenantLimits},
};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long anything may take on a busy machine that takes no time otherwise.
pub const SOON: Duration = Duration::from_secs(30);

/// A running, empty server. It ends with this value, and with it what it was stopped by.
pub struct Redis {
    server: Child,
    port: u16,
    pub stop: CancellationToken,
    _stops: DropGuard,
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Redis {
    pub async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server, which `scripts/test` installs");
        let stop = CancellationToken::new();
        let redis = Self { server, port, _stops: stop.clone().drop_guard(), stop };
        let store = redis.store();
        until("Redis answers", async || store.probe().await.is_ok()).await;
        redis
    }

    /// A store on it, with connections of its own: each replica has one.
    pub fn store(&self) -> Store {
        let redis_url = format!("redis://127.0.0.1:{}/0", self.port).as_str().into();
        Store::new(&Config { redis_url, ..Config::default() }).unwrap()
    }

    /// Runs a command past the stores.
    pub async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/0", self.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.unwrap()
    }

    /// Waits until so many subscribe to a channel.
    pub async fn subscribed(&self, channel: &str, subscribers: u64) {
        until("all replicas are subscribed", async || {
            let (_, count): (String, u64) = self.ask(&["PUBSUB", "NUMSUB", channel]).await;
            count == subscribers
        })
        .await;
    }

    /// Ends the server.
    pub fn kill(&mut self) {
        // One that has ended is killed already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Creates a tenant with these limits, and a key of it with the scope `submit`.
    pub async fn tenant(&self, id: &str, limits: TenantLimits) -> Credential {
        let store = self.store();
        let id = id.parse().unwrap();
        store.create_tenant(&id, "", limits).await.unwrap();
        self.key(id.as_str(), None).await
    }

    /// Creates a key with the scope `submit`.
    pub async fn key(&self, tenant: &str, expires_in: Option<Duration>) -> Credential {
        let new = NewKey { scopes: [Scope::Submit].into(), expires_in, ..NewKey::default() };
        self.store().create_key(&tenant.parse().unwrap(), new).await.unwrap().0
    }
}

/// Waits until `holds`; returns how long that took.
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < SOON, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}
