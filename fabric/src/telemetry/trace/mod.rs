//! Distributed tracing: from an HTTP request over its jobs to the steps of the device, as OpenTelemetry's spans.
//!
//! The position in a trace travels in W3C's headers ([`TraceContext`]), and is passed on whether spans are exported or
//! not. Spans are made of the times that the programs take anyway, when a request or a job ends: with export switched
//! off a job costs one look at whether its message has a `traceparent`, and no subscriber runs at each of its stages.
//!
//! - `span.rs`: one [`Span`], and who decides whether it is recorded
//! - `job.rs`: the spans of a job in a worker
//! - `export.rs`: the bounded queue, and the thread that sends batches by OTLP
//! - [`names`]: names of attributes

mod export;
mod job;
pub mod names;
mod span;

pub use export::{TraceError, Traces, continues_clients, is_on, start, stop};
pub use forebay_schemas::TraceContext;
pub use job::{JobTrace, Stages};
pub use opentelemetry::trace::SpanKind;
pub use span::{Span, begin, system_time};
