//! A collector of traces: takes what programs export by OTLP over HTTP, and decodes it with the protocol's own types.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::patience::{SOON, until};

/// A running collector. It takes exports until the test process ends.
#[derive(Debug)]
pub struct Collector {
    port: u16,
    taken: Arc<Mutex<Vec<Taken>>>,
}

/// A span, and the program that exported it.
#[derive(Debug, Clone)]
pub struct Taken {
    /// `service.name` of its resource.
    pub service: String,
    /// The span.
    pub span: Span,
}

impl Taken {
    /// The value of an attribute as text; empty if it has none.
    pub fn attribute(&self, name: &str) -> String {
        text_of(&self.span.attributes, name)
    }

    /// Its trace's id.
    pub fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    /// Its own id.
    pub fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    /// The id of its parent; empty for the first of a trace.
    pub fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    /// The ids of the spans that it is linked with.
    pub fn links(&self) -> Vec<String> {
        self.span.links.iter().map(|link| hex(&link.span_id)).collect()
    }
}

impl Collector {
    /// A collector on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let taken = Arc::<Mutex<Vec<Taken>>>::default();
        let shared = taken.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { port, taken }
    }

    /// The setting that sends traces here, for the environment of a program.
    pub fn setting(&self) -> (&'static str, String) {
        ("FOREBAY_TELEMETRY__OTLP_ENDPOINT", format!("http://127.0.0.1:{}", self.port))
    }

    /// The spans of one trace so far.
    pub fn trace(&self, trace_id: &str) -> Vec<Taken> {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|one| one.trace_id() == trace_id).cloned().collect()
    }

    /// All spans of a name so far.
    pub fn named(&self, name: &str) -> Vec<Taken> {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|one| one.span.name == name).cloned().collect()
    }

    /// The spans of a trace, once it has one with each of these names.
    pub async fn until(&self, trace_id: &str, names: &[&str]) -> Vec<Taken> {
        until(&format!("{trace_id} has {names:?}"), SOON, async || {
            let spans = self.trace(trace_id);
            let has = |name: &&str| spans.iter().any(|one| one.span.name == **name);
            names.iter().all(has).then_some(spans)
        })
        .await
    }
}

/// Answers the exports of one connection. One that breaks off has no more.
fn serve(stream: TcpStream, taken: &Mutex<Vec<Taken>>) {
    let mut reader = BufReader::new(stream);
    while let Some(body) = read_request(&mut reader) {
        let request = ExportTraceServiceRequest::decode(&body[..]).expect("OTLP's protobuf");
        for of_resource in request.resource_spans {
            let attributes = of_resource.resource.unwrap_or_default().attributes;
            let service = text_of(&attributes, "service.name");
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                taken.lock().unwrap().push(Taken { service: service.clone(), span });
            }
        }
        let answer =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if reader.get_mut().write_all(answer).is_err() {
            return;
        }
    }
}

/// The body of the next request, which has to be an export of traces.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.expect("a length").trim().parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

fn text_of(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|attribute| attribute.value.clone()) {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text,
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
