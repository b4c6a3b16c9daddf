//! A private Redis for the tests of this crate.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use forebay_schemas::{WorkerRecord, WorkerState, worker::HEARTBEAT_TTL_MS};
use redis::{FromRedisValue, aio::MultiplexedConnection};
use tempfile::TempDir;

use super::Store;
use crate::Config;

/// How long a server may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running, empty server, and a store on it. It ends with its value.
pub(crate) struct Redis {
    pub(crate) store: Store,
    direct: MultiplexedConnection,
    server: Child,
    _folder: TempDir,
}

impl Redis {
    /// Starts one. Its store believes that writes have come through for as long as a record lives.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server; `make test` installs it");
        let url = format!("redis://127.0.0.1:{port}/0");
        let client = redis::Client::open(url.as_str()).unwrap();
        let started = Instant::now();
        let direct = loop {
            match client.get_multiplexed_async_connection().await {
                Ok(direct) => break direct,
                Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let config = toml::from_str::<Config>(&format!("redis_url = \"{url}\"")).unwrap();
        let redis = Self { store: Store::new(&config).unwrap(), direct, server, _folder: folder };
        redis.writes_came_through_for(Duration::from_millis(HEARTBEAT_TTL_MS));
        redis
    }

    /// The configuration of further stores on it.
    pub(crate) fn config(&self) -> Config {
        Config { redis_url: self.store.url.clone(), ..Config::default() }
    }

    /// From now on the store believes that its writes have come through for so long.
    pub(crate) fn writes_came_through_for(&self, time: Duration) {
        let now = Instant::now();
        let mut writable = self.store.writable.lock().unwrap();
        writable.probed(false, now);
        let first = now.checked_sub(time).unwrap();
        for s in 0..=time.as_secs() {
            writable.probed(true, first + Duration::from_secs(s));
        }
    }

    /// Runs a command past the store.
    pub(crate) async fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async(&mut self.direct).await.unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // One that has ended by itself is no harm to the test that is over.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A record of a worker that has done nothing yet.
pub(crate) fn record(id: &str) -> WorkerRecord {
    WorkerRecord {
        id: id.into(),
        model: "m".into(),
        state: WorkerState::Ready,
        device: "cpu".into(),
        dtype: "f32".into(),
        host: "h".into(),
        pid: 1,
        version: "0".into(),
        started_at_ms: 1,
        beat_at_ms: 1,
        progress_at_ms: 1,
        in_flight: 0,
        jobs_done: 0,
        tokens_done: 0,
        busy_ms: 0,
        load_ms: 0,
        slots_free_tokens: 0,
        gpu: None,
        remote: None,
        generate: None,
        revision: None,
    }
}
