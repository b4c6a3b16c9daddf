//! Why a message was dead-lettered, as its headers record it.

use std::{fmt, str::FromStr};

use forebay_schemas::names::{HEADER_REASON, retry};

use crate::broker::{HeaderValue, Headers};

/// The reason for which a message was dead-lettered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It waited for longer than it was allowed to.
    Expired,
    /// It was handed out too often.
    DeliveryLimit,
    /// A consumer refused it.
    Rejected,
    /// Its queue was full.
    Maxlen,
    /// It is no job, and has no id under which it could be answered.
    Unanswerable,
    /// A reason of the broker that this version does not know.
    Other(String),
    /// The headers give no reason.
    Unknown,
}

impl Reason {
    /// Every reason that this version knows by name.
    pub const NAMED: [Self; 6] = [
        Self::Expired,
        Self::DeliveryLimit,
        Self::Rejected,
        Self::Maxlen,
        Self::Unanswerable,
        Self::Unknown,
    ];

    /// The reason's name: the broker's own where it has one.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Expired => "expired",
            Self::DeliveryLimit => "delivery_limit",
            Self::Rejected => "rejected",
            Self::Maxlen => "maxlen",
            Self::Unanswerable => "unanswerable",
            Self::Other(name) => name,
            Self::Unknown => "unknown",
        }
    }

    fn of_broker(name: &str) -> Self {
        name.parse().unwrap_or_else(|_| Self::Other(name.to_owned()))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a reason of a dead letter: use expired, delivery_limit, rejected, maxlen, unanswerable or \
     unknown"
)]
pub struct UnknownReason(String);

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        let named = Self::NAMED.into_iter().find(|reason| reason.as_str() == text);
        named.ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

/// The record of how a message became a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// Its reason.
    pub reason: Reason,
    /// The reason as a sentence, where Forebay itself rejected the message.
    pub detail: Option<String>,
    /// The queue in which it died.
    pub queue: Option<String>,
    /// When it died, in Unix milliseconds. Brokers write whole seconds.
    pub at_ms: Option<u64>,
}

impl Death {
    /// Reads the headers of a dead letter.
    pub fn read(headers: Option<&Headers>) -> Self {
        let unknown = Self { reason: Reason::Unknown, detail: None, queue: None, at_ms: None };
        let Some(headers) = headers else { return unknown };
        // A service that publishes a dead letter itself sets this header; earlier deaths are not the reason then.
        if let Some(detail) = text(headers, HEADER_REASON) {
            return Self { reason: Reason::Unanswerable, detail: Some(detail), ..unknown };
        }
        newest(headers).or_else(|| summary(headers)).unwrap_or(unknown)
    }
}

/// The newest death in `x-death`. Leaving a retry queue counts as an expiry too, and is skipped.
fn newest(headers: &Headers) -> Option<Death> {
    let HeaderValue::FieldArray(deaths) = value(headers, "x-death")? else { return None };
    deaths.as_slice().iter().find_map(|death| {
        let HeaderValue::FieldTable(death) = death else { return None };
        let queue = text(death, "queue").filter(|queue| !is_retry(queue))?;
        let at_s = match value(death, "time") {
            Some(HeaderValue::Timestamp(at_s)) => Some(*at_s),
            _ => None,
        };
        Some(Death {
            reason: Reason::of_broker(&text(death, "reason")?),
            detail: None,
            queue: Some(queue),
            at_ms: at_s.map(|at_s| at_s.saturating_mul(1_000)),
        })
    })
}

/// The death in the short headers: `x-last-death-*` of newer brokers, `x-first-death-*` of all.
fn summary(headers: &Headers) -> Option<Death> {
    ["last", "first"].into_iter().find_map(|which| {
        let queue = text(headers, &format!("x-{which}-death-queue"));
        let reason = text(headers, &format!("x-{which}-death-reason"))?;
        if queue.as_deref().is_some_and(is_retry) {
            return None;
        }
        Some(Death { reason: Reason::of_broker(&reason), detail: None, queue, at_ms: None })
    })
}

fn is_retry(queue: &str) -> bool {
    queue.starts_with(&retry(""))
}

fn value<'a>(headers: &'a Headers, name: &str) -> Option<&'a HeaderValue> {
    headers.inner().get(name)
}

fn text(headers: &Headers, name: &str) -> Option<String> {
    match value(headers, name)? {
        HeaderValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into()),
        HeaderValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldArray;

    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, text) in pairs {
            headers.insert((*name).into(), HeaderValue::LongString((*text).into()));
        }
        headers
    }

    fn died(deaths: &[(&str, &str, u64)]) -> Headers {
        let mut array = FieldArray::default();
        for (reason, queue, at_s) in deaths {
            let mut death = texts(&[("reason", reason), ("queue", queue)]);
            death.insert("time".into(), HeaderValue::Timestamp(*at_s));
            array.push(HeaderValue::FieldTable(death));
        }
        let mut headers = Headers::default();
        headers.insert("x-death".into(), HeaderValue::FieldArray(array));
        headers
    }

    #[test]
    fn the_newest_death_has_reason_queue_and_time() {
        let headers = died(&[
            ("delivery_limit", "forebay.jobs.m.batch", 1_700_000_000),
            ("expired", "forebay.jobs.m.batch", 1_600_000_000),
        ]);
        let death = Death::read(Some(&headers));
        assert_eq!(death.reason, Reason::DeliveryLimit);
        assert_eq!(death.queue.as_deref(), Some("forebay.jobs.m.batch"));
        assert_eq!(death.at_ms, Some(1_700_000_000_000));
    }

    #[test]
    fn leaving_a_retry_queue_is_not_why_a_job_is_dead() {
        let retried = ("expired", "forebay.retry.30s", 3);
        let headers = died(&[retried, ("rejected", "forebay.jobs.m.batch", 2)]);
        assert_eq!(Death::read(Some(&headers)).reason, Reason::Rejected);
        assert_eq!(Death::read(Some(&died(&[retried]))).reason, Reason::Unknown);
    }

    #[test]
    fn brokers_without_the_list_report_the_first_or_the_last_death() {
        let of = |pairs: &[(&str, &str)]| Death::read(Some(&texts(pairs))).reason;
        assert_eq!(of(&[("x-first-death-reason", "maxlen")]), Reason::Maxlen);
        let both = [
            ("x-first-death-reason", "expired"),
            ("x-first-death-queue", "forebay.retry.1s"),
            ("x-last-death-reason", "delivery_limit"),
            ("x-last-death-queue", "forebay.jobs.m.batch"),
        ];
        assert_eq!(of(&both), Reason::DeliveryLimit);
        assert_eq!(of(&both[..2]), Reason::Unknown);
    }

    #[test]
    fn the_reason_of_forebay_precedes_that_of_the_broker() {
        let mut headers = died(&[("expired", "forebay.retry.1s", 1)]);
        headers.insert(HEADER_REASON.into(), HeaderValue::LongString("no map".into()));
        let death = Death::read(Some(&headers));
        assert_eq!((death.reason, death.detail), (Reason::Unanswerable, Some("no map".into())));
    }

    #[test]
    fn headers_of_another_shape_give_no_reason_and_do_no_harm() {
        assert_eq!(Death::read(None).reason, Reason::Unknown);
        let mut headers = Headers::default();
        headers.insert("x-death".into(), HeaderValue::Boolean(true));
        assert_eq!(Death::read(Some(&headers)).reason, Reason::Unknown);
        assert_eq!(Death::read(Some(&died(&[("new", "q", 1)]))).reason.as_str(), "new");
    }

    #[test]
    fn reasons_are_read_as_they_are_written_and_others_are_refused_with_a_list() {
        for reason in Reason::NAMED {
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        let error = "expird".parse::<Reason>().unwrap_err();
        assert!(error.to_string().contains("`expird`") && error.to_string().contains("expired"));
    }
}
