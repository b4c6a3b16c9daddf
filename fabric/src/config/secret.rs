//! Addresses that carry a password and never show it.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A URL whose password stays out of logs, errors, metrics and printed configuration.
#[derive(Clone)]
pub struct SecretUrl(SecretString);

impl SecretUrl {
    /// The whole URL, for the one call that connects with it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether it has a login, with or without a password.
    pub fn has_login(&self) -> bool {
        let url = self.expose();
        let address = url.split_once("://").map_or(url, |(_, rest)| rest);
        address.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
    }

    /// The URL with its password replaced. In doubt, more than the password is.
    fn redacted(&self) -> String {
        let url = self.expose();
        let start = url.find("://").map_or(0, |at| at + 3);
        let (scheme, rest) = url.split_at(start);
        let (address, query) = match rest.split_once(['?', '#']) {
            // A password that was not percent-encoded may hold any of the characters that end it.
            Some((address, after)) if !after.contains('@') => (address, &rest[address.len()..]),
            _ => (rest, ""),
        };
        let shown = match address.rsplit_once('@') {
            Some((login, host)) => match login.split_once(':') {
                Some((user, _)) => format!("{user}:{HIDDEN}@{host}"),
                None => address.to_owned(),
            },
            None => without_stray_password(address),
        };
        format!("{scheme}{shown}{}", without_values(query))
    }
}

const HIDDEN: &str = "***";

/// Hides a text after a colon that is no port: it is a password whose host was forgotten.
fn without_stray_password(address: &str) -> String {
    let authority = address.split('/').next().unwrap_or(address);
    match authority.split_once(':') {
        Some((before, port))
            if !authority.starts_with('[') && !port.bytes().all(|b| b.is_ascii_digit()) =>
        {
            format!("{before}:{HIDDEN}")
        }
        _ => address.to_owned(),
    }
}

/// A query with the values that may be secret replaced: Redis takes `?pass=` for a socket.
fn without_values(query: &str) -> String {
    let secret = |key: &str| {
        let key = key.trim_start_matches(['?', '#']).to_ascii_lowercase();
        ["pass", "secret", "token", "key"].iter().any(|word| key.contains(word))
    };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, _)) if secret(key) => format!("{key}={HIDDEN}"),
        _ => pair.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        Self(SecretString::from(url))
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|url| Self(url.into()))
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("amqp://me:s3cret@host:5672/%2f", "amqp://me:***@host:5672/%2f"),
            ("amqp://me:s3c@ret@host/v?x=1", "amqp://me:***@host/v?x=1"),
            // Not percent-encoded, as it should be: no address at all, but not to be shown either.
            ("amqp://me:s3/c@ret@host/v", "amqp://me:***@host/v"),
            ("amqp://me:s3c?r#et@host/v?x=1", "amqp://me:***@host/v?x=1"),
            ("amqp://me:s3cret", "amqp://me:***"),
            ("amqp://me:s3:cret/v", "amqp://me:***"),
            (
                "unix:///run/redis.sock?db=1&pass=s3cret&user=me",
                "unix:///run/redis.sock?db=1&pass=***&user=me",
            ),
            ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
            ("redis://[::1]/0", "redis://[::1]/0"),
            ("redis://:s3cret@host", "redis://:***@host"),
            ("redis://host:6379/0", "redis://host:6379/0"),
            ("http://me@host/", "http://me@host/"),
            ("nonsense", "nonsense"),
        ] {
            let url = SecretUrl::from(url);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(serde_json::to_value(&url).unwrap(), shown);
        }
    }
}
