//! One span, and who decides whether it is recorded: the program that began the trace.

use std::{borrow::Cow, str::FromStr, time::SystemTime};

use forebay_schemas::TraceContext;
use opentelemetry::{
    InstrumentationScope, KeyValue, Value,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::time::Instant;

use super::export;

/// The most links of a span: a batch has as many as it has jobs whose traces are recorded.
const LINKS_MAX: usize = 128;

/// A span that is recorded. It is exported when it ends; one that is dropped before is not.
#[derive(Debug)]
pub struct Span {
    context: TraceContext,
    parent: Option<[u8; 8]>,
    kind: SpanKind,
    name: Cow<'static, str>,
    began: SystemTime,
    attributes: Vec<KeyValue>,
    links: SpanLinks,
    failure: Option<Cow<'static, str>>,
}

/// Begins what a program does in a trace. Returns the context to pass on, and the span where it is recorded: with
/// export on, and where the program that began the trace records it. Without a trace that came from before this one
/// begins it, and the configured share of those is recorded. With export off no trace is begun, and what came is passed
/// on as it is.
pub fn begin(
    incoming: Option<TraceContext>,
    kind: SpanKind,
    name: impl FnOnce() -> Cow<'static, str>,
) -> (Option<TraceContext>, Option<Span>) {
    match incoming {
        incoming if !export::is_on() => (incoming, None),
        Some(parent) if !parent.is_sampled() => (Some(parent), None),
        Some(parent) => {
            let span = Span::child(&parent, kind, name());
            (Some(span.context.clone()), Some(span))
        }
        None => {
            let trace_id: [u8; 16] = rand::random();
            let is_sampled = export::samples(trace_id);
            // All zeros once in 2^64: then there is no trace.
            let Some(context) = TraceContext::new(trace_id, rand::random(), is_sampled) else {
                return (None, None);
            };
            let span = is_sampled.then(|| Span::of(context.clone(), None, kind, name()));
            (Some(context), span)
        }
    }
}

impl Span {
    /// The first span of a trace of its own, which is recorded; `None` once in 2^64.
    pub fn root(kind: SpanKind, name: impl Into<Cow<'static, str>>) -> Option<Self> {
        let context = TraceContext::new(rand::random(), rand::random(), true)?;
        Some(Self::of(context, None, kind, name.into()))
    }

    /// A span below `parent`.
    pub fn child(
        parent: &TraceContext,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
    ) -> Self {
        let span_id = std::iter::repeat_with(rand::random::<[u8; 8]>).find(|id| *id != [0; 8]);
        let context = parent.child(span_id.unwrap_or([1; 8]));
        Self::of(context, Some(parent.span_id()), kind, name.into())
    }

    fn of(
        context: TraceContext,
        parent: Option<[u8; 8]>,
        kind: SpanKind,
        name: Cow<'static, str>,
    ) -> Self {
        Self {
            context,
            parent,
            kind,
            name,
            began: SystemTime::now(),
            attributes: Vec::new(),
            links: SpanLinks::default(),
            failure: None,
        }
    }

    /// The span's own context, for what is below it.
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// Sets when it began.
    pub fn began(&mut self, at: SystemTime) {
        self.began = at;
    }

    /// Adds an attribute. Names are those of [`names`](super::names); values are bounded by the contract's limits.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(name, value));
    }

    /// Links it to a span of another trace. Beyond the most links, they are counted.
    pub fn link(&mut self, to: &TraceContext) {
        if self.links.links.len() < LINKS_MAX {
            self.links.links.push(Link::with_context(span_context(to, false)));
        } else {
            self.links.dropped_count += 1;
        }
    }

    /// What the span is about has failed.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        self.failure = Some(why.into());
    }

    /// Ends it now.
    pub fn end(self) {
        self.end_at(SystemTime::now());
    }

    /// Ends it, no earlier than it began: clocks of two machines may disagree.
    pub fn end_at(self, at: SystemTime) {
        let is_from_outside = matches!(self.kind, SpanKind::Server | SpanKind::Consumer);
        export::take(SpanData {
            span_context: span_context(&self.context, false),
            parent_span_id: self.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
            parent_span_is_remote: self.parent.is_some() && is_from_outside,
            span_kind: self.kind,
            name: self.name,
            start_time: self.began,
            end_time: at.max(self.began),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: self.links,
            status: self.failure.map_or(Status::Unset, |description| Status::Error { description }),
            instrumentation_scope: InstrumentationScope::builder("forebay").build(),
        });
    }
}

fn span_context(context: &TraceContext, is_remote: bool) -> SpanContext {
    let state = context.tracestate().and_then(|state| TraceState::from_str(state).ok());
    SpanContext::new(
        TraceId::from_bytes(context.trace_id()),
        SpanId::from_bytes(context.span_id()),
        TraceFlags::SAMPLED,
        is_remote,
        state.unwrap_or_default(),
    )
}

/// The time of day of a moment that has passed.
pub fn system_time(at: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(at.elapsed()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_export_off_a_context_is_passed_on_as_it_came_and_none_is_begun() {
        let name = || -> Cow<'static, str> { unreachable!("no span is made") };
        let (context, span) = begin(None, SpanKind::Server, name);
        assert!(context.is_none() && span.is_none());
        let incoming = TraceContext::new([1; 16], [2; 8], true);
        let (context, span) = begin(incoming.clone(), SpanKind::Server, name);
        assert!(span.is_none());
        assert_eq!(context, incoming);
    }

    #[test]
    fn a_child_is_in_its_parent_s_trace() {
        let root = Span::root(SpanKind::Internal, "batch").unwrap();
        let child = Span::child(root.context(), SpanKind::Internal, "step");
        assert_eq!(child.context().trace_id(), root.context().trace_id());
        assert_eq!(child.parent, Some(root.context().span_id()));
        assert_ne!(child.context().span_id(), root.context().span_id());
    }

    #[test]
    fn links_are_bounded_and_those_left_out_are_counted() {
        let mut span = Span::root(SpanKind::Internal, "batch").unwrap();
        let to = TraceContext::new([1; 16], [2; 8], true).unwrap();
        for _ in 0..LINKS_MAX + 3 {
            span.link(&to);
        }
        assert_eq!((span.links.links.len(), span.links.dropped_count), (LINKS_MAX, 3));
    }
}
