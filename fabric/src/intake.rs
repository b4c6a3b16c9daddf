//! From a delivery to a job and the right to answer it; or to an answer that says what is wrong; or,
//! when nothing says whom to answer, to a dead letter.

use forebay_schemas::{
    ContentType, ErrorCode, Head, Job, JobError, JobId, Limits, MESSAGE_TYPE, Outcome, Refusal,
    decode_job,
    limits::RESULT_TTL_S_DEFAULT,
    names::{DEAD, HEADER_ATTEMPTS, HEADER_REASON},
};

use lapin::types::ShortString;

use crate::broker::{Acker, Delivery, HeaderValue, Message, Properties, for_republish};

/// The longest reason that goes into a dead letter's header: headers must fit one frame.
const REASON_CHARS_MAX: usize = 512;

/// What it takes to answer a message: where the answer goes, and the value that settles it.
#[derive(Debug)]
pub struct Ticket {
    /// Whose answer it is.
    pub id: JobId,
    /// Settles the delivery.
    pub acker: Acker,
    /// How the answer is written: as the job was.
    pub content_type: ContentType,
    /// Attempts that failed and were answered with another one.
    pub failures: u32,
    /// Workers that died while they computed it, as far as is known.
    pub deaths: u32,
    /// Whether somebody had the message before, and did not settle it.
    pub returned: bool,
    /// How long the answer is kept.
    pub result_ttl_s: u64,
    /// The channel on which waiters listen.
    pub notify: Option<String>,
    /// The queue that gets a copy.
    pub reply_to: Option<ReplyTo>,
    /// The message as it came, for when it has to be tried again.
    pub message: Box<Message>,
}

impl Ticket {
    /// Which attempt this is, from 1.
    pub fn attempts(&self) -> u32 {
        self.failures.saturating_add(self.deaths).saturating_add(1)
    }

    /// A ticket that leads nowhere: for tests of what carries one.
    pub fn detached(id: JobId) -> Self {
        let message = Message {
            exchange: String::new(),
            routing_key: String::new(),
            properties: Properties::default(),
            body: Vec::new(),
        };
        Self {
            id,
            acker: Acker::detached(),
            content_type: ContentType::Json,
            failures: 0,
            deaths: 0,
            returned: false,
            result_ttl_s: RESULT_TTL_S_DEFAULT,
            notify: None,
            reply_to: None,
            message: Box::new(message),
        }
    }
}

/// The AMQP way to ask for an answer.
#[derive(Debug, Clone)]
pub struct ReplyTo {
    /// The queue's name.
    pub queue: String,
    /// What the asker knows its question by.
    pub correlation_id: Option<String>,
}

/// A message that ends without being computed.
#[derive(Debug)]
pub enum Ended {
    /// It has an answer.
    Answered(Box<(Ticket, Outcome)>),
    /// It has its answer already, and needs no other.
    Settled(Acker),
    /// It can't be answered: nothing says to whom. It becomes a dead letter.
    Unanswerable {
        /// The message as it came, with the reason in a header, addressed to the dead letters.
        letter: Box<Message>,
        /// Settles the delivery.
        acker: Acker,
    },
}

impl Ended {
    /// A job that ends with an error.
    pub fn failed(job: &Job, ticket: Ticket, error: JobError) -> Self {
        Self::Answered(Box::new((ticket, Outcome::failed(job, error))))
    }
}

/// Reads a delivery.
pub fn read(delivery: Delivery, limits: &Limits) -> Result<(Job, Ticket), Ended> {
    let content_type = content_type(&delivery);
    match read_job(&delivery, limits) {
        Ok(job) => {
            let (id, ttl, notify) = (job.id.clone(), job.result_ttl_s(), job.notify.clone());
            Ok((job, ticket(delivery, id, content_type, ttl, notify)))
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

/// What the message says of itself; if it says nothing, what its first byte tells.
fn content_type(delivery: &Delivery) -> ContentType {
    let mime = delivery.properties.content_type().as_ref();
    mime.and_then(|mime| ContentType::parse(mime.as_str()))
        .unwrap_or_else(|| ContentType::guess(&delivery.body))
}

fn message_id(delivery: &Delivery) -> Option<JobId> {
    delivery.properties.message_id().as_ref()?.as_str().parse().ok()
}

/// The body is a job; do the properties agree with it?
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

fn refuse(delivery: Delivery, refusal: Refusal) -> Ended {
    let Refusal { error, head } = refusal;
    let Some(id) = message_id(&delivery).or(head.id) else {
        tracing::info!(%error, "a message that can't be answered becomes a dead letter");
        return unanswerable(delivery, &error);
    };
    tracing::info!(%id, %error, "refused a message");
    let mut outcome = Outcome::refused(id.clone(), error);
    (outcome.model, outcome.task, outcome.metadata) = (head.model, head.task, head.metadata);
    let ttl = head.result_ttl_s.unwrap_or(RESULT_TTL_S_DEFAULT);
    let content_type = content_type(&delivery);
    Ended::Answered(Box::new((ticket(delivery, id, content_type, ttl, head.notify), outcome)))
}

fn unanswerable(delivery: Delivery, error: &JobError) -> Ended {
    let reason: String = error.to_string().chars().take(REASON_CHARS_MAX).collect();
    let (mut letter, acker) = delivery.into_message();
    let properties = for_republish(&letter.properties);
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(HEADER_REASON.into(), HeaderValue::LongString(reason.into()));
    letter.properties = properties.with_headers(headers);
    letter.exchange = DEAD.into();
    Ended::Unanswerable { letter: Box::new(letter), acker }
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
