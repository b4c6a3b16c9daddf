//! An endpoint of a remote model that fails as a script says, and otherwise passes requests on to a real gateway: no
//! real one refuses, hangs or breaks off when a test needs it.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::probe::agent;

/// The reply to one request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// This status with these headers and this body.
    Status(u16, &'static str, &'static str),
    /// Nothing, until the caller closes the connection.
    Silence,
    /// The first bytes of an answer, and then the end of the connection.
    Cut,
}

/// A port that answers by a script, and behind it by a gateway.
#[derive(Debug)]
pub struct Endpoint {
    port: u16,
    script: Arc<Mutex<VecDeque<Reply>>>,
    calls: Arc<AtomicUsize>,
}

impl Endpoint {
    /// Opens a port before a gateway's.
    pub fn before(gateway: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Arc::<Mutex<VecDeque<Reply>>>::default();
        let calls = Arc::<AtomicUsize>::default();
        let replies = script.clone();
        let counted = calls.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let replies = replies.clone();
                let counted = counted.clone();
                // A caller that is gone ends it.
                thread::spawn(move || serve(stream, &replies, &counted, gateway));
            }
        });
        Self { port, script, calls }
    }

    /// The address for a configuration.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// The replies to the next requests; after them it passes requests on.
    pub fn replies(&self, replies: impl IntoIterator<Item = Reply>) {
        *self.script.lock().unwrap() = replies.into_iter().collect();
    }

    /// How many requests came.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn serve(
    mut stream: TcpStream,
    script: &Mutex<VecDeque<Reply>>,
    calls: &AtomicUsize,
    gateway: u16,
) -> Option<()> {
    let (path, body) = request(&mut stream)?;
    calls.fetch_add(1, Ordering::SeqCst);
    let next = script.lock().unwrap().pop_front();
    match next {
        Some(Reply::Status(status, headers, body)) => {
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n");
            stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes()).ok()
        }
        Some(Reply::Silence) => {
            let mut byte = [0];
            stream.read(&mut byte).ok().map(drop)
        }
        Some(Reply::Cut) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{\"data\":").ok()
        }
        None => {
            let url = format!("http://127.0.0.1:{gateway}{path}");
            let request = agent().post(url).header("content-type", "application/json");
            let mut answer = request.send(&body[..]).ok()?;
            let text = answer.body_mut().read_to_string().ok()?;
            let status = answer.status().as_u16();
            let length = text.len();
            let head =
                format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n");
            stream.write_all(format!("{head}\r\n{text}").as_bytes()).ok()
        }
    }
}

/// The path and the body of a request.
fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut part = [0; 4_096];
    loop {
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&part[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap_or(0));
        if bytes.len() < end + 4 + length {
            continue;
        }
        let path = head.split(' ').nth(1)?.to_owned();
        return Some((path, bytes[end + 4..].to_vec()));
    }
}
