//! The usage of a job that is answered, to be written with its record.

use forebay_schemas::{
    KeyId, Lane, ModelId, Outcome, UsageEntry, names::HEADER_API_KEY, usage::UNKNOWN,
};

use crate::{
    broker::{HeaderValue, Message},
    ticket::Ticket,
};

/// The usage of a job, to be written with its record. The store adds what it costs.
pub(crate) fn entry(ticket: &Ticket, outcome: Outcome) -> UsageEntry {
    let Outcome { id, tenant, model, state, usage, finished_at_ms, .. } = outcome;
    let named = |name: Option<String>| name.filter(|name| !name.is_empty());
    // A job that could not be read may name anything as its model.
    let model = model.filter(|model| model.parse::<ModelId>().is_ok());
    let lane = lane(&ticket.message.routing_key, model.as_deref());
    UsageEntry {
        id,
        tenant: named(tenant).unwrap_or_else(|| UNKNOWN.to_owned()),
        api_key: api_key(&ticket.message).unwrap_or_else(|| UNKNOWN.to_owned()),
        model: model.unwrap_or_else(|| UNKNOWN.to_owned()),
        lane,
        state,
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        cached_tokens: usage.cached_tokens,
        truncated: usage.truncated,
        device_us: usage.device_us,
        cost: 0,
        price: UNKNOWN.to_owned(),
        finished_at_ms,
    }
}

/// The id of the API key that a message came with, if it is one.
fn api_key(message: &Message) -> Option<String> {
    let headers = message.properties.headers().as_ref()?;
    let id = match headers.inner().get(HEADER_API_KEY)? {
        HeaderValue::LongString(id) => id.to_string(),
        HeaderValue::ShortString(id) => id.to_string(),
        _ => return None,
    };
    id.parse::<KeyId>().ok().map(String::from)
}

/// The lane that a routing key leads to. A model's id may end as a lane's key does.
fn lane(routing_key: &str, model: Option<&str>) -> Lane {
    match routing_key.strip_suffix(".interactive") {
        Some(rest) if model.is_none_or(|model| model == rest) => Lane::Interactive,
        _ => Lane::Batch,
    }
}

#[cfg(test)]
mod tests {
    use forebay_schemas::{ContentType, ErrorCode, Job, JobError, State};

    use super::*;
    use crate::broker::{Acker, Headers, Properties, Settlement};

    struct Unsettled;

    impl Settlement for Unsettled {
        fn ack(self: Box<Self>) -> bool {
            false
        }

        fn requeue(self: Box<Self>) -> bool {
            false
        }
    }

    fn ticket() -> Ticket {
        Ticket {
            id: "job".parse().unwrap(),
            acker: Acker::new(Unsettled),
            content_type: ContentType::Json,
            failures: 0,
            deaths: 0,
            returned: false,
            result_ttl_s: 60,
            notify: None,
            reply_to: None,
            message: Box::new(Message {
                exchange: String::new(),
                routing_key: "m.batch".into(),
                properties: Properties::default(),
                body: Vec::new(),
            }),
            trace: None,
        }
    }

    #[test]
    fn a_job_s_lane_is_read_off_its_routing_key() {
        assert_eq!(lane("m.interactive", Some("m")), Lane::Interactive);
        assert_eq!(lane("m.interactive", None), Lane::Interactive);
        assert_eq!(lane("m.interactive", Some("m.interactive")), Lane::Batch);
        assert_eq!(lane("m.batch", Some("m")), Lane::Batch);
        assert_eq!(lane("m", Some("m")), Lane::Batch);
    }

    #[test]
    fn what_a_job_took_is_written_under_its_tenant_and_its_key() {
        let job = Job { tenant: Some("acme".into()), ..Job::embed("m".parse().unwrap(), vec![]) };
        let error = JobError::new(ErrorCode::NumericalError, "not finite");
        let entry = |key: &str, model: &str| {
            let mut ticket = ticket();
            let mut headers = Headers::default();
            headers.insert(HEADER_API_KEY.into(), HeaderValue::LongString(key.into()));
            ticket.message.properties = Properties::default().with_headers(headers);
            let model = Some(model.to_owned());
            super::entry(&ticket, Outcome { model, ..Outcome::failed(&job, error.clone()) })
        };
        let known = entry("k3mz8q2v7x4a", "m");
        assert_eq!((known.tenant.as_str(), known.api_key.as_str()), ("acme", "k3mz8q2v7x4a"));
        assert_eq!((known.model.as_str(), known.state), ("m", State::Failed));
        let odd = entry("any text", "NO MODEL");
        assert_eq!((odd.api_key.as_str(), odd.model.as_str()), (UNKNOWN, UNKNOWN));
    }
}
