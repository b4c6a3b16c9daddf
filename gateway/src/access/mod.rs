//! Access: who may ask, and how much.
//!
//! A request passes three steps here, in this order. [`Verifier::verify`] makes a [`Caller`] of the key that it came
//! with, and [`Caller::require`] asks for a scope. [`Limiter::reserve`] reserves what it is expected to take, and
//! returns a [`Permit`], or a [`Refusal`] with all that the client needs to come back in time. [`Permit::settle`] ends
//! it, with the tokens that it took; a permit that is dropped, because the client left, keeps what was reserved.
//!
//! [`headers`] makes the headers of all that. Tenants and keys themselves are [`forebay_fabric::access`].

mod cost;
pub mod headers;
mod limiter;
mod line;
mod permit;
mod recent;
mod standing;
mod subscribe;
mod verify;

pub use cost::{Cost, SubmittedJob, Tokens};
pub use forebay_fabric::access::{Scope, Tenant, TenantLimits};
pub use limiter::{Limiter, Need, Outcome};
pub use permit::Permit;
pub use standing::{Reason, Refusal, Share, Standing};
pub use verify::{Caller, Denied, Verifier};
