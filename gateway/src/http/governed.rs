//! [`Gate`]: the one point at which a request becomes somebody's, and at which what it is expected to take is reserved.
//!
//! Nothing of a body is read before [`Gate::admit`], and nothing is submitted before [`Gate::reserve`].

use std::time::Duration;

use axum::{
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::Response,
};
use forebay_fabric::Store;
use forebay_schemas::{GenerateParams, KeyId, Prompt, Work};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{answer, local};
use crate::{
    access::{
        self, Cost, Denied, Limiter, Need, Outcome, Permit, Reason, Scope, Tokens, Verifier,
        headers,
    },
    error::{ApiError, Retry},
};

/// The tenant of all requests while there are no keys.
const TENANT: &str = "default";
/// Bytes of a token, rather too few: more tokens than reserved are counted only when the request ends.
const BYTES_PER_TOKEN: usize = 3;
/// The markers around a text.
const TOKENS_BESIDE: usize = 2;
/// The most tokens that are reserved for a text. Models cut longer ones, most of them far sooner.
const TOKENS_PER_TEXT_MAX: usize = 8_192;

/// Tokens that a template puts around a message.
const TOKENS_PER_MESSAGE: u64 = 4;
/// The tokens that are reserved for an answer whose request does not bound it.
const TOKENS_UNSAID: u64 = 1_024;

/// The caller of a request.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Somebody on this machine, while there are no keys.
    Local,
    /// The owner of a valid key.
    Known(access::Caller),
}

impl Caller {
    /// Who is billed.
    pub fn tenant(&self) -> &str {
        match self {
            Self::Local => TENANT,
            Self::Known(caller) => caller.tenant().id.as_str(),
        }
    }

    /// The id of the key that the request came with.
    pub fn api_key(&self) -> Option<&KeyId> {
        match self {
            Self::Local => None,
            Self::Known(caller) => Some(caller.key()),
        }
    }

    /// Who stays with one variant of a test: the key, or where there is none the tenant.
    pub fn sticky_key(&self) -> &str {
        self.api_key().map_or_else(|| self.tenant(), KeyId::as_str)
    }
}

/// The reservation of a request. Dropped, it frees the in-flight slot, and the tokens stay counted.
#[derive(Debug)]
pub struct Grant(Option<Permit>);

impl Grant {
    /// The answer of a request that took so many tokens, with how the tenant stands.
    pub fn settled(self, tokens: impl Into<Tokens>, mut response: Response) -> Response {
        if let Some(permit) = self.0 {
            answer::add(&mut response, headers::limits(permit.standing()));
            permit.settle(tokens);
        }
        response
    }

    /// How the tenant stands, for the head of an answer that goes on; [`Self::ended`] settles it.
    pub fn standing(&self) -> Vec<headers::Header> {
        self.0.as_ref().map(|permit| headers::limits(permit.standing())).unwrap_or_default()
    }

    /// The end of an answer that began before, which took so many tokens.
    pub fn ended(self, tokens: impl Into<Tokens>) {
        if let Some(permit) = self.0 {
            permit.settle(tokens);
        }
    }

    /// The end of a request that was refused as a mistake: nothing was computed for it.
    pub fn failed(self, error: ApiError) -> ApiError {
        if error.status.is_client_error() {
            self.ended(0_u64);
        }
        error
    }

    /// The answer of a request that has submitted a job: its tokens are not known yet, and stay counted as they were
    /// reserved.
    pub fn submitted(self, mut response: Response) -> Response {
        if let Some(permit) = self.0 {
            answer::add(&mut response, headers::limits(permit.standing()));
            permit.submitted();
        }
        response
    }

    /// The answer of a request whose job has ended before: its tokens stay counted as they were reserved.
    pub fn kept(self, mut response: Response) -> Response {
        if let Some(permit) = self.0 {
            answer::add(&mut response, headers::limits(permit.standing()));
        }
        response
    }
}

/// Lets requests in by their keys, and reserves what they need of their tenants' limits.
#[derive(Debug)]
pub struct Gate {
    verifier: Verifier,
    limiter: Limiter,
    /// Only this machine reaches the gateway: while there are no keys, none is needed.
    is_local: bool,
}

impl Gate {
    /// A gate whose keys and counts are in `store`. Must be called inside a Tokio runtime.
    pub fn start(store: &Store, is_local: bool, stop: &CancellationToken) -> Self {
        let verifier = Verifier::start(store, stop);
        Self { verifier, limiter: Limiter::start(store, stop), is_local }
    }

    /// The caller of a request, if its key has the scope. Without any key in the fleet every caller on this machine is
    /// the one tenant, whatever key its client sends.
    pub async fn admit(&self, headers: &HeaderMap, scope: Scope) -> Result<Caller, ApiError> {
        if self.is_local && !self.verifier.has_keys().await.map_err(|error| denied(&error))? {
            local::check(headers)?;
            return Ok(Caller::Local);
        }
        let known = async {
            let key = bearer(headers).ok_or(Denied::Missing)?;
            let caller = self.verifier.verify(key).await?;
            caller.require(scope)?;
            Ok(caller)
        };
        known.await.map(Caller::Known).map_err(|error| denied(&error))
    }

    /// Reserves what a request needs, and waits for an in-flight slot as long as its caller waits.
    pub async fn reserve(
        &self,
        caller: &Caller,
        tokens: Tokens,
        cost: Option<Cost>,
        wait: Duration,
    ) -> Result<Grant, ApiError> {
        let Caller::Known(caller) = caller else { return Ok(Grant(None)) };
        let need = Need { tokens, cost, wait_until: Some(Instant::now() + wait) };
        match self.limiter.reserve(caller.tenant(), need).await {
            Ok(Outcome::Granted(permit)) => Ok(Grant(Some(permit))),
            Ok(Outcome::Refused(refusal)) => Err(refused(&refusal)),
            Err(error) => Err(ApiError::unavailable("store_unavailable", error.to_string())),
        }
    }

    /// Waits until all that was reserved is settled. Call it last, with a time-out.
    pub async fn drain(&self) {
        self.limiter.drain().await;
    }
}

/// The tokens that texts are expected to take.
pub fn expected_tokens<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    let of_one =
        |text: &str| (text.len() / BYTES_PER_TOKEN + TOKENS_BESIDE).min(TOKENS_PER_TEXT_MAX) as u64;
    texts.into_iter().map(of_one).sum()
}

/// The tokens that sequences of token ids are expected to take.
pub fn expected_ids(sequences: &[Vec<u32>]) -> u64 {
    sequences.iter().map(|ids| ids.len().min(TOKENS_PER_TEXT_MAX) as u64).sum()
}

/// The tokens that a job is expected to take.
pub fn expected_of(work: &Work) -> Tokens {
    match work {
        Work::EmbedIds { input_ids, .. } => expected_ids(input_ids).into(),
        Work::Generate { prompt, params } => expected_text(prompt, params),
        _ => expected_tokens(work.texts()).into(),
    }
}

/// The tokens that an answer to a prompt is expected to take: those that it may have at most.
pub fn expected_text(prompt: &Prompt, params: &GenerateParams) -> Tokens {
    let of = |bytes: usize| (bytes / BYTES_PER_TOKEN + TOKENS_BESIDE) as u64;
    let prompt = match prompt {
        Prompt::Text(text) => of(text.len()),
        Prompt::Messages(messages) => {
            messages.iter().map(|message| TOKENS_PER_MESSAGE + of(message.content.len())).sum()
        }
    };
    let tools: u64 = params.tools.iter().map(|tool| of(tool.to_string().len())).sum();
    let output = params.max_tokens.map_or(TOKENS_UNSAID, u64::from);
    Tokens { input: prompt + tools, output }
}

/// The key of the header `Authorization`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn denied(error: &Denied) -> ApiError {
    match error.status() {
        401 => ApiError::mistake(StatusCode::UNAUTHORIZED, error.code(), error.to_string()),
        403 => ApiError::mistake(StatusCode::FORBIDDEN, error.code(), error.to_string()),
        _ => ApiError::unavailable(error.code(), error.to_string()),
    }
}

fn refused(refusal: &access::Refusal) -> ApiError {
    let standing = headers::limits(&refusal.standing);
    let message = refusal.to_string();
    if matches!(refusal.reason, Reason::Budget { .. }) {
        return ApiError::limited(refusal.code(), message, standing).over_budget();
    }
    match refusal.retry_ms {
        Some(ms) => {
            let retry = Retry::After(Duration::from_millis(ms));
            ApiError { retry, ..ApiError::limited(refusal.code(), message, standing) }
        }
        None => ApiError::mistake(StatusCode::BAD_REQUEST, refusal.code(), message),
    }
}

#[cfg(test)]
mod tests {
    use forebay_schemas::Message;

    use super::*;

    fn bearer_of(value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        bearer(&headers).map(ToOwned::to_owned)
    }

    #[test]
    fn the_key_is_read_whatever_the_case_of_its_scheme() {
        for value in ["Bearer fbk_x", "bearer fbk_x", "BEARER  fbk_x "] {
            assert_eq!(bearer_of(value).as_deref(), Some("fbk_x"), "{value}");
        }
        for value in ["fbk_x", "Basic fbk_x", "Bearer", ""] {
            assert_eq!(bearer_of(value), None, "{value}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn an_answer_is_expected_to_be_as_long_as_it_may() {
        let prompt = Prompt::Messages(vec![Message::new("user", "three bytes a token")]);
        let mut params = GenerateParams::default();
        assert_eq!(expected_text(&prompt, &params), Tokens { input: 12, output: 1_024 });
        params.max_tokens = Some(7);
        assert_eq!(
            expected_text(&Prompt::Text(String::new()), &params),
            Tokens { input: 2, output: 7 }
        );
    }

    #[test]
    fn tokens_are_expected_by_the_bytes_of_texts_up_to_what_models_read() {
        assert_eq!(expected_tokens([]), 0);
        assert_eq!(expected_tokens(["", "three bytes a token"]), 2 + 8);
        assert_eq!(expected_tokens(["x".repeat(1 << 20).as_str()]), 8_192);
    }
}
