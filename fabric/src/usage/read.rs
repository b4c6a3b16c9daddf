//! Reading sums: those of one tenant, or of all.

use std::collections::HashMap;

use forebay_schemas::names::{USAGE_TENANTS_KEY, usage_day_key};
use redis::pipe;

use super::{
    calendar::{Day, Hour},
    sums::{Line, Sums},
};
use crate::{Store, store::StoreError};

/// The most days of tenants that one question reads: a year of a hundred tenants.
pub const DAYS_READ_MAX: usize = 40_000;
/// Days that are read in one round trip.
const READ_AT_ONCE: usize = 16;

/// The usage that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The first hour.
    pub from: Hour,
    /// The hour after the last.
    pub until: Hour,
    /// The tenant; all of them unless set.
    pub tenant: Option<String>,
}

/// The usage of one hour by jobs that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Who used it.
    pub tenant: String,
    /// When.
    pub hour: Hour,
    /// By which key, model, lane and price.
    pub line: Line,
    /// How much.
    pub sums: Sums,
}

/// Usage that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// It would take too long.
    #[error(
        "{days} days of {tenants} tenants are more than {DAYS_READ_MAX} at once: ask for fewer days, or for one tenant"
    )]
    TooMuch {
        /// The days that were asked for.
        days: usize,
        /// The tenants that have usage.
        tenants: usize,
    },
    /// Redis can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Passes all usage that is asked for to `each`, in no particular order.
    pub async fn usage(&self, asked: &Asked, mut each: impl FnMut(Used)) -> Result<(), UsageError> {
        if asked.until <= asked.from {
            return Ok(());
        }
        let days = asked.from.day().to(asked.until.day());
        let tenants = match &asked.tenant {
            Some(tenant) => vec![tenant.clone()],
            None => self.tenants_with_usage().await?,
        };
        if days.len().saturating_mul(tenants.len()) > DAYS_READ_MAX {
            return Err(UsageError::TooMuch { days: days.len(), tenants: tenants.len() });
        }
        let all: Vec<(&String, Day)> =
            tenants.iter().flat_map(|tenant| days.clone().map(move |day| (tenant, day))).collect();
        for some in all.chunks(READ_AT_ONCE) {
            let mut commands = pipe();
            for (tenant, day) in some {
                commands.hgetall(usage_day_key(tenant, &day.to_string()));
            }
            let found: Vec<HashMap<String, String>> =
                self.run(async |connection| commands.query_async(connection).await).await?;
            for ((tenant, day), lines) in some.iter().zip(found) {
                for (field, sums) in lines {
                    let (Some(line), Some(sums)) = (Line::read(&field), Sums::read(&sums)) else {
                        tracing::warn!(%tenant, %day, field, "sums of usage can't be read");
                        continue;
                    };
                    let hour = Hour::on(*day, line.hour_of_day);
                    if (asked.from..asked.until).contains(&hour) {
                        each(Used { tenant: (*tenant).clone(), hour, line, sums });
                    }
                }
            }
        }
        Ok(())
    }

    /// The tenants that have usage, in no particular order.
    async fn tenants_with_usage(&self) -> Result<Vec<String>, StoreError> {
        let members = async |connection: &mut _| {
            redis::cmd("SMEMBERS").arg(USAGE_TENANTS_KEY).query_async(connection).await
        };
        self.run(members).await
    }
}
