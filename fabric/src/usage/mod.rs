//! Usage: from the entries of the stream to sums by the hour, and from these to reports.
//!
//! A job's entry is written with its terminal record ([`Store::write_results`]). Any program may sum up
//! ([`Store::roll_usage`], [`keep_rolling`]): the entries of each tenant are added to its sums in the step that moves
//! its position in the stream, and only from the position that was read. So each entry counts once, however many sum
//! up, and whenever one of them is killed. Entries are removed once every tenant's position is past them.
//!
//! All of a tenant's keys share its hash tag, with its limits too.
//!
//! [`Store::write_results`]: crate::Store::write_results
//! [`Store::roll_usage`]: crate::Store::roll_usage

mod calendar;
mod read;
mod report;
mod roll;
mod roller;
mod sums;

pub use calendar::{Day, Hour, TimeError, parse_time};
pub use read::{Asked, DAYS_READ_MAX, UsageError, Used};
pub use report::{By, Report, Row, UnknownBy, WrittenRow};
pub use roll::Round;
pub use roller::keep_rolling;
pub use sums::{Line, OTHER, Sums};
