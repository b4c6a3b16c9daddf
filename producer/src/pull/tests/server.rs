//! A small HTTP server for the tests. A closure decides its replies, malformed ones included.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::super::{Patience, Remote};

/// A request of a client.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) path: String,
    /// The start of the requested range.
    pub(super) range: Option<usize>,
    pub(super) authorization: Option<String>,
}

/// The reply to a request.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    /// The connection ends after this many bytes of the body.
    cut_after: Option<usize>,
    /// Nothing more is sent then, and the connection stays open.
    stall: bool,
}

impl Reply {
    /// The whole body, whatever range was requested.
    pub(super) fn whole(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), cut_after: None, stall: false }
    }

    /// The requested range.
    pub(super) fn ranged(request: &Request, body: &[u8]) -> Self {
        let Some(start) = request.range else { return Self::whole(body) };
        let range = format!("content-range: bytes {start}-{}/{}", body.len() - 1, body.len());
        let whole = Self::whole(&body[start..]);
        Self { status: 206, headers: vec![range], ..whole }
    }

    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::whole("") }
    }

    pub(super) fn header(mut self, header: String) -> Self {
        self.headers.push(header);
        self
    }

    pub(super) fn cut_after(self, bytes: usize) -> Self {
        Self { cut_after: Some(bytes), ..self }
    }

    pub(super) fn stalling(self) -> Self {
        Self { stall: true, ..self }
    }

    fn send(self, mut to: TcpStream) -> std::io::Result<()> {
        let length = self.body.len();
        write!(
            to,
            "HTTP/1.1 {} X\r\ncontent-length: {length}\r\nconnection: close\r\n",
            self.status
        )?;
        for header in &self.headers {
            write!(to, "{header}\r\n")?;
        }
        to.write_all(b"\r\n")?;
        to.write_all(&self.body[..self.cut_after.unwrap_or(length)])?;
        if self.stall {
            // Until the client gives up and closes.
            to.set_read_timeout(Some(Duration::from_secs(30)))?;
            let _ = std::io::Read::read(&mut to, &mut [0]);
        }
        Ok(())
    }
}

/// Serves until the test's process ends.
pub(super) struct TestServer {
    pub(super) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl TestServer {
    pub(super) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let log = Arc::clone(&log);
                let answer = Arc::clone(&answer);
                // An error means that the client closed the connection, which is no error of the server.
                thread::spawn(move || {
                    let stream = stream?;
                    let request = read_request(&stream)?;
                    log.lock().unwrap().push(request.clone());
                    answer(&request).send(stream)
                });
            }
        });
        Self { url, requests }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// This server as hub and as package index, with short time-outs.
    pub(super) fn remote(&self) -> Remote {
        Remote {
            hub_url: self.url.clone(),
            hub_token: None,
            index_url: format!("{}/simple", self.url),
            patience: Patience {
                attempts_max: 4,
                pause_first: Duration::from_millis(1),
                pause_max: Duration::from_millis(4),
                connect_max: Duration::from_secs(5),
                stall_max: Duration::from_millis(300),
            },
        }
    }
}

fn read_request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut request = Request { path, range: None, authorization: None };
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            None => return Ok(request),
            Some((name, value)) if name.eq_ignore_ascii_case("range") => {
                let start = value.trim_start_matches("bytes=").trim_end_matches('-');
                request.range = start.parse().ok();
            }
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                request.authorization = Some(value.to_owned());
            }
            Some(_) => {}
        }
    }
}
