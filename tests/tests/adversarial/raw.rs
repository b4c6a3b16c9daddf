//! Bytes to a port, and the answers that come back.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than any limit of the gateway under test: an answer, or the end of the connection, comes sooner.
pub(super) const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// All that came back on one connection.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The status of each answer.
    pub(super) statuses: Vec<u16>,
    /// Everything, as text.
    pub(super) text: String,
}

impl Seen {
    fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let statuses = text.match_indices("HTTP/1.").filter_map(|(at, _)| {
            let begins_a_line = at == 0 || text[..at].ends_with(['\n', '}', ']']);
            begins_a_line.then(|| text[at..].split(' ').nth(1)?.parse().ok()).flatten()
        });
        Self { statuses: statuses.collect(), text }
    }
}

pub(super) async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.expect("the gateway takes connections")
}

/// Sends bytes, and reads until the connection ends.
pub(super) async fn send(port: u16, bytes: &[u8]) -> Seen {
    let mut stream = connect(port).await;
    // It may be refused before all of it was sent: then the rest can't be.
    let _ = stream.write_all(bytes).await;
    until_closed(&mut stream).await
}

/// Everything that comes until the connection ends.
pub(super) async fn until_closed(stream: &mut TcpStream) -> Seen {
    closed_within(stream, ENDS_WITHIN).await
}

/// Everything that comes until the connection ends, which it has to do in this time.
pub(super) async fn closed_within(stream: &mut TcpStream, longest: Duration) -> Seen {
    let mut bytes = Vec::new();
    let end = tokio::time::timeout(longest, stream.read_to_end(&mut bytes)).await;
    assert!(end.is_ok(), "still open after {longest:?}: {}", String::from_utf8_lossy(&bytes));
    Seen::of(&bytes)
}

/// A request whose answer is the last of its connection.
pub(super) fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}
