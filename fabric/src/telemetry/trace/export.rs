//! The way of spans to a collector: a bounded queue, and one thread that sends batches by OTLP over HTTP.
//!
//! No job waits for it: a span that finds the queue full is dropped, and counted. While the collector is away so are
//! those of the batch that could not be sent.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use metrics::counter;
use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter},
};
use tokio::runtime::Runtime;

use crate::{
    config::{TelemetryConfig, TlsConfig},
    http_tls::http_tls,
    tls::Tls,
};

/// Spans that wait to be sent: at about a kilobyte each, some megabytes.
const WAITING_MAX: usize = 4_096;
/// Spans that are sent together.
const BATCH_MAX: usize = 512;
/// The longest that a span waits for others.
const EVERY: Duration = Duration::from_secs(1);
/// The longest that sending one batch may take, repetitions included.
const SEND_MAX: Duration = Duration::from_secs(5);
/// The longest that a program which stops waits for its last spans to be sent.
const LAST_MAX: Duration = Duration::from_secs(3);
/// The path of OTLP's traces.
const PATH: &str = "/v1/traces";

static EXPORT: OnceLock<Export> = OnceLock::new();

/// Traces can't be exported.
#[derive(Debug, thiserror::Error)]
#[error(
    "traces can't be exported to {endpoint}: {reason}; correct telemetry.otlp_endpoint, or leave it out"
)]
pub struct TraceError {
    /// The address, password hidden.
    endpoint: String,
    /// Why not.
    reason: String,
}

/// The export of this process.
#[derive(Debug)]
struct Export {
    orders: SyncSender<Order>,
    /// Of the traces that this program begins, those whose id is below this in its last eight bytes are recorded.
    threshold: u64,
    continues_clients: bool,
}

enum Order {
    Span(Box<SpanData>),
    /// Send what is left, answer, and end.
    Stop(SyncSender<()>),
}

/// The running export. [`stop`] it last, or the last spans are lost.
#[derive(Debug)]
#[must_use = "stop it last, or the last spans are lost"]
pub struct Traces(());

/// Whether spans are exported.
pub fn is_on() -> bool {
    EXPORT.get().is_some()
}

/// Whether a trace that a client of the gateway began is continued: unless the configuration forbids it.
pub fn continues_clients() -> bool {
    EXPORT.get().is_none_or(|export| export.continues_clients)
}

/// Whether a trace that this program begins is recorded. It goes by the trace's id, so that all who go by the same
/// ratio agree.
pub(super) fn samples(trace_id: [u8; 16]) -> bool {
    // Its last 64 bits.
    let end = u128::from_be_bytes(trace_id) as u64;
    EXPORT.get().is_some_and(|export| is_below(end, export.threshold))
}

fn is_below(end: u64, threshold: u64) -> bool {
    threshold == u64::MAX || end < threshold
}

fn threshold(ratio: f64) -> u64 {
    // Rounds to u64::MAX at 1.
    (ratio * u64::MAX as f64) as u64
}

/// Takes a span that has ended.
pub(super) fn take(span: SpanData) {
    let Some(export) = EXPORT.get() else { return };
    if export.orders.try_send(Order::Span(Box::new(span))).is_err() {
        count("dropped", 1);
    }
}

fn count(result: &'static str, spans: usize) {
    counter!("forebay_trace_spans_total", "result" => result).increment(spans as u64);
}

/// Starts exporting spans of the program `service`, of which this process is `instance`, if the configuration names
/// where to.
pub fn start(
    config: &TelemetryConfig,
    tls: &TlsConfig,
    service: &'static str,
    instance: &str,
) -> Result<Option<Traces>, TraceError> {
    let Some(endpoint) = &config.otlp_endpoint else { return Ok(None) };
    let failed = |reason: String| TraceError { endpoint: endpoint.to_string(), reason };
    let base = endpoint.expose().trim_end_matches('/');
    let url = format!("{}{PATH}", base.strip_suffix(PATH).unwrap_or(base));
    let tls = Tls::load(tls).map_err(|error| failed(error.to_string()))?;
    let client = Client::new(&tls).map_err(failed)?;
    let last_error = client.last_error.clone();
    let mut otlp = Otlp::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(url)
        // Whatever protocol the environment names for other programs.
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(SEND_MAX)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let instance = KeyValue::new("service.instance.id", instance.to_owned());
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_service_name(service);
    otlp.set_resource(&resource.with_attributes([version, instance]).build());
    let (orders, taken) = sync_channel(WAITING_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    let export = Export {
        orders,
        threshold: threshold(config.trace_ratio),
        continues_clients: config.trace_from_clients,
    };
    let sender = Sender { otlp, runtime, last_error, is_failing: false };
    EXPORT.set(export).map_err(|_| failed("that was started before".into()))?;
    thread::Builder::new()
        .name("forebay-traces".into())
        .spawn(move || sender.run(&taken))
        .map_err(|error| failed(error.to_string()))?;
    tracing::info!(endpoint = %endpoint, ratio = config.trace_ratio, "exports traces");
    Ok(Some(Traces(())))
}

/// Sends what is left, within some seconds. What ends later is dropped.
pub async fn stop(traces: Option<Traces>) {
    if traces.is_none() {
        return;
    }
    // It blocks on the thread that sends.
    let stopped = tokio::task::spawn_blocking(|| {
        let until = Instant::now() + LAST_MAX;
        let Some(export) = EXPORT.get() else { return };
        let (done, end) = sync_channel(1);
        let mut order = Order::Stop(done);
        while let Err(TrySendError::Full(back)) = export.orders.try_send(order) {
            if Instant::now() >= until {
                return;
            }
            order = back;
            thread::sleep(Duration::from_millis(20));
        }
        // Late or gone: the last spans are lost, and nothing else.
        let _ = end.recv_timeout(until.saturating_duration_since(Instant::now()));
    });
    // A panic in it has been logged.
    let _ = stopped.await;
}

/// The thread that sends.
struct Sender {
    otlp: Otlp,
    runtime: Runtime,
    last_error: Arc<Mutex<Option<String>>>,
    is_failing: bool,
}

impl Sender {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let (batch, stop) = gather(orders);
            self.send(batch);
            if let Some(done) = stop {
                self.send(left(orders));
                // Who waits for it may have given up.
                let _ = done.send(());
                return;
            }
        }
    }

    fn send(&mut self, batch: Vec<SpanData>) {
        if batch.is_empty() {
            return;
        }
        let spans = batch.len();
        let sent = self.runtime.block_on(self.otlp.export(batch));
        count(if sent.is_ok() { "sent" } else { "failed" }, spans);
        // Once for each outage: the metric counts on.
        match (sent, self.is_failing) {
            (Err(error), false) => {
                let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
                let why = last.take().unwrap_or_default();
                tracing::warn!(%error, why, "can't export traces; their spans are dropped");
                self.is_failing = true;
            }
            (Ok(()), true) => {
                tracing::info!("exports traces again");
                self.is_failing = false;
            }
            _ => {}
        }
    }
}

/// The next batch, and whether it is the last.
fn gather(orders: &Receiver<Order>) -> (Vec<SpanData>, Option<SyncSender<()>>) {
    let mut batch = Vec::new();
    let until = Instant::now() + EVERY;
    while batch.len() < BATCH_MAX {
        match orders.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Order::Span(span)) => batch.push(*span),
            Ok(Order::Stop(done)) => return (batch, Some(done)),
            // The queue's sender is static: it does not go.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    (batch, None)
}

/// All that waits still.
fn left(orders: &Receiver<Order>) -> Vec<SpanData> {
    let mut batch = Vec::new();
    loop {
        match orders.try_recv() {
            Ok(Order::Span(span)) => batch.push(*span),
            Ok(Order::Stop(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return batch,
        }
    }
}

/// The HTTP client of the exporter. It blocks, on the exporter's own thread.
#[derive(Debug)]
struct Client {
    agent: ureq::Agent,
    /// The exporter leaves out why a request failed.
    last_error: Arc<Mutex<Option<String>>>,
}

impl Client {
    fn new(tls: &Tls) -> Result<Self, String> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(SEND_MAX))
            .http_status_as_error(false)
            .tls_config(http_tls(tls)?)
            .build()
            .new_agent();
        Ok(Self { agent, last_error: Arc::default() })
    }

    fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, body.to_vec());
        let (head, mut body) = self.agent.run(request)?.into_parts();
        Ok(Response::from_parts(head, Bytes::from(body.read_to_vec()?)))
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.call(request).inspect_err(|error| {
            let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some(error.to_string());
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::{
        InstrumentationScope,
        trace::{SpanContext, SpanId, SpanKind, Status},
    };
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;

    fn span() -> Box<SpanData> {
        Box::new(SpanData {
            span_context: SpanContext::empty_context(),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "step".into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        })
    }

    #[test]
    fn the_ratio_decides_by_the_trace_s_id() {
        let ids = (0..=u8::MAX).map(|first| u64::from_be_bytes([first, 0, 0, 0, 0, 0, 0, 1]));
        let recorded = |ratio| ids.clone().filter(|id| is_below(*id, threshold(ratio))).count();
        assert_eq!([recorded(0.0), recorded(0.25), recorded(1.0)], [0, 64, 256]);
        assert!(is_below(u64::MAX, threshold(1.0)), "1 is all of them");
    }

    #[test]
    fn a_batch_ends_at_its_size_and_a_stop_ends_it_at_once() {
        let (orders, taken) = sync_channel(WAITING_MAX);
        for _ in 0..BATCH_MAX + 2 {
            orders.send(Order::Span(span())).unwrap();
        }
        assert_eq!(gather(&taken).0.len(), BATCH_MAX);
        let (done, _end) = sync_channel(1);
        orders.send(Order::Stop(done)).unwrap();
        orders.send(Order::Span(span())).unwrap();
        let (batch, stop) = gather(&taken);
        assert_eq!((batch.len(), stop.is_some()), (2, true));
        assert_eq!(left(&taken).len(), 1);
    }
}
