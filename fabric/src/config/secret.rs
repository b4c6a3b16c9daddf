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

    /// The URL with its password replaced.
    fn redacted(&self) -> String {
        let url = self.expose();
        let start = url.find("://").map_or(0, |at| at + 3);
        let authority = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
        let Some(at) = url[start..authority].rfind('@').map(|at| start + at) else {
            return url.to_owned();
        };
        match url[start..at].find(':') {
            Some(colon) => format!("{}:***{}", &url[..start + colon], &url[at..]),
            None => url.to_owned(),
        }
    }
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
            ("amqp://me:s3c@ret@host/v?x=a@b", "amqp://me:***@host/v?x=a@b"),
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
