//! HTTP to servers that may be slow, busy or unreachable: time-outs, and retries with a growing pause.

use std::{env, fmt, thread, time::Duration};

use secrecy::SecretString;
use ureq::{
    Agent, Body,
    http::{HeaderMap, Response},
    tls::{RootCerts, TlsConfig},
};

use super::{
    error::PullError,
    event::{Event, OnEvent},
};

/// The addresses of the hub and the package index, and the limits for requests to them.
#[derive(Debug, Clone)]
pub struct Remote {
    /// The hub, without a slash at the end.
    pub hub_url: String,
    /// Opens private and gated repositories of the hub.
    pub hub_token: Option<SecretString>,
    /// The package index (its `simple` page), without a slash at the end.
    pub index_url: String,
    /// Time-outs and retries.
    pub patience: Patience,
}

impl Remote {
    /// The public servers, or those named in `HF_ENDPOINT`, `HF_TOKEN` and `PIP_INDEX_URL`.
    pub fn from_env() -> Self {
        let url = |name: &str, default: &str| {
            let set = env::var(name).ok().filter(|url| !url.is_empty());
            set.as_deref().unwrap_or(default).trim_end_matches('/').to_owned()
        };
        Self {
            hub_url: url("HF_ENDPOINT", "https://huggingface.co"),
            hub_token: env::var("HF_TOKEN").ok().filter(|t| !t.is_empty()).map(SecretString::from),
            index_url: url("PIP_INDEX_URL", "https://pypi.org/simple"),
            patience: Patience::default(),
        }
    }
}

/// Time-outs and retries.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Attempts for one file.
    pub attempts_max: u32,
    /// The pause after the first failed attempt; it doubles from there.
    pub pause_first: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// The limit for resolving the server's name and connecting.
    pub connect_max: Duration,
    /// The longest time without a byte from the server.
    pub stall_max: Duration,
}

impl Default for Patience {
    /// Ten attempts wait for about two and a half minutes together: a router's restart.
    fn default() -> Self {
        Self {
            attempts_max: 10,
            pause_first: Duration::from_millis(500),
            pause_max: Duration::from_secs(30),
            connect_max: Duration::from_secs(15),
            stall_max: Duration::from_secs(30),
        }
    }
}

/// A failed attempt.
pub(super) enum Trouble {
    /// It may succeed later; the server may have said when.
    Passing { reason: String, after: Option<Duration> },
    /// Retrying would fail again.
    Lasting(PullError),
}

impl Trouble {
    pub(super) fn passing(reason: impl fmt::Display) -> Self {
        Self::Passing { reason: reason.to_string(), after: None }
    }
}

impl From<PullError> for Trouble {
    fn from(error: PullError) -> Self {
        Self::Lasting(error)
    }
}

/// An HTTP client with time-outs and retries.
pub(super) struct Http {
    agent: Agent,
    patience: Patience,
}

impl Http {
    pub(super) fn new(patience: Patience) -> Self {
        forebay_fabric::install_crypto();
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let agent = Agent::config_builder()
            .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_resolve(Some(patience.connect_max))
            .timeout_connect(Some(patience.connect_max))
            .timeout_recv_response(Some(patience.stall_max))
            .timeout_per_read(Some(patience.stall_max))
            .build()
            .new_agent();
        Self { agent, patience }
    }

    /// Calls `attempt` until it succeeds, fails for good, or the attempts are used up.
    pub(super) fn retrying<T>(
        &self,
        url: &str,
        on_event: &mut OnEvent<'_>,
        mut attempt: impl FnMut(&mut OnEvent<'_>) -> Result<T, Trouble>,
    ) -> Result<T, PullError> {
        let mut pause = self.patience.pause_first;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (reason, after) = match attempt(on_event) {
                Ok(value) => return Ok(value),
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing { reason, after }) => (reason, after),
            };
            if attempts >= self.patience.attempts_max {
                return Err(PullError::Unreachable { url: shown(url), reason, attempts });
            }
            let after = after.unwrap_or(pause).min(self.patience.pause_max);
            on_event(Event::Retrying { reason: &reason, after });
            thread::sleep(after);
            pause = (pause * 2).min(self.patience.pause_max);
        }
    }

    /// One GET. Every status except success is an error, but 416 is left to the caller.
    pub(super) fn get(
        &self,
        url: &str,
        headers: &[(&str, String)],
    ) -> Result<Response<Body>, Trouble> {
        let mut request = self.agent.get(url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.call().map_err(|error| classify(url, error))?;
        match response.status().as_u16() {
            200..=299 | 416 => Ok(response),
            408 | 429 | 500..=599 => Err(Trouble::Passing {
                reason: format!("the server answered {}", response.status()),
                after: retry_after(response.headers()),
            }),
            status => Err(Trouble::Lasting(refused(url, status))),
        }
    }

    /// The text behind `url`, at most [`TEXT_BYTES_MAX`] long.
    pub(super) fn text(
        &self,
        url: &str,
        headers: &[(&str, String)],
        on_event: &mut OnEvent<'_>,
    ) -> Result<String, PullError> {
        self.retrying(url, on_event, |_| {
            let mut response = self.get(url, headers)?;
            let body = response.body_mut().with_config().limit(TEXT_BYTES_MAX);
            body.read_to_string().map_err(|error| classify(url, error))
        })
    }
}

/// The largest listing accepted: the index page of a package with ten thousand files has some 10 MB.
const TEXT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Separates errors that may pass (lost connections, silence) from those that don't (a wrong address or certificate).
fn classify(url: &str, error: ureq::Error) -> Trouble {
    use ureq::Error;
    match error {
        Error::Io(_)
        | Error::Timeout(_)
        | Error::ConnectionFailed
        | Error::HostNotFound
        | Error::Protocol(_) => Trouble::passing(error),
        other => Trouble::Lasting(PullError::Answer { url: shown(url), reason: other.to_string() }),
    }
}

fn refused(url: &str, status: u16) -> PullError {
    let hint = match status {
        401 | 403 => {
            "access is refused; a private or gated repository needs HF_TOKEN in the environment"
        }
        404 | 410 => "it does not exist; check the name, version or revision",
        _ => "the request was refused",
    };
    PullError::Refused { url: shown(url), status, hint }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// `url` without the credentials that it may carry, in its authority or its query.
pub(super) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or(url);
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.rsplit_once('@') {
        Some((credentials, _)) => format!("{scheme}://{}", &rest[credentials.len() + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_show() {
        assert_eq!(shown("https://u:p@host/simple/?token=x"), "https://host/simple/");
        assert_eq!(shown("https://host/a@b"), "https://host/a@b");
    }

    #[test]
    fn the_token_of_the_hub_does_not_print() {
        let remote = Remote { hub_token: Some("hf_secret".into()), ..Remote::from_env() };
        assert!(!format!("{remote:?}").contains("hf_secret"));
    }
}
