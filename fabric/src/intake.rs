//! From a delivery to a job and the ticket to answer it; or to an answer that says what is wrong; or, when the
//! message names no job to answer, to a dead letter.

use std::time::Duration;

use forebay_schemas::{
    ContentType, ErrorCode, Head, Job, JobError, JobId, Limits, MESSAGE_TYPE, Outcome, Refusal,
    TraceContext, Unanswerable, decode_job,
    limits::RESULT_TTL_S_DEFAULT,
    names::{DEAD, HEADER_ATTEMPTS, HEADER_REASON},
    trace::{TRACEPARENT, TRACESTATE},
};

use lapin::types::ShortString;

use crate::{
    broker::{Delivery, HeaderValue, Headers, Properties, for_republish},
    clock::now_ms,
    disposition::Disposition,
    telemetry::trace::{self, JobTrace},
    ticket::{ReplyTo, Ticket},
};

/// The header by which kombu says that a body is compressed.
const HEADER_COMPRESSION: &str = "compression";
/// The type that RabbitMQ gives a message of AMQP 1.0 whose body is a value, and no bytes.
const AMQP_1_0_VALUE: &str = "amqp-1.0";
/// The longest reason that goes into a dead letter's header: headers must fit one frame.
const REASON_CHARS_MAX: usize = 512;

/// Reads a delivery. A message that is no job comes back as what happens next to it.
pub fn read(delivery: Delivery, limits: &Limits) -> Result<(Job, Ticket), Disposition> {
    let content_type = content_type(&delivery);
    match read_job(&delivery, limits) {
        Ok(job) => {
            let ticket = ticket(
                delivery,
                job.id.clone(),
                content_type,
                job.result_ttl_s(),
                job.notify.clone(),
            );
            let ticket = Ticket { trace: trace(&ticket, job.submitted_at_ms), ..ticket };
            Ok((job, ticket))
        }
        Err(refusal) => Err(refuse(delivery, refusal)),
    }
}

fn read_job(delivery: &Delivery, limits: &Limits) -> Result<Job, Refusal> {
    let job = decode_job(&delivery.body, content_type(delivery), limits)
        .map_err(|refusal| Refusal { error: encoded(refusal.error, delivery), ..refusal })?;
    match check_type(delivery) {
        Ok(()) => Ok(job),
        Err(error) => Err(Refusal { error, head: Box::new(head(job)) }),
    }
}

/// The content type that the message declares, or else the one that its first byte shows.
fn content_type(delivery: &Delivery) -> ContentType {
    let mime = delivery.properties.content_type().as_ref();
    mime.and_then(|mime| ContentType::parse(mime.as_str()))
        .unwrap_or_else(|| ContentType::guess(&delivery.body))
}

/// The error of a body that can't be read: if a property says that the body is encoded, that is why.
fn encoded(error: JobError, delivery: &Delivery) -> JobError {
    const AS_IT_IS: [&str; 8] =
        ["", "utf-8", "utf8", "us-ascii", "ascii", "binary", "8bit", "identity"];
    let encoding = delivery.properties.content_encoding().as_ref().map(ShortString::as_str);
    if let Some(encoding) =
        encoding.filter(|name| !AS_IT_IS.contains(&name.to_ascii_lowercase().as_str()))
    {
        return JobError::invalid(format!(
            "content encoding `{encoding}` is not read here: send the body as it is"
        ));
    }
    // Python's kombu compresses, and says so in a header of its own.
    if let Some(compression) = delivery.header_text(HEADER_COMPRESSION) {
        let message =
            format!("the compression `{compression}` is not read here: send the body as it is");
        return JobError::invalid(message);
    }
    match delivery.properties.kind() {
        Some(kind) if kind.as_str() == AMQP_1_0_VALUE => {
            let message =
                "this is an AMQP 1.0 message with a value section: send the job in a data section";
            JobError::invalid(message)
        }
        _ => error,
    }
}

/// The usable id among the properties, which counts where the body has none. AMQP 1.0 clients have it as a URN.
pub fn message_id(properties: &Properties) -> Option<JobId> {
    let id = properties.message_id().as_ref()?.as_str();
    id.strip_prefix("urn:uuid:").unwrap_or(id).parse().ok()
}

/// Checks that the message is of a type that is read here. Many libraries set a type of their own, which says nothing.
fn check_type(delivery: &Delivery) -> Result<(), JobError> {
    let kind = delivery.properties.kind().as_ref().map(ShortString::as_str);
    let Some(kind) = kind.filter(|&kind| kind.starts_with("forebay.") && kind != MESSAGE_TYPE)
    else {
        return Ok(());
    };
    let other_version = kind.starts_with("forebay.job.v");
    let code =
        if other_version { ErrorCode::UnsupportedVersion } else { ErrorCode::InvalidRequest };
    let message =
        format!("messages of type `{kind}` are not read here: send {MESSAGE_TYPE}, or no type");
    Err(JobError::new(code, message))
}

fn head(job: Job) -> Head {
    Head {
        v: Some(forebay_schemas::VERSION),
        model: Some(job.model.to_string()),
        task: Some(job.work.task().to_string()),
        tenant: job.tenant,
        id: Some(job.id),
        result_ttl_s: job.result_ttl_s,
        notify: job.notify,
        metadata: job.metadata,
    }
}

fn refuse(delivery: Delivery, refusal: Refusal) -> Disposition {
    let Refusal { error, head } = refusal;
    let Some(id) = head.id.or_else(|| message_id(&delivery.properties)) else {
        tracing::info!(%error, "a message that can't be answered becomes a dead letter");
        return dead_letter(delivery, error);
    };
    let trace_id = trace_context(delivery.properties.headers().as_ref());
    let trace_id = trace_id.map(|context| context.trace_id_text());
    tracing::info!(%id, trace_id, %error, "refused a message");
    let mut outcome = Outcome::refused(id.clone(), error);
    outcome.model = head.model;
    outcome.task = head.task;
    outcome.tenant = head.tenant;
    outcome.metadata = head.metadata;
    let ttl = head.result_ttl_s.unwrap_or(RESULT_TTL_S_DEFAULT);
    let content_type = content_type(&delivery);
    let mut ticket = ticket(delivery, id, content_type, ttl, head.notify);
    ticket.trace = trace(&ticket, None);
    // No refusal is retryable: what is wrong with the message stays wrong.
    Disposition::Answer(Box::new((ticket, outcome)))
}

/// The trace that a message is part of. Only its first delivery has waited since it was submitted, and for nothing
/// else.
fn trace(ticket: &Ticket, submitted_at_ms: Option<u64>) -> Option<Box<JobTrace>> {
    let incoming = trace_context(ticket.message.properties.headers().as_ref());
    if incoming.is_none() && !trace::is_on() {
        return None;
    }
    let is_first = ticket.failures == 0 && !ticket.returned;
    let queued_ms = submitted_at_ms.filter(|_| is_first).map(|ms| now_ms().saturating_sub(ms));
    JobTrace::of_message(incoming, Duration::from_millis(queued_ms.unwrap_or(0)))
}

/// The context in a message's headers, if they have one that keeps to the rules.
pub fn trace_context(headers: Option<&Headers>) -> Option<TraceContext> {
    let headers = headers?.inner();
    let text = |name: &str| match headers.get(name)? {
        HeaderValue::LongString(text) => str::from_utf8(text.as_bytes()).ok(),
        HeaderValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    };
    TraceContext::parse(text(TRACEPARENT)?, text(TRACESTATE))
}

fn dead_letter(delivery: Delivery, error: JobError) -> Disposition {
    let reason: String = error.to_string().chars().take(REASON_CHARS_MAX).collect();
    let content_type = content_type(&delivery);
    let (mut message, acker) = delivery.into_message();
    // There is no key that its publisher would look at, and maybe a queue.
    let refused = Unanswerable::new(error).encode(content_type).unwrap_or_default();
    let reply = ReplyTo::of(&message.properties)
        .map(|to| Box::new(to.message(&message.properties, content_type, refused)));
    let properties = for_republish(&message.properties);
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(HEADER_REASON.into(), HeaderValue::LongString(reason.into()));
    message.properties = properties.with_headers(headers);
    message.exchange = DEAD.into();
    Disposition::DeadLetter { message: Box::new(message), acker, reply }
}

fn ticket(
    delivery: Delivery,
    id: JobId,
    content_type: ContentType,
    result_ttl_s: u64,
    notify: Option<String>,
) -> Ticket {
    let failures = delivery.header_number(HEADER_ATTEMPTS).unwrap_or(0);
    let returned = delivery.delivery_count() > 0;
    let reply_to = ReplyTo::of(&delivery.properties);
    let (message, acker) = delivery.into_message();
    Ticket {
        id,
        acker,
        content_type,
        failures: u32::try_from(failures).unwrap_or(u32::MAX),
        deaths: 0,
        returned,
        result_ttl_s,
        notify,
        reply_to,
        message: Box::new(message),
        trace: None,
    }
}
