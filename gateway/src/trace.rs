//! The trace of a request: read from the client's headers or begun here, with a span for the request and one for each
//! of its jobs, whose messages carry it on to the workers.

use axum::http::{HeaderMap, StatusCode};
use forebay_client::{Client, Job, Outcome};
use forebay_fabric::telemetry::trace::{
    Span, SpanKind, TraceContext, begin, continues_clients, names,
};
use forebay_schemas::trace::{TRACEPARENT, TRACESTATE};

tokio::task_local! {
    /// The context of the request that this task answers.
    static CURRENT: Option<TraceContext>;
}

/// The trace of one request.
#[derive(Debug)]
pub struct RequestTrace {
    context: Option<TraceContext>,
    /// Where the trace is recorded, until it ends.
    span: Option<Span>,
}

impl RequestTrace {
    /// Of a request that begins now.
    pub fn begin(headers: &HeaderMap, method: &str, endpoint: &str, request_id: &str) -> Self {
        let incoming = if continues_clients() { context_of(headers) } else { None };
        let name = || format!("{method} {endpoint}").into();
        let (context, mut span) = begin(incoming, SpanKind::Server, name);
        if let Some(span) = &mut span {
            span.set(names::METHOD, method.to_owned());
            span.set(names::ROUTE, endpoint.to_owned());
            span.set(names::REQUEST_ID, request_id.to_owned());
        }
        Self { context, span }
    }

    /// The trace's id, for log lines.
    pub fn id(&self) -> Option<String> {
        self.context.as_ref().map(TraceContext::trace_id_text)
    }

    /// Runs the handler as a part of this trace.
    pub async fn run<T>(&self, handler: impl Future<Output = T>) -> T {
        CURRENT.scope(self.context.clone(), handler).await
    }

    /// Ends it with the answer's status, and the code of the error where that is one.
    pub fn answered(mut self, status: StatusCode, code: Option<&'static str>) {
        let Some(mut span) = self.span.take() else { return };
        span.set(names::STATUS, i64::from(status.as_u16()));
        if let Some(code) = code {
            span.set(names::ERROR, code);
        }
        // A client's own mistake is no failure of the server's span.
        if status.is_server_error() {
            span.fail(code.unwrap_or_default());
        }
        span.end();
    }
}

impl Drop for RequestTrace {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            span.fail("the client left before the answer");
            span.end();
        }
    }
}

/// The trace of one job on whose result a request waits.
#[derive(Debug)]
pub struct CallTrace {
    context: Option<TraceContext>,
    span: Option<Span>,
}

impl CallTrace {
    /// Of a job that is about to be submitted.
    pub fn begin(job: &Job) -> Self {
        let operation = names::operation(&job.work.task().to_string());
        let name = || format!("{operation} {}", job.model).into();
        let (context, span) = begin(current(), SpanKind::Client, name);
        let span = span.map(|mut span| {
            span.set(names::OPERATION, operation);
            span.set(names::PROVIDER, names::FOREBAY);
            span.set(names::MODEL, job.model.to_string());
            span.set(names::MESSAGE_ID, job.id.to_string());
            span
        });
        Self { context, span }
    }

    /// A client whose jobs are a part of it.
    pub fn client(&self, client: &Client) -> Client {
        client.clone().in_trace(self.context.clone())
    }

    /// Ends it with the job's outcome.
    pub fn ended(mut self, outcome: &Outcome) {
        let Some(mut span) = self.span.take() else { return };
        span.set(names::INPUT_TOKENS, outcome.usage.input_tokens as i64);
        span.set(names::STATE, outcome.state.as_str());
        if let Some(error) = &outcome.error {
            span.set(names::ERROR, error.code.as_str());
            span.fail(error.code.as_str());
        }
        span.end();
    }
}

impl Drop for CallTrace {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            span.fail("no result came, or none was waited for any more");
            span.end();
        }
    }
}

/// The context of the request that this task answers, if it is part of a trace.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(Clone::clone).ok().flatten()
}

/// The context in a request's headers, if they keep to the rules. `tracestate` may come in several.
fn context_of(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let states = headers.get_all(TRACESTATE).iter().map(|value| value.to_str().ok());
    let state = states.collect::<Option<Vec<_>>>().map(|states| states.join(","));
    TraceContext::parse(parent.to_str().ok()?, state.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(sent: &[(&'static str, &str)]) -> Option<TraceContext> {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(*name, value.parse().unwrap());
        }
        context_of(&headers)
    }

    #[test]
    fn one_traceparent_counts_and_several_states_are_joined() {
        let context =
            read(&[(TRACEPARENT, PARENT), (TRACESTATE, "a=b"), (TRACESTATE, "c=d")]).unwrap();
        assert_eq!(context.traceparent(), PARENT);
        assert_eq!(context.tracestate(), Some("a=b,c=d"));
        assert_eq!(read(&[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)]), None);
        assert_eq!(read(&[(TRACESTATE, "a=b")]), None);
        let long = "a=".to_owned() + &"x".repeat(4_000);
        let bounded = read(&[(TRACEPARENT, PARENT), (TRACESTATE, &long)]).unwrap();
        assert_eq!(bounded.tracestate(), None);
    }

    #[tokio::test]
    async fn a_job_carries_the_context_of_the_request_that_it_is_for() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, PARENT.parse().unwrap());
        let trace = RequestTrace::begin(&headers, "POST", "/v1/embeddings", "r");
        assert_eq!(trace.id().as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        let job = Job::embed("m".parse().unwrap(), vec!["x".into()]);
        let of_job = trace.run(async { CallTrace::begin(&job).context.clone() }).await;
        assert_eq!(of_job.unwrap().traceparent(), PARENT, "export is off: passed on as it came");
        assert_eq!(CallTrace::begin(&job).context, None, "outside any request");
    }
}
