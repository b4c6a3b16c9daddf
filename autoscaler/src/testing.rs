//! Shared by the tests of several modules.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use forebay_fabric::{
    Config, Store,
    broker::{Acker, Message, Properties, Settlement},
    store::{
        Appended, Asked, ResultRecord, ResultStore, Standing, StoreError, TokenAppend, Written,
    },
    ticket::Ticket,
};
use forebay_schemas::{
    ContentType, JobId, TokenChunk, WorkerRecord, WorkerState, limits::RESULT_TTL_S_DEFAULT,
};
use futures_util::FutureExt as _;
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
        remote: None,
        generate: None,
        revision: None,
    }
}

/// Settles no delivery.
struct Detached;

impl Settlement for Detached {
    fn ack(self: Box<Self>) -> bool {
        false
    }

    fn requeue(self: Box<Self>) -> bool {
        false
    }
}

/// A ticket of no delivery.
pub fn ticket(id: JobId) -> Ticket {
    let message = Message {
        exchange: String::new(),
        routing_key: String::new(),
        properties: Properties::default(),
        body: Vec::new(),
    };
    Ticket {
        id,
        acker: Acker::new(Detached),
        content_type: ContentType::Json,
        failures: 0,
        deaths: 0,
        returned: true,
        result_ttl_s: RESULT_TTL_S_DEFAULT,
        notify: None,
        reply_to: None,
        message: Box::new(message),
        trace: None,
    }
}

/// A store in which every job stands the same, or that is away.
pub struct FakeStore(Mutex<(Standing, bool)>);

impl FakeStore {
    pub fn new(standing: Standing) -> Self {
        Self(Mutex::new((standing, false)))
    }

    pub fn stands(&self, standing: Standing) {
        self.0.lock().unwrap().0 = standing;
    }

    pub fn is_away(&self, away: bool) {
        self.0.lock().unwrap().1 = away;
    }

    fn answer<T>(&self, answer: T) -> Asked<'_, T>
    where
        T: Send + 'static,
    {
        let away = self.0.lock().unwrap().1;
        let gone =
            || StoreError::Unreachable { url: "redis://store".into(), reason: "gone".into() };
        std::future::ready(if away { Err(gone()) } else { Ok(answer) }).boxed()
    }
}

impl ResultStore for FakeStore {
    fn write_results<'a>(&'a self, records: &'a [ResultRecord]) -> Asked<'a, Vec<Written>> {
        self.answer(vec![Written::First; records.len()])
    }

    fn cancelled<'a>(&'a self, ids: &'a [JobId]) -> Asked<'a, Vec<bool>> {
        self.answer(vec![false; ids.len()])
    }

    fn write_journal<'a>(&'a self, _: &'a str, _: u64, _: &'a [JobId]) -> Asked<'a, ()> {
        self.answer(())
    }

    fn name_taken_over<'a>(&'a self, _: &'a str) -> Asked<'a, ()> {
        self.answer(())
    }

    fn append_tokens<'a>(&'a self, appends: &'a [TokenAppend]) -> Asked<'a, Vec<Appended>> {
        self.answer(vec![Appended::Written; appends.len()])
    }

    fn claim_tokens<'a>(&'a self, _: &'a JobId, _: &'a str) -> Asked<'a, Vec<TokenChunk>> {
        self.answer(Vec::new())
    }

    fn standings<'a>(&'a self, _: &'a str, ids: &'a [JobId]) -> Asked<'a, Vec<Standing>> {
        let standing = self.0.lock().unwrap().0;
        self.answer(vec![standing; ids.len()])
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
