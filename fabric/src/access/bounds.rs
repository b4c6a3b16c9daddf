//! Bounds of the records of tenants and keys.

/// The longest name of a tenant or a key, in characters.
pub const NAME_CHARS_MAX: usize = 128;
/// The highest limit. Redis' scripts count in doubles, which are exact far beyond a thousand times this.
pub const LIMIT_MAX: u64 = 1_000_000_000_000;
/// The highest budget, in units of 1e-9: nine million currency units a month. Redis' scripts count in doubles, which are
/// exact up to 2^53.
pub const BUDGET_MAX: u64 = 9_000_000_000_000_000;
/// The most tenants, and the most keys. At some hundred bytes each, Redis needs a few tens of megabytes for them.
pub(super) const RECORDS_MAX: usize = 100_000;
