//! Errors of the store, each with its remedy.

use forebay_schemas::names::STATUS_KEY;
use redis::{ErrorKind, RedisError};

use crate::{config::SecretUrl, tls::TlsError};

/// A failed command, or a connection that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address can't be parsed.
    #[error("redis_url {url} is not an address of Redis: {reason}; write redis://host:6379/0")]
    Address {
        /// The address, password hidden.
        url: String,
        /// Why it can't be parsed.
        reason: String,
    },
    /// There is no connection.
    #[error("can't reach Redis at {url}: {reason}; check redis_url and that Redis runs")]
    Unreachable {
        /// The address, password hidden.
        url: String,
        /// Why.
        reason: String,
    },
    /// Its certificate is not accepted.
    #[error(
        "Redis at {url} is not trusted: {reason}; its certificate has to come from an authority of the system or \
         of tls.ca_file, be valid today, and name the host in redis_url"
    )]
    Untrusted {
        /// The address, password hidden.
        url: String,
        /// Why the certificate is not accepted.
        reason: String,
    },
    /// User, password or database are refused.
    #[error(
        "Redis at {url} refuses the login: {reason}; check user, password and database in redis_url"
    )]
    Refused {
        /// The address, password hidden.
        url: String,
        /// Redis' own words.
        reason: String,
    },
    /// A file of `[tls]` can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Redis refused or did not answer in time.
    #[error(
        "Redis at {url} failed: {source}; check that it has memory left, is the primary, and lets this user do that"
    )]
    Command {
        /// The address, password hidden.
        url: String,
        /// The error that it returned.
        source: RedisError,
    },
    /// Too few replicas have what was written.
    #[error(
        "{replicas} replicas of Redis have the result, store.replicas_min asks for {replicas_min}; mend the \
         replicas, or ask for fewer"
    )]
    Replicas {
        /// Replicas that have it.
        replicas: u32,
        /// Replicas that must have it.
        replicas_min: u32,
    },
    /// The status that the leading autoscaler wrote can't be read.
    #[error(
        "the fleet's status in {STATUS_KEY} can't be read: {0}; run the autoscalers and this program at one version"
    )]
    Status(String),
    /// An entry of a token stream can't be read or written.
    #[error("an entry of a token stream is wrong: {0}; run all programs at one version")]
    Tokens(String),
    /// A record can't be written as JSON.
    #[error("can't write the record: {0}")]
    Record(#[from] serde_json::Error),
}

/// How redis-rs begins its error about `SELECT`.
const NO_DATABASE: &str = "Redis server refused to switch database";

impl StoreError {
    /// Whether trying again can't help.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Address { .. } | Self::Tls(_) | Self::Refused { .. })
    }

    /// The error of a login or a certificate that is refused; another error comes back as it is.
    pub(super) fn of(error: RedisError, url: &SecretUrl) -> Result<Self, RedisError> {
        let reason = error.to_string();
        let is_refused = error.kind() == ErrorKind::AuthenticationFailed
            || error.code() == Some("NOAUTH")
            || reason.starts_with(NO_DATABASE);
        match crate::tls::distrust(&error) {
            Some(reason) => Ok(Self::Untrusted { url: url.to_string(), reason }),
            None if is_refused => Ok(Self::Refused { url: url.to_string(), reason }),
            None => Err(error),
        }
    }
}
