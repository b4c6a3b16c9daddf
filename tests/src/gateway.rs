//! The gateway under test, and plain HTTP requests to it.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::api::{Api, Exchange};
use crate::patience::SOON;
use crate::ports;
use crate::probe::agent;
use crate::service::Service;
use crate::stack::Stack;

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// The program.
    pub service: Service,
    /// The port that it serves HTTP on.
    pub port: u16,
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body; null if there is none, or it is no JSON.
    pub body: Value,
    headers: Vec<(String, String)>,
}

impl Answer {
    /// The value of a header, if there is one.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The code of the error, and the field that it names.
    pub fn mistake(&self) -> (u16, &str, Option<&str>) {
        let error = &self.body["error"];
        (self.status, error["code"].as_str().unwrap_or_default(), error["param"].as_str())
    }

    /// The message of the error.
    pub fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }
}

impl Gateway {
    /// A gateway of `stack`, ready.
    pub async fn of(stack: &Stack, overrides: &[(&str, &str)]) -> Self {
        let mut gateway = Self::starting(stack, overrides);
        gateway.service = gateway.service.ready().await;
        gateway
    }

    /// Starts a gateway and does not wait until it is ready.
    pub fn starting(stack: &Stack, overrides: &[(&str, &str)]) -> Self {
        Self::by(stack.program("forebay-gateway", &[]), stack, overrides)
    }

    /// A gateway that starts with a soft limit on its open files, ready.
    pub async fn with_open_files(stack: &Stack, most: u32, overrides: &[(&str, &str)]) -> Self {
        let program = stack.program("forebay-gateway", &[]);
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -S -n \"$0\" && exec \"$@\"", &most.to_string()]);
        shell.arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let mut gateway = Self::by(shell, stack, overrides);
        gateway.service = gateway.service.ready().await;
        gateway
    }

    fn by(mut command: Command, stack: &Stack, overrides: &[(&str, &str)]) -> Self {
        let port = ports::free_port();
        command.env("FOREBAY_GATEWAY__LISTEN", format!("127.0.0.1:{port}"));
        command.envs(overrides.iter().copied());
        let service = Service::start("forebay-gateway", command, stack.store.folder());
        Self { service, port }
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// A GET.
    pub fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    /// A GET with headers of its own.
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = agent().get(self.url(path));
        let add = |request: ureq::RequestBuilder<_>, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        let called = headers.iter().fold(request, add).call();
        answer(("GET", path, None), called)
    }

    /// A DELETE.
    pub fn delete(&self, path: &str) -> Answer {
        self.delete_with(path, &[])
    }

    /// A DELETE with headers of its own.
    pub fn delete_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = agent().delete(self.url(path));
        let add = |request: ureq::RequestBuilder<_>, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        let called = headers.iter().fold(request, add).call();
        answer(("DELETE", path, None), called)
    }

    /// A POST of a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, body, &[])
    }

    /// A POST with headers of its own.
    pub fn post_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        self.post_bytes(path, body.to_string().as_bytes(), headers)
    }

    /// A POST of any bytes.
    pub fn post_bytes(&self, path: &str, body: &[u8], headers: &[(&str, &str)]) -> Answer {
        let mut request = agent().post(self.url(path)).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(("POST", path, Some(body)), request.send(body))
    }

    /// A POST by another thread, which finds no gateway or loses it: then there is no answer.
    pub fn try_post(
        port: u16,
        path: &str,
        body: &Value,
        headers: &[(String, String)],
    ) -> Option<Answer> {
        let url = format!("http://127.0.0.1:{port}{path}");
        let mut request = agent().post(url).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let body = body.to_string();
        let answer = request.send(body.as_bytes()).ok().and_then(read)?;
        Some(judged(("POST", path, Some(body.as_bytes())), answer))
    }

    /// The vectors that `/v1/embeddings` makes of `input`.
    pub fn vectors(&self, model: &str, input: &Value) -> Vec<Vec<f32>> {
        let answer = self.post("/v1/embeddings", &json!({"model": model, "input": input}));
        assert_eq!(answer.status, 200, "{answer:?}");
        let data = answer.body["data"].as_array().unwrap();
        let rows = data.iter().enumerate().map(|(index, element)| {
            assert_eq!(element["index"], index, "out of order");
            floats(&element["embedding"])
        });
        rows.collect()
    }

    /// A connection that has sent a request for the vector of one text and reads no answer yet.
    pub async fn asking(&self, model: &str) -> TcpStream {
        let body = json!({"model": model, "input": "a text"}).to_string();
        let mut request = String::from("POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n");
        write!(request, "content-length: {}\r\n\r\n{body}", body.len()).unwrap();
        self.sending(request.as_bytes()).await
    }

    /// A connection that has sent these bytes.
    pub async fn sending(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }
}

/// Everything that comes until the connection ends, which has to be within `limit`.
pub async fn until_closed(stream: &mut TcpStream, limit: Duration) -> String {
    let mut bytes = Vec::new();
    let end = tokio::time::timeout(limit, stream.read_to_end(&mut bytes)).await;
    // Reset or closed: either is an end.
    drop(end.expect("the connection ends in time"));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Everything that comes until `end` has.
pub async fn until_read(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let read = async {
        while !text.contains(end) {
            let mut bytes = [0; 4_096];
            let count = stream.read(&mut bytes).await.unwrap();
            assert_ne!(count, 0, "it ended early: {text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    tokio::time::timeout(SOON, read).await.unwrap_or_else(|_| panic!("no {end:?} came"));
    text
}

/// The data of server-sent events, in order; what is no JSON is a text.
pub fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|json| serde_json::from_str(json).unwrap_or_else(|_| json!(json))).collect()
}

/// A list of numbers.
pub fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

/// The answer that came back, once it is known that the document has it.
fn answer(
    (method, path, sent): (&str, &str, Option<&[u8]>),
    called: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Answer {
    let answer = read(called.expect("the gateway answers")).expect("a body of text");
    judged((method, path, sent), answer)
}

/// The answer, once it is known that the document has it.
fn judged((method, path, sent): (&str, &str, Option<&[u8]>), answer: Answer) -> Answer {
    let sent: Option<Value> = sent.and_then(|sent| serde_json::from_slice(sent).ok());
    let exchange = Exchange {
        method,
        path,
        sent: sent.as_ref(),
        status: answer.status,
        headers: &answer.headers,
        body: &answer.body,
    };
    Api::of_the_gateway().judge(&exchange);
    answer
}

/// The whole answer; `None` if it breaks off.
fn read(mut response: ureq::http::Response<ureq::Body>) -> Option<Answer> {
    let headers = response.headers().iter().map(|(name, value)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let headers = headers.collect();
    let text = response.body_mut().read_to_string().ok()?;
    let body = serde_json::from_str(&text).unwrap_or_default();
    Some(Answer { status: response.status().as_u16(), body, headers })
}
