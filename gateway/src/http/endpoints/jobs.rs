//! Jobs as the wire has them: `POST /v1/jobs`, `GET` and `DELETE /v1/jobs/{id}`.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use forebay_client::{Job, JobId, Lane, Outcome, WaitError, Work};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::{
    access::{Scope, SubmittedJob},
    document::{Operation, Tag},
    error::ApiError,
    failures,
    http::{
        answer,
        app::{App, check_inputs},
        body::{self, Held},
        governed::{Caller, expected_of},
        path_id::PathId,
    },
    native::{self, Ended, JobBody, NativeJob, Pending, PendingState, Submitted},
    routing::{Answered, Named, Route},
    trace,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that the request was answered before, as other interfaces say it.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// How long the money of a job without a deadline stays reserved, in milliseconds, if it does not end before.
const MONEY_HELD_MS: u64 = 24 * 3_600_000;
/// How much longer than its deadline, until its record is there and its usage summed up.
const MONEY_LATE_MS: u64 = 10 * 60_000;
/// Redis forgets reservations after 40 days.
const MONEY_HELD_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// `POST /v1/jobs` in the document.
pub fn described_create() -> Operation {
    let body = json!({"model": "all-minilm-l6-v2", "task": "embed", "input": ["water in a pool"]});
    Operation::keyed(Scope::Submit, "submitJob", Tag::Jobs, "Submits a job")
        .describe("Answers once the broker has confirmed the job: from then on it is not lost.")
        .limited()
        .routed()
        .parameter("IdempotencyKey")
        .parameter("ReadTimeout")
        .body::<JobBody>(vec![("vectors of a list of texts", body)])
        .answers_with::<Submitted>(202, "It is queued.", &["location", "idempotent-replayed"])
        .errors(&[400, 404, 408, 413, 500])
}

/// `GET /v1/jobs/{id}` in the document.
pub fn described_retrieve() -> Operation {
    Operation::keyed(Scope::Read, "retrieveJob", Tag::Jobs, "A job's record, once there is one")
        .parameter("JobId")
        .parameter("Wait")
        .answers::<Outcome>(200, "The record: what the job ended with.")
        .answers::<Pending>(202, "There is no record yet, or the id was never given out.")
        .errors(&[400, 404, 500])
}

/// `DELETE /v1/jobs/{id}` in the document.
pub fn described_cancel() -> Operation {
    Operation::keyed(Scope::Submit, "cancelJob", Tag::Jobs, "Asks for a job to be cancelled")
        .describe("It takes effect unless the job is being computed.")
        .parameter("JobId")
        .answers::<Ended>(200, "It has ended before, and keeps its record.")
        .answers::<Pending>(202, "It is not computed, if no worker has begun.")
        .errors(&[400, 404, 500])
}

/// Submits a job. The answer comes once the broker has confirmed it: from then on it is not lost.
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let caller = app.gate.admit(&head.headers, Scope::Submit).await?;
    let tenant = caller.tenant();
    let held = body::read(&app, &head.headers, body).await?;
    let key = idempotency_key(&head.headers)?;
    let (routed, held) = routed(&app, &caller, &head.headers, held).await?;
    let (route, answered) = routed.unzip();
    let parse = {
        let tenant = tenant.to_owned();
        let key = key.map(ToOwned::to_owned);
        let model = answered.as_ref().map(|answered: &Answered| answered.model.clone());
        let limits = app.limits.clone();
        move |bytes: &[u8]| {
            let id = match key {
                Some(key) => native::idempotent_id(&tenant, &key, bytes)?,
                None => native::random_id(&tenant)?,
            };
            Ok((NativeJob::parse(bytes, &id, model.as_ref(), &limits)?, id))
        }
    };
    let ((NativeJob { mut job, lane }, id), _permit) = body::parsed(&app, held, parse).await?;
    if let Some(route) = route {
        check_inputs(&Named::Route(route.clone()), "input", job.work.inputs())?;
        let most = route.config.expires_ms_max;
        job.expires_in_ms = job.expires_in_ms.into_iter().chain(most).min();
        keep_whole(&mut job.work, &route);
    }
    job.tenant = Some(tenant.to_owned());
    let tokens = expected_of(&job.work);
    let lease_ms = money_ms(job.expires_in_ms);
    let cost = app.cost(&job.model, Some(SubmittedJob { id: id.clone(), lease_ms }));
    let wait = app.wait_of(&head.headers);
    let deadline = Instant::now() + wait;
    let grant = app.gate.reserve(&caller, tokens, cost, wait).await?;
    let mut answer = Submitted {
        id: id.clone(),
        object: "job",
        state: "queued",
        model: job.model.clone(),
        task: job.work.task(),
        lane,
    };
    // A job that has ended is not computed once more. One that is under way may be, and its first result stands.
    let ended = if key.is_some() { found(&app, &id).await? } else { None };
    let has_ended = ended.is_some();
    if let Some(record) = ended {
        // A route may lead elsewhere by now.
        answer.state = record.state.as_str();
        answer.model = record.model.and_then(|model| model.parse().ok()).unwrap_or(answer.model);
    } else {
        submit(&app, &caller, job, lane, deadline).await?;
    }
    let mut response = answer::json(StatusCode::ACCEPTED, &answer);
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(format!("/v1/jobs/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    if has_ended {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        return Ok(grant.kept(response));
    }
    let response = grant.submitted(response);
    Ok(match answered {
        Some(answered) => answered.said(response),
        None => response,
    })
}

/// Returns once the broker has confirmed it. A broker that is away is waited for no longer than the caller waits.
async fn submit(
    app: &App,
    caller: &Caller,
    job: Job,
    lane: Lane,
    deadline: Instant,
) -> Result<(), ApiError> {
    let client = app.fleet.client.clone().in_trace(trace::current());
    match timeout_at(deadline, client.submit_as(job, lane, caller.api_key())).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failures::of_submit(&error)),
        Err(_) => Err(failures::unreachable()),
    }
}

/// How long the money of a job stays reserved that expires after so long, in milliseconds.
fn money_ms(expires_in_ms: Option<u64>) -> u64 {
    let ends = expires_in_ms.unwrap_or(MONEY_HELD_MS);
    ends.saturating_add(MONEY_LATE_MS).min(MONEY_HELD_MS_MAX)
}

/// Keeps a model from cutting texts where the route has them refused.
fn keep_whole(work: &mut Work, route: &Route) {
    match work {
        Work::Embed { params, .. } | Work::EmbedIds { params, .. } => {
            params.truncate &= route.may_cut();
        }
        Work::EmbedSparse { params, .. } => params.truncate &= route.may_cut(),
        Work::EmbedTokens { params, .. } => params.truncate &= route.may_cut(),
        Work::Rerank { .. } | Work::Classify { .. } | Work::Generate { .. } => {}
    }
}

/// The route that a body names, and the model that it leads to; with the body. A job that was submitted goes to no
/// other.
async fn routed(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    held: Held,
) -> Result<(Option<(Arc<Route>, Answered)>, Held), ApiError> {
    if app.routes.is_empty() {
        return Ok((None, held));
    }
    let (named, held) = body::peeked(app, held, native::named).await?;
    let found = named.and_then(|(lane, name)| Some((lane, app.routes.get(&name)?.clone())));
    let Some((lane, route)) = found else { return Ok((None, held)) };
    let deadline = Instant::now() + route.wait(app.wait_of(headers));
    let named = Named::Route(route.clone());
    let attempts = app.attempts(caller, &named, deadline, lane, "input").await;
    Ok((Some((route, attempts.first())), held))
}

/// A job's record, or 202 while there is none. `?wait=30` waits for it as many seconds.
pub async fn retrieve(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    request: Request,
) -> Result<Response, ApiError> {
    let id = job_of(&app, request.headers(), Scope::Read, &id).await?;
    let asked = wait_of(request.uri().query().unwrap_or_default())?;
    drop(request); // thousands wait, and the head of each is a buffer of 8 KiB
    let wait = asked.min(Duration::from_millis(app.config.poll_wait_ms_max));
    let record =
        if wait.is_zero() { found(&app, &id).await? } else { waited(&app, &id, wait).await? };
    Ok(match record {
        Some(outcome) => answer::json(StatusCode::OK, &outcome),
        None => answer::json(StatusCode::ACCEPTED, &Pending { id, state: PendingState::Pending }),
    })
}

/// Asks for a job to be cancelled. It takes effect unless the job is being computed; one that has ended keeps its
/// record.
pub async fn cancel(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = job_of(&app, &headers, Scope::Submit, &id).await?;
    if let Some(outcome) = found(&app, &id).await? {
        return Ok(answer::json(StatusCode::OK, &Ended { id, state: outcome.state }));
    }
    app.fleet.client.cancel(&id).await.map_err(|error| {
        tracing::warn!(%error, "a request to cancel failed");
        ApiError::unavailable(
            "unavailable",
            "the fleet can't be reached at present: try again soon",
        )
    })?;
    Ok(answer::json(StatusCode::ACCEPTED, &Pending { id, state: PendingState::Cancelling }))
}

pub(super) async fn found(app: &App, id: &JobId) -> Result<Option<Outcome>, ApiError> {
    app.fleet.client.get(id).await.map_err(|error| failures::of_wait(&error))
}

async fn waited(app: &App, id: &JobId, wait: Duration) -> Result<Option<Outcome>, ApiError> {
    // A gateway that stops answers at once with what there is; the client asks another replica.
    let outcome = app.stop.run_until_cancelled(app.fleet.client.wait(id, wait)).await;
    match outcome {
        Some(Ok(outcome)) => Ok(Some(outcome)),
        None => found(app, id).await,
        Some(Err(WaitError::Timeout { .. })) => Ok(None),
        Some(Err(error)) => Err(failures::of_wait(&error)),
    }
}

/// A job that the caller may ask about: one of its tenant's, or any while there are no keys.
pub(super) async fn job_of(
    app: &App,
    headers: &HeaderMap,
    scope: Scope,
    id: &str,
) -> Result<JobId, ApiError> {
    let caller = app.gate.admit(headers, scope).await?;
    let id = job_id(id)?;
    match caller {
        Caller::Known(_) if !native::is_of(&id, caller.tenant()) => {
            Err(not_found(format!("there is no job `{id}` of tenant {}", caller.tenant())))
        }
        _ => Ok(id),
    }
}

fn job_id(text: &str) -> Result<JobId, ApiError> {
    text.parse().map_err(|error| not_found(format!("{error}")))
}

fn not_found(message: String) -> ApiError {
    ApiError::mistake(StatusCode::NOT_FOUND, "job_not_found", message).at("id")
}

/// The `Idempotency-Key`, if one came.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| {
        let message = "`Idempotency-Key` is not visible ASCII: send a UUID's text, for example";
        ApiError::invalid("Idempotency-Key", message)
    })
}

/// The seconds of `wait` in a query.
pub fn wait_of(query: &str) -> Result<Duration, ApiError> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, written)) = pairs.into_iter().find(|(name, _)| *name == "wait") else {
        return Ok(Duration::ZERO);
    };
    let s: Option<f64> = written.parse().ok().filter(|s| (0.0..1e9).contains(s));
    s.map(Duration::from_secs_f64).ok_or_else(|| {
        let came: String = written.chars().take(40).collect();
        ApiError::invalid("wait", format!("`wait` is `{came}`: send seconds, such as 30"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_read_from_the_query() {
        assert_eq!(wait_of("").unwrap(), Duration::ZERO);
        assert_eq!(wait_of("a=1&wait=30").unwrap(), Duration::from_secs(30));
        assert_eq!(wait_of("wait=0.5").unwrap(), Duration::from_millis(500));
        for wrong in ["wait=", "wait=x", "wait=-1", "wait=NaN", "wait=1e300"] {
            assert_eq!(wait_of(wrong).unwrap_err().param.as_deref(), Some("wait"), "{wrong}");
        }
    }

    #[test]
    fn an_id_that_no_job_can_have_is_not_found() {
        assert!(job_id("0192-ab_C").is_ok());
        for wrong in ["", "a.b", "a/b", &"x".repeat(65)] {
            let error = job_id(wrong).unwrap_err();
            assert_eq!((error.status.as_u16(), error.code), (404, "job_not_found"));
        }
    }
}
