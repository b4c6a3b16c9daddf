//! From a delivery to a job and the ticket to answer it; or to an answer that says what is wrong; or, when the
//! message names no job to answer, to a dead letter.

use forebay_schemas::{
    ContentType, ErrorCode, Head, Job, JobError, JobId, Limits, MESSAGE_TYPE, Outcome, Refusal,
    decode_job,
    limits::RESULT_TTL_S_DEFAULT,
    names::{DEAD, HEADER_ATTEMPTS, HEADER_REASON},
};

use lapin::types::ShortString;

use crate::{
    broker::{Delivery, HeaderValue, for_republish},
    disposition::Disposition,
    ticket::{ReplyTo, Ticket},
};

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
            Ok((job, ticket))
        }
        Err(refusal) => Err(refuse(delivery, refusal)),
    }
}

fn read_job(delivery: &Delivery, limits: &Limits) -> Result<Job, Refusal> {
    let mime = delivery.properties.content_type().as_ref().map(ShortString::as_str);
    if let Some(unknown) = mime.filter(|mime| ContentType::parse(mime).is_none()) {
        let error = JobError::invalid(format!(
            "content type `{unknown}` is not read here: send application/msgpack or application/json"
        ));
        return Err(Refusal { error, head: Box::default() });
    }
    let job = decode_job(&delivery.body, content_type(delivery), limits)?;
    match check_properties(&job, delivery) {
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

fn message_id(delivery: &Delivery) -> Option<JobId> {
    delivery.properties.message_id().as_ref()?.as_str().parse().ok()
}

/// Checks that the properties agree with the job in the body.
fn check_properties(job: &Job, delivery: &Delivery) -> Result<(), JobError> {
    let properties = &delivery.properties;
    if let Some(kind) = properties.kind().as_ref().filter(|kind| kind.as_str() != MESSAGE_TYPE) {
        let other_version = kind.as_str().starts_with("forebay.job.v");
        let code =
            if other_version { ErrorCode::UnsupportedVersion } else { ErrorCode::InvalidRequest };
        let message = format!("messages of type `{kind}` are not read here: send {MESSAGE_TYPE}");
        return Err(JobError::new(code, message));
    }
    if properties.message_id().is_some() && message_id(delivery).as_ref() != Some(&job.id) {
        let message = "`id` differs from the message's `message_id`: send the same";
        return Err(JobError::invalid(message));
    }
    Ok(())
}

fn head(job: Job) -> Head {
    Head {
        v: Some(forebay_schemas::VERSION),
        model: Some(job.model.to_string()),
        task: Some(job.work.task().to_string()),
        id: Some(job.id),
        result_ttl_s: job.result_ttl_s,
        notify: job.notify,
        metadata: job.metadata,
    }
}

fn refuse(delivery: Delivery, refusal: Refusal) -> Disposition {
    let Refusal { error, head } = refusal;
    let Some(id) = message_id(&delivery).or(head.id) else {
        tracing::info!(%error, "a message that can't be answered becomes a dead letter");
        return dead_letter(delivery, &error);
    };
    tracing::info!(%id, %error, "refused a message");
    let mut outcome = Outcome::refused(id.clone(), error);
    outcome.model = head.model;
    outcome.task = head.task;
    outcome.metadata = head.metadata;
    let ttl = head.result_ttl_s.unwrap_or(RESULT_TTL_S_DEFAULT);
    let content_type = content_type(&delivery);
    // No refusal is retryable: what is wrong with the message stays wrong.
    Disposition::Answer(Box::new((ticket(delivery, id, content_type, ttl, head.notify), outcome)))
}

fn dead_letter(delivery: Delivery, error: &JobError) -> Disposition {
    let reason: String = error.to_string().chars().take(REASON_CHARS_MAX).collect();
    let (mut message, acker) = delivery.into_message();
    let properties = for_republish(&message.properties);
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(HEADER_REASON.into(), HeaderValue::LongString(reason.into()));
    message.properties = properties.with_headers(headers);
    message.exchange = DEAD.into();
    Disposition::DeadLetter { message: Box::new(message), acker }
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
    let properties = &delivery.properties;
    let correlation_id = properties.correlation_id().as_ref().map(ToString::to_string);
    let reply_to = properties.reply_to().as_ref().map(ToString::to_string);
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
        reply_to: reply_to.map(|queue| ReplyTo { queue, correlation_id }),
        message: Box::new(message),
    }
}
