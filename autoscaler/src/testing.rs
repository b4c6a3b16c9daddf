//! Shared by the tests of several modules.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use forebay_fabric::{Config, Store};
use forebay_schemas::{WorkerRecord, WorkerState};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// A ready worker that has done nothing yet.
pub fn record(id: &str) -> WorkerRecord {
    WorkerRecord {
        id: id.into(),
        model: "m".into(),
        state: WorkerState::Ready,
        device: "cpu".into(),
        dtype: "f32".into(),
        host: "host".into(),
        pid: 1,
        version: "0".into(),
        started_at_ms: 0,
        beat_at_ms: 0,
        progress_at_ms: 0,
        in_flight: 0,
        jobs_done: 0,
        tokens_done: 0,
        busy_ms: 0,
        load_ms: 0,
        slots_free_tokens: 0,
        gpu: None,
    }
}

/// A Redis with a lease and nothing else: who asks for it gets it with this token, after a while.
pub async fn store_with_lease(token: Arc<AtomicU64>, answers_after: Duration) -> Arc<Store> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, token.clone(), answers_after));
        }
    });
    let redis_url = format!("redis://{address}/0").as_str().into();
    Arc::new(Store::new(&Config { redis_url, ..Config::default() }).unwrap())
}

async fn answer(stream: TcpStream, token: Arc<AtomicU64>, answers_after: Duration) {
    let mut stream = BufReader::new(stream);
    while let Some(words) = command(&mut stream).await {
        let token = token.load(Ordering::Relaxed).to_string();
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let reply = match words[0].to_uppercase().as_str() {
            "PING" => words.get(1).map_or("+PONG\r\n".to_owned(), |word| bulk(word)),
            "HGET" => bulk(&token),
            "EVALSHA" => {
                tokio::time::sleep(answers_after).await;
                format!("*2\r\n{}{}", bulk(&words[5]), bulk(&token))
            }
            _ => "+OK\r\n".to_owned(),
        };
        if stream.get_mut().write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The words of the next command; `None` at the end of the connection.
async fn command(stream: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let count = number(stream).await?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; number(stream).await? + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8(word).ok()?);
    }
    Some(words)
}

/// The number in a line such as `*3` or `$7`.
async fn number(stream: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.trim_end().get(1..)?.parse().ok()
}
