//! Access: tenants, their API keys and their limits, as all programs share them in Redis.
//!
//! A [`Tenant`] is who is billed and whose limits hold; it has any number of keys ([`ApiKey`]). Tenants and keys are
//! two hashes in Redis, so that every step touches one Redis key. A change is published on a channel in the step that
//! makes it: programs that keep tenants and keys in memory forget them then.
//!
//! Limits are reserved before a request is served and settled when its tokens are known: [`Store::reserve`] and
//! [`Store::settle`], each one script.
//!
//! [`Store::reserve`]: crate::Store::reserve
//! [`Store::settle`]: crate::Store::settle

mod bounds;
mod credential;
mod error;
mod keys;
mod limits;
mod record;
mod records;
mod tenants;

pub use bounds::{BUDGET_MAX, LIMIT_MAX, NAME_CHARS_MAX};
pub use credential::{Credential, SecretHash};
pub use error::AccessError;
pub use keys::NewKey;
pub use limits::{Money, Request, RequestLease, Reservation, Usage, Verdict, WINDOW_MS};
pub use record::{ApiKey, KeyState, Scope, Tenant, TenantLimits};
