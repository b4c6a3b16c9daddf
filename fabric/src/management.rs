//! RabbitMQ's management API: the names of all queues and how many messages of each are unacknowledged,
//! which AMQP does not report.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::{
    broker::parse_address,
    config::{Config, SecretUrl},
    http_tls::http_tls,
    tls::{Tls, TlsConfig, TlsError},
};

/// The most queues that the API returns at once.
const PAGE_SIZE: usize = 500;
/// The most pages that are asked for.
const PAGES_MAX: usize = 20;

#[derive(Deserialize)]
struct Page {
    page_count: usize,
    items: Vec<Queue>,
}

#[derive(Deserialize)]
struct Queue {
    name: String,
    /// Absent until the queue was counted for the first time, while its leader can't be reached, and for good where
    /// the broker collects no metrics: unknown, and not zero.
    #[serde(default)]
    messages_unacknowledged: Option<u64>,
}

/// The management API did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum ManagementError {
    /// The request failed, or its response can't be read.
    #[error(
        "RabbitMQ's management API at {url} can't be read: {reason}; check management_url, or leave it out"
    )]
    Failed {
        /// The address, password hidden.
        url: String,
        /// Why.
        reason: String,
    },
    /// A file of `[tls]` can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A client of RabbitMQ's management API. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Management {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    url: SecretUrl,
    vhost: String,
    request_max: Duration,
    files: TlsConfig,
    connected: Mutex<Connected>,
}

/// The HTTP client, and the files of `[tls]` that it was made with.
#[derive(Debug)]
struct Connected {
    tls: Tls,
    agent: ureq::Agent,
}

impl Management {
    /// A client for this configuration's API, with the longest that a request may take; `None` when there is no
    /// `management_url`.
    pub fn new(config: &Config, request_max: Duration) -> Result<Option<Self>, ManagementError> {
        let Some(url) = config.management_url.clone() else { return Ok(None) };
        let failed = |reason| ManagementError::Failed { url: url.to_string(), reason };
        let connected = Connected::new(Tls::load(&config.tls)?, request_max).map_err(failed)?;
        let inner = Inner {
            vhost: vhost(&config.amqp_url),
            url,
            request_max,
            files: config.tls.clone(),
            connected: Mutex::new(connected),
        };
        Ok(Some(Self { inner: Arc::new(inner) }))
    }

    /// Unacknowledged messages by the names of all queues of the fleet, in one request a page of 500; `None` for a
    /// queue that was not counted. The API counts every five seconds.
    pub async fn unacknowledged(&self) -> Result<BTreeMap<String, Option<u64>>, ManagementError> {
        let inner = self.inner.clone();
        let asked = tokio::task::spawn_blocking(move || inner.ask(&inner.agent()?));
        asked.await.map_err(|error| self.inner.failed(error.to_string())).flatten()
    }
}

impl Connected {
    fn new(tls: Tls, request_max: Duration) -> Result<Self, String> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(request_max))
            .tls_config(http_tls(&tls)?)
            .build()
            .new_agent();
        Ok(Self { tls, agent })
    }
}

impl Inner {
    fn failed(&self, reason: String) -> ManagementError {
        ManagementError::Failed { url: self.url.to_string(), reason }
    }

    /// The HTTP client with the files of `[tls]` as they are now. One with other files connects again.
    fn agent(&self) -> Result<ureq::Agent, ManagementError> {
        let tls = Tls::load(&self.files)?;
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if !connected.tls.is_same(&tls) {
            *connected = Connected::new(tls, self.request_max).map_err(|e| self.failed(e))?;
        }
        Ok(connected.agent.clone())
    }

    fn ask(&self, agent: &ureq::Agent) -> Result<BTreeMap<String, Option<u64>>, ManagementError> {
        let Address { base, authorization } = Address::of(self.url.expose());
        let mut queues = BTreeMap::new();
        for page in 1..=PAGES_MAX {
            let mut request = agent.get(format!(
                "{base}/api/queues/{}?page={page}&page_size={PAGE_SIZE}&name=%5Eforebay%5C.&use_regex=true",
                self.vhost
            ));
            if let Some(authorization) = &authorization {
                request = request.header("authorization", authorization);
            }
            let failed = |error: ureq::Error| self.failed(error.to_string());
            let mut response = request.call().map_err(failed)?;
            let answer: Page = response.body_mut().read_json().map_err(failed)?;
            queues.extend(answer.items.into_iter().map(|q| (q.name, q.messages_unacknowledged)));
            if page >= answer.page_count {
                break;
            }
        }
        Ok(queues)
    }
}

/// The virtual host in an AMQP address, percent-encoded as the API wants it.
fn vhost(amqp_url: &SecretUrl) -> String {
    // An address that can't be read connects to no broker either, which is reported there.
    let vhost = parse_address(amqp_url).map_or_else(|_| "/".to_owned(), |uri| uri.vhost);
    percent_encoded(&vhost)
}

fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

/// An address without its user and password, and those as a header.
struct Address {
    base: String,
    authorization: Option<String>,
}

impl Address {
    fn of(url: &str) -> Self {
        let url = url.trim_end_matches('/');
        let split = url.split_once("://").and_then(|(scheme, rest)| {
            let authority = rest.split('/').next().unwrap_or(rest);
            let user = authority.rsplit_once('@')?.0;
            Some((scheme, user, &rest[user.len() + 1..]))
        });
        let Some((scheme, user, rest)) = split else {
            return Self { base: url.to_owned(), authorization: None };
        };
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let pair = [&percent_decoded(name)[..], b":", &percent_decoded(password)].concat();
        let authorization = Some(format!("Basic {}", STANDARD.encode(pair)));
        Self { base: format!("{scheme}://{rest}"), authorization }
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail
            .get(..2)
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match escaped {
            Some(byte) if *first == b'%' => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

#[cfg(fuzzing)]
#[allow(missing_docs)]
pub mod fuzzing {
    pub fn management_address(url: &str) -> (String, Option<String>) {
        let super::Address { base, authorization } = super::Address::of(url);
        (base, authorization)
    }

    pub fn virtual_host(amqp_url: &str) -> String {
        super::vhost(&amqp_url.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_leave_the_address_for_a_header() {
        let address = Address::of("http://me:p%40ss:w@host:15672/");
        assert_eq!(address.base, "http://host:15672");
        let expected = format!("Basic {}", STANDARD.encode("me:p@ss:w"));
        assert_eq!(address.authorization, Some(expected));
        let plain = Address::of("https://host/rabbit");
        assert_eq!((plain.base.as_str(), plain.authorization), ("https://host/rabbit", None));
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(percent_decoded("100%"), b"100%");
        assert_eq!(percent_decoded("%zz%41"), b"%zzA");
    }

    #[test]
    fn the_virtual_host_is_the_path_of_the_broker() {
        for (path, expected) in [
            ("/%2f", "%2F"),
            ("/prod?heartbeat=1", "prod"),
            ("/a%2fb.c", "a%2Fb%2Ec"),
            ("", "%2F"),
            ("/", "%2F"),
            ("//", "%2F"),
        ] {
            let url = format!("amqp://u:p@host:5672{path}");
            assert_eq!(vhost(&url.as_str().into()), expected, "{path}");
        }
    }
}
