//! The operations' checks.

mod refusals;
