//! The request id, the trace, and what is counted of each request.

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::Response,
};
use forebay_schemas::JobId;
use metrics::{counter, gauge, histogram};
use tokio::time::Instant;
use tracing::Instrument;

use super::answer::FailedAs;
use crate::trace::RequestTrace;

/// The header of the request id, in both directions.
const REQUEST_ID: &str = "x-request-id";
/// The longest request id that is taken over from a client, in characters.
const REQUEST_ID_CHARS_MAX: usize = 128;
/// The label of requests for paths that there are none of.
const OTHER: &str = "other";

/// Gives each request an id and its trace, by which the answer and the log lines are found, and counts it.
pub async fn observe(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    // One of the router's own patterns, so that a client can't invent labels.
    let path = request.extensions().get::<MatchedPath>();
    let endpoint = path.map_or_else(|| OTHER.to_owned(), |path| path.as_str().to_owned());
    let method = method_of(request.method());
    let trace = RequestTrace::begin(request.headers(), method, &endpoint, &id);
    let span = tracing::info_span!("request", id = %id, trace_id = trace.id());
    let running = Running::begin(endpoint);
    let mut response = trace.run(next.run(request)).instrument(span).await;
    let failed = response.extensions().get::<FailedAs>().map(|FailedAs(code)| *code);
    running.answered(response.status(), failed);
    trace.answered(response.status(), failed);
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// A request at work. Dropped before it is answered, it counts as abandoned: its client left.
struct Running {
    endpoint: Option<String>,
    began: Instant,
}

impl Running {
    fn begin(endpoint: String) -> Self {
        gauge!("forebay_gateway_requests_running").increment(1);
        Self { endpoint: Some(endpoint), began: Instant::now() }
    }

    fn answered(mut self, status: StatusCode, code: Option<&'static str>) {
        let Some(endpoint) = self.endpoint.take() else { return };
        let ms = self.began.elapsed().as_secs_f64() * 1e3;
        let status = status_label(status);
        if let Some(code) = code {
            counter!("forebay_gateway_errors_total", "code" => code).increment(1);
        }
        counter!("forebay_gateway_requests_total", "endpoint" => endpoint.clone(), "status" => status)
            .increment(1);
        histogram!("forebay_gateway_request_ms", "endpoint" => endpoint).record(ms);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        gauge!("forebay_gateway_requests_running").decrement(1);
        if let Some(endpoint) = self.endpoint.take() {
            counter!("forebay_gateway_abandoned_total", "endpoint" => endpoint).increment(1);
        }
    }
}

/// The methods that there are endpoints for, and one name for all that a client may invent.
fn method_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

/// The client's own id, if it is one that can stand in a header and a log line; else a new one.
pub fn request_id(headers: &HeaderMap) -> String {
    let named = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_sane = |id: &&str| {
        (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
    };
    named.filter(is_sane).map_or_else(|| JobId::random().to_string(), ToOwned::to_owned)
}

/// The statuses that this gateway answers with are few: each is a label.
fn status_label(status: StatusCode) -> String {
    status.as_str().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(sent: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(sent.as_bytes()).unwrap());
        request_id(&headers)
    }

    #[test]
    fn a_sane_id_is_taken_over_and_any_other_replaced() {
        assert_eq!(id_of("req_7.a:b-c"), "req_7.a:b-c");
        for strange in ["", "a b", "<script>", "ä", &"x".repeat(129)] {
            let id = id_of(strange);
            assert_ne!(id, strange);
            assert_eq!(id.len(), 36, "{id}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
