//! Clients that take their time: heads and bodies byte by byte, answers that are not read, connections that are silent.

use std::time::{Duration, Instant};

use forebay_tests::model::TINY;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::time::sleep;

use super::ground::{Ground, Tally};
use super::raw::{ENDS_WITHIN, Seen, connect, request, until_closed};

/// Connections of most kinds.
const EACH: usize = 60;
/// Between two bytes: many of them come before the limit, which none of them may move.
const BETWEEN_BYTES: Duration = Duration::from_millis(100);
/// How soon a client that behaves is answered beside them. An unoptimised build on a busy machine takes its time.
const POLITE_WITHIN: Duration = Duration::from_secs(5);
/// Texts whose answer is larger than what sockets hold.
const TEXTS: usize = 4_000;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Silent,
    HalfAHead,
    HeadByBytes,
    BodyByBytes,
    HalfABody,
    LeavesAfterTheHead,
    NeverReads,
}

/// How many clients there are of each kind; those that are worth work of the model are few.
const CLIENTS: [(Kind, usize); 7] = [
    (Kind::Silent, EACH),
    (Kind::HalfAHead, EACH),
    (Kind::HeadByBytes, EACH),
    (Kind::BodyByBytes, EACH),
    (Kind::HalfABody, EACH),
    (Kind::LeavesAfterTheHead, EACH),
    (Kind::NeverReads, 6),
];

pub(super) async fn run(ground: &mut Ground) {
    let began = Instant::now();
    let port = ground.gateway.port;
    let key = ground.keys[0].clone();
    let key = key.as_str();
    let clients =
        CLIENTS.iter().flat_map(|(kind, count)| (0..*count).map(move |_| one(*kind, port, key)));
    let polite = async {
        for _ in 0..10 {
            let asked = Instant::now();
            let seen = super::raw::send(
                port,
                &request("GET", "/v1/models", &[("authorization", key)], b""),
            )
            .await;
            assert_eq!(seen.statuses, [200], "{}", seen.text);
            assert!(asked.elapsed() < POLITE_WITHIN, "it took {:?}", asked.elapsed());
            sleep(Duration::from_millis(500)).await;
        }
    };
    let (seen, ()) = tokio::join!(join_all(clients), polite);
    let mut tally = Tally::default();
    for seen in &seen {
        tally.count(seen);
    }
    ground.after("slow and half-open clients", began, &tally).await;
}

/// One client, until its connection ends.
async fn one(kind: Kind, port: u16, key: &str) -> Seen {
    let head = format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: h\r\nauthorization: {key}\r\ncontent-length: 1000\r\n"
    );
    let whole_head = format!("{head}\r\n");
    match kind {
        Kind::Silent => until_closed(&mut connect(port).await).await,
        Kind::HalfAHead => then_nothing(port, head.as_bytes()).await,
        Kind::HeadByBytes => by_bytes(port, b"", head.as_bytes()).await,
        Kind::BodyByBytes => by_bytes(port, whole_head.as_bytes(), &[b' '; 1_000]).await,
        Kind::HalfABody => then_nothing(port, format!("{whole_head}{{\"input\":").as_bytes()).await,
        Kind::LeavesAfterTheHead => {
            let mut stream = connect(port).await;
            stream.write_all(whole_head.as_bytes()).await.unwrap();
            // No more is sent, and no answer read: a reset.
            stream.set_zero_linger().unwrap();
            Seen::default()
        }
        Kind::NeverReads => never_reads(port, key).await,
    }
}

async fn then_nothing(port: u16, bytes: &[u8]) -> Seen {
    let mut stream = connect(port).await;
    stream.write_all(bytes).await.unwrap();
    until_closed(&mut stream).await
}

async fn by_bytes(port: u16, first: &[u8], bytes: &[u8]) -> Seen {
    let mut stream = connect(port).await;
    stream.write_all(first).await.unwrap();
    for byte in bytes {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(BETWEEN_BYTES).await;
    }
    until_closed(&mut stream).await
}

/// Asks for an answer of megabytes and does not read it.
async fn never_reads(port: u16, key: &str) -> Seen {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    let body = json!({"model": TINY, "input": Value::from(vec!["x"; TEXTS])}).to_string();
    let bytes = request("POST", "/v1/embeddings", &[("authorization", key)], body.as_bytes());
    stream.write_all(&bytes).await.unwrap();
    // Until it is ended by the other side, which shows only once something is sent.
    let asked = Instant::now();
    while stream.write_all(b" ").await.is_ok() {
        assert!(asked.elapsed() < ENDS_WITHIN * 3, "an answer that is not taken is kept");
        sleep(Duration::from_millis(250)).await;
    }
    Seen::default()
}
