//! The records of tenants and keys: what Redis has of them, as JSON.

use std::{collections::BTreeSet, fmt, str::FromStr};

use forebay_schemas::{KeyId, TenantId};
use serde::{Deserialize, Serialize};

use super::{
    bounds::{BUDGET_MAX, LIMIT_MAX, NAME_CHARS_MAX},
    credential::SecretHash,
    error::AccessError,
};

/// A tenant: who is billed, and whose limits hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// A name for people; may be empty.
    #[serde(default)]
    pub name: String,
    /// When it was created, in Unix milliseconds.
    pub created_at_ms: u64,
    /// Its limits.
    #[serde(default)]
    pub limits: TenantLimits,
}

/// The limits of a tenant, over all its keys and all replicas of the gateway. One that is `None` does not hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantLimits {
    /// The most requests in any minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// The most tokens in any minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// The most requests that are served at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    /// The most money in a month of UTC, in units of 1e-9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<u64>,
}

impl TenantLimits {
    /// Whether none holds.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self) -> Result<(), AccessError> {
        for (field, limit) in [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("in_flight", self.in_flight),
        ] {
            if let Some(value) = limit.filter(|value| !(1..=LIMIT_MAX).contains(value)) {
                return Err(AccessError::Limit { field, value });
            }
        }
        match self.budget.filter(|value| !(1..=BUDGET_MAX).contains(value)) {
            Some(value) => Err(AccessError::Budget { value }),
            None => Ok(()),
        }
    }
}

pub(super) fn check_name(name: &str) -> Result<(), AccessError> {
    let chars = name.chars().count();
    if chars > NAME_CHARS_MAX { Err(AccessError::Name { chars }) } else { Ok(()) }
}

/// Rights of a key. None implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Submit and cancel work.
    Submit,
    /// Read results, models and usage of the key's own tenant.
    Read,
    /// Read usage of all tenants, and what else is the operator's.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Submit, Self::Read, Self::Admin];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no scope.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a scope: use submit, read or admin")]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

/// A key as Redis has it: all but its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiKey {
    /// The public id.
    pub id: KeyId,
    /// Its tenant.
    pub tenant: TenantId,
    /// When that tenant was created. A key of an earlier tenant that had the id is no key of the present one.
    pub tenant_created_at_ms: u64,
    /// The hash of the secret.
    pub hash: SecretHash,
    /// Its rights.
    pub scopes: BTreeSet<Scope>,
    /// A name for people; may be empty.
    #[serde(default)]
    pub name: String,
    /// When it was created, in Unix milliseconds.
    pub created_at_ms: u64,
    /// When it stops to be valid, in Unix milliseconds; never unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// When it was revoked, in Unix milliseconds, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at_ms: Option<u64>,
}

/// Whether a key is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// It is.
    Active,
    /// No longer: it had an end.
    Expired,
    /// No longer: it was revoked.
    Revoked,
}

impl KeyState {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl ApiKey {
    /// Whether it is valid at that time.
    pub fn state(&self, now_ms: u64) -> KeyState {
        if self.revoked_at_ms.is_some() {
            KeyState::Revoked
        } else if self.expires_at_ms.is_some_and(|end_ms| end_ms <= now_ms) {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }

    /// Whether it is a key of `tenant`, and not of an earlier one that had its id.
    pub fn is_of(&self, tenant: &Tenant) -> bool {
        self.tenant == tenant.id && self.tenant_created_at_ms == tenant.created_at_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Credential;

    fn key() -> ApiKey {
        let credential = Credential::random().unwrap();
        ApiKey {
            id: credential.id().clone(),
            tenant: "acme".parse().unwrap(),
            tenant_created_at_ms: 7,
            hash: credential.hash(),
            scopes: BTreeSet::from([Scope::Submit]),
            name: String::new(),
            created_at_ms: 10,
            expires_at_ms: None,
            revoked_at_ms: None,
        }
    }

    #[test]
    fn a_key_is_valid_until_it_expires_or_is_revoked() {
        let mut key = key();
        assert_eq!(key.state(u64::MAX), KeyState::Active);
        key.expires_at_ms = Some(100);
        assert_eq!(
            [99, 100].map(|now_ms| key.state(now_ms)),
            [KeyState::Active, KeyState::Expired]
        );
        key.revoked_at_ms = Some(50);
        assert_eq!([99, 100].map(|now_ms| key.state(now_ms)), [KeyState::Revoked; 2]);
    }

    #[test]
    fn a_key_outlives_no_tenant_although_another_gets_its_id() {
        let mut tenant = Tenant {
            id: "acme".parse().unwrap(),
            name: String::new(),
            created_at_ms: 7,
            limits: TenantLimits::default(),
        };
        assert!(key().is_of(&tenant));
        tenant.created_at_ms = 8;
        assert!(!key().is_of(&tenant));
    }

    #[test]
    fn limits_that_are_none_are_left_out_and_those_out_of_range_refused_by_name() {
        let limits = TenantLimits { in_flight: Some(4), ..TenantLimits::default() };
        let json = serde_json::to_string(&limits).unwrap();
        assert_eq!(json, "{\"in_flight\":4}");
        assert_eq!(serde_json::from_str::<TenantLimits>(&json).unwrap(), limits);
        for value in [0, LIMIT_MAX + 1] {
            let wrong = TenantLimits { tokens_per_minute: Some(value), ..limits };
            let error = wrong.check().unwrap_err().to_string();
            assert!(
                error.contains("tokens_per_minute") && error.contains(&value.to_string()),
                "{error}"
            );
        }
        assert!(limits.check().is_ok());
    }

    #[test]
    fn every_scope_is_read_by_its_name() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse::<Scope>().unwrap(), scope);
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
        assert!("root".parse::<Scope>().unwrap_err().to_string().contains("`root`"));
    }
}
