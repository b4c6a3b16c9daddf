//! Requests over one keep-alive connection each, as cheap as they can be: the bytes are made once, and of an answer no
//! more is read than a load has to know.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The text of each request.
pub(crate) const TEXT: &str = "A forebay is the pool in front of a turbine: water waits there.";
/// Answers are some 2 to 10 KB.
const BUFFER_BYTES: usize = 16 * 1024;
/// An answer that is longer is none of an embedding.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A server, and the bytes of the one request that it gets again and again.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    request: Vec<u8>,
}

impl Target {
    /// `POST /v1/embeddings` of one text, with a key.
    pub(crate) fn embeddings(port: u16, model: &str, text: &str, key: &str) -> Self {
        let body = json!({ "model": model, "input": text }).to_string();
        let request = format!(
            "POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), request: request.into_bytes() }
    }
}

/// The parts of an answer that a load has to know.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// When a refused client is to come back.
    pub(crate) retry_after_ms: Option<u64>,
}

/// A connection to a target.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Asks once, and reads the whole answer.
    pub(crate) async fn ask(&mut self, target: &Target) -> Result<Answer> {
        self.stream.write_all(&target.request).await?;
        self.buffer.clear();
        let head_end = loop {
            self.read().await?;
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = std::str::from_utf8(&self.buffer[..head_end])?.to_ascii_lowercase();
        let status = head.get(9..12).context("no status")?.parse()?;
        let length = header(&head, "content-length");
        if let Some(length) = length {
            let whole = head_end + length.parse::<usize>()?;
            while self.buffer.len() < whole {
                self.read().await?;
            }
        } else {
            ensure!(
                header(&head, "transfer-encoding") == Some("chunked"),
                "neither length nor chunks"
            );
            while !self.buffer.ends_with(b"0\r\n\r\n") {
                self.read().await?;
            }
        }
        let retry_after_ms = header(&head, "retry-after-ms").and_then(|value| value.parse().ok());
        Ok(Answer { status, retry_after_ms })
    }

    /// The body of the last answer.
    pub(crate) fn last(&self) -> String {
        let start = find(&self.buffer, b"\r\n\r\n").map_or(0, |at| at + 4);
        String::from_utf8_lossy(&self.buffer[start..]).into_owned()
    }

    async fn read(&mut self) -> Result<()> {
        ensure!(self.buffer.len() < ANSWER_BYTES_MAX, "an answer of over {ANSWER_BYTES_MAX} bytes");
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the server closed the connection within an answer");
        }
        Ok(())
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}
