//! Errors of changes to tenants and keys, each with its remedy.

use forebay_schemas::{KeyId, TenantId};

use super::bounds::{BUDGET_MAX, LIMIT_MAX, NAME_CHARS_MAX};
use crate::{config::format_decimal, store::StoreError};

/// A tenant or a key that can't be read or changed as asked.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A tenant of that id exists.
    #[error(
        "there is a tenant `{0}` already; choose another id, or change its limits with `forebay tenants set-limits`"
    )]
    TenantExists(TenantId),
    /// No tenant of that id exists.
    #[error("there is no tenant `{0}`; `forebay tenants list` shows which there are")]
    NoTenant(TenantId),
    /// No key of that id exists.
    #[error("there is no key `{0}`; `forebay keys list` shows which there are")]
    NoKey(KeyId),
    /// A fleet that is to be reopened has keys.
    #[error(
        "the fleet has {0} keys, expired and revoked ones included, and is closed while it has any; \
         `forebay keys list` shows them, and `forebay tenants delete` removes those of a tenant"
    )]
    HasKeys(usize),
    /// A record in Redis can't be read.
    #[error(
        "`{field}` in Redis' hash {hash} can't be read: {reason}; run all programs at one version"
    )]
    Unreadable {
        /// The hash.
        hash: &'static str,
        /// The id in it.
        field: String,
        /// Why.
        reason: String,
    },
    /// A limit is out of its range.
    #[error(
        "`{field}` is {value}; a limit is from 1 to {LIMIT_MAX}, and none is written by leaving it out"
    )]
    Limit {
        /// The limit's name.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A budget is out of its range.
    #[error(
        "the budget is {}; a budget is more than 0 and at most {}, and none is written by leaving it out",
        format_decimal(*.value), format_decimal(BUDGET_MAX)
    )]
    Budget {
        /// Its value, in units of 1e-9.
        value: u64,
    },
    /// A name is too long.
    #[error("the name has {chars} characters; the most are {NAME_CHARS_MAX}: shorten it")]
    Name {
        /// Its length in characters.
        chars: usize,
    },
    /// A key without scopes could do nothing.
    #[error("the key has no scope; give it some of submit, read and admin")]
    NoScope,
    /// The hash is full.
    #[error(
        "Redis' hash {hash} has {max} entries, the most there may be; remove some with `forebay tenants delete`"
    )]
    Full {
        /// The hash.
        hash: &'static str,
        /// The bound.
        max: usize,
    },
    /// Others changed the record each time that it was about to be written.
    #[error("`{0}` was changed by others meanwhile, again and again; look at it, and try again")]
    Contended(String),
    /// The operating system has no random numbers.
    #[error("the operating system gives no random numbers for a secret: {0}")]
    Random(String),
    /// Redis can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AccessError {
    /// Whether the caller asked for something that can't be: trying again can't help.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Limit { .. } | Self::Budget { .. } | Self::Name { .. } | Self::NoScope => true,
            Self::Store(error) => error.is_final(),
            _ => false,
        }
    }
}
