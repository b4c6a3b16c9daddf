//! `[usage]`: metering, what each job took and what that costs.

use serde::{Deserialize, Serialize};

/// Metering.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsageConfig {
    /// Whether jobs are metered.
    pub enabled: bool,
    /// The most entries that wait to be summed up. Jobs that end beyond that are not metered, and counted as such.
    pub unread_max: u64,
    /// How long the sums of a day are kept, in days.
    pub keep_days: u64,
}

impl Default for UsageConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            // At about 160 bytes each, 320 MB: at a thousand jobs a second half an hour without anybody who sums up.
            unread_max: 2_000_000,
            // A year, and a month to look back at its end.
            keep_days: 400,
        }
    }
}
