//! The store against a real Redis: which commands reach it, and what its confirmation covers.
#![allow(clippy::unwrap_used)]

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use forebay_fabric::{
    Config, Store,
    store::{Appended, ResultRecord, StoreError, TokenAppend, Written},
};
use forebay_schemas::{JobId, TokenChunk};
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

struct Redis {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Redis {
    fn start(arguments: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--repl-diskless-sync-delay", "0"])
            .arg("--dir")
            .arg(folder.path())
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, port, _folder: folder }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        let started = Instant::now();
        loop {
            if let Ok(connection) = client.get_multiplexed_async_connection().await {
                return connection;
            }
            assert!(started.elapsed() < SOON, "no Redis");
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn store(url: &str, replicas_min: u32) -> Store {
    let mut config = Config { redis_url: url.into(), ..Config::default() };
    config.store.connections_max = 1;
    config.store.timeout_ms = 1_000;
    config.store.replicas_min = replicas_min;
    Store::new(&config).unwrap()
}

fn record(id: &JobId) -> ResultRecord {
    ResultRecord {
        id: id.clone(),
        bytes: b"record".to_vec(),
        ttl_s: 60,
        notify: None,
        ends_tokens: false,
        usage: None,
    }
}

#[tokio::test]
async fn a_command_costs_no_other_command() {
    let redis = Redis::start(&[]);
    let mut raw = redis.connect().await;
    let store = store(&redis.url(), 0);
    for _ in 0..100 {
        store.present(&[JobId::random()]).await.unwrap();
    }
    let counted: String =
        redis::cmd("INFO").arg("commandstats").query_async(&mut raw).await.unwrap();
    assert!(counted.contains("cmdstat_exists:calls=100,"), "{counted}");
    // Those are what a connection is set up with.
    let other = |line: &&str| {
        !["cmdstat_exists", "cmdstat_client", "cmdstat_info"]
            .iter()
            .any(|known| line.starts_with(known))
    };
    let others: Vec<&str> =
        counted.lines().filter(|l| l.starts_with("cmdstat_")).filter(other).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test]
async fn a_record_that_was_there_is_confirmed_only_once_replicas_have_it() {
    let primary = Redis::start(&[]);
    let mut raw = primary.connect().await;
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
    let store = store(&primary.url(), 1);
    let first = [record(&JobId::random())];
    let started = Instant::now();
    while store.write_results(&first).await.is_err() {
        assert!(started.elapsed() < SOON, "no replica");
        tokio::time::sleep(PAUSE).await;
    }

    replica.signal("STOP");
    // Another worker wrote it, and no replica has it yet.
    let id = JobId::random();
    let mut set = redis::cmd("SET");
    let () = set.arg(id.result_key()).arg("another's").query_async(&mut raw).await.unwrap();
    let written = store.write_results(&[record(&id)]).await;
    replica.signal("CONT");
    assert!(matches!(written, Err(StoreError::Replicas { .. })), "{written:?}");
    let started = Instant::now();
    let written = loop {
        match store.write_results(&[record(&id)]).await {
            Ok(written) => break written,
            Err(error) => assert!(started.elapsed() < SOON, "{error}"),
        }
    };
    assert_eq!(written, [Written::AlreadyThere]);
}

#[tokio::test]
async fn a_refused_login_is_final_and_names_what_to_correct() {
    let redis = Redis::start(&["--requirepass", "right"]);
    let mut config = Config::default();
    let at =
        |login: &str, database: u32| format!("redis://{login}127.0.0.1:{}/{database}", redis.port);
    for (url, reason) in [
        (at(":wrong@", 0), "authentication failed"),
        (at("", 0), "NOAUTH"),
        (at(":right@", 99), "DB index is out of range"),
    ] {
        config.redis_url = url.as_str().into();
        let error = Store::new(&config).unwrap().ready().await.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }) && error.is_final(), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(reason) && message.contains("redis_url"), "{message}");
        assert!(!message.contains("wrong") && !message.contains(":right"), "{message}");
    }
    config.redis_url = at(":right@", 0).as_str().into();
    Store::new(&config).unwrap().ready().await.unwrap();
}

#[tokio::test]
async fn a_token_stream_goes_soon_after_its_job_s_record_whichever_attempt_wrote_it() {
    let redis = Redis::start(&[]);
    let mut raw = redis.connect().await;
    let store = store(&redis.url(), 0);
    for ends_tokens in [true, false] {
        let id = JobId::random();
        // The attempt that writes the record, a refusal say, has written no tokens.
        let chunk = TokenChunk { ids: vec![1, 2], ..TokenChunk::default() };
        let append =
            TokenAppend { id: id.clone(), owner: "w/1".into(), chunk, ttl_s: 86_400, notify: None };
        assert_eq!(store.append_tokens(&[append]).await.unwrap(), [Appended::Written]);
        let record = ResultRecord { ends_tokens, ..record(&id) };
        assert_eq!(store.write_results(&[record]).await.unwrap(), [Written::First]);
        let ttl_s: i64 =
            redis::cmd("TTL").arg(id.tokens_key()).query_async(&mut raw).await.unwrap();
        assert_eq!(ttl_s <= 600, ends_tokens, "{ttl_s}");
    }
}
