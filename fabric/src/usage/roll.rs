//! One round of summing up: a part of the stream, tenant by tenant.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use forebay_schemas::{
    UsageEntry,
    names::{USAGE_STREAM, USAGE_TENANTS_KEY, limits_key, usage_day_key, usage_key},
};
use metrics::counter;
use redis::{Script, Value, pipe};

use super::{
    calendar::{Day, Hour},
    sums::{Line, OTHER, Sums},
};
use crate::{
    Store,
    store::{StoreError, scripts},
};

/// The most entries of one round. Its scripts take Redis some milliseconds at most.
const ENTRIES_MAX: usize = 1_000;
/// The most tenants that have sums of their own; publishers may name any number.
const TENANTS_MAX: usize = 100_000;
/// The most lines of a tenant's day. A line has about 150 bytes.
const LINES_MAX: usize = 10_000;

static COMMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("commit.lua")));

/// The outcome of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Entries that were read and are summed up by now, by this program or another.
    pub entries: usize,
    /// Entries that are left in the stream.
    pub unread: u64,
    /// Whether another program was first with some of them: then they are still in the stream.
    pub raced: bool,
}

impl Round {
    /// Whether there may be more to sum up at once.
    pub fn is_full(&self) -> bool {
        self.entries == ENTRIES_MAX
    }
}

/// The number of an entry: a time in milliseconds by Redis' clock, and a count within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position(u64, u64);

impl Position {
    /// Before the first entry.
    const START: Self = Self(0, 0);

    fn parse(text: &str) -> Option<Self> {
        let (ms, count) = text.split_once('-')?;
        Some(Self(ms.parse().ok()?, count.parse().ok()?))
    }
}

/// An entry and its number.
type Numbered = (Position, UsageEntry);

/// How many lines a day has, and for each line that is asked for, its sums.
type Present = (usize, Vec<Option<String>>);

/// The addition to a tenant's sums.
struct Part {
    tenant: String,
    /// The tenant's position as it was read; empty before its first entry.
    from: String,
    /// The jobs whose usage it is.
    jobs: Vec<String>,
    /// The lines' own sums, by day.
    days: BTreeMap<Day, BTreeMap<Line, Sums>>,
}

impl Store {
    /// Sums up the oldest entries of the usage stream, and removes them. The sums of a day are kept for `keep_days`.
    /// Any number of programs may do that at once, and be killed while they do.
    pub async fn roll_usage(&self, keep_days: u64) -> Result<Round, StoreError> {
        let read: Vec<(String, HashMap<String, String>)> = self
            .run(async |connection| {
                let mut range = redis::cmd("XRANGE");
                range.arg(USAGE_STREAM).arg("-").arg("+").arg("COUNT").arg(ENTRIES_MAX);
                range.query_async(connection).await
            })
            .await?;
        let Some((last, _)) = read.last() else {
            return Ok(Round { entries: 0, unread: 0, raced: false });
        };
        let entries = read.len();
        let last = last.clone();
        let by_tenant = self.under_known_tenants(by_tenant(read)).await?;
        let parts = self.parts(by_tenant).await?;
        let raced = !self.commit(parts, &last, keep_days).await?;
        // Not removed while some tenant's position may be before them.
        let unread = self.trim((!raced).then_some(&last)).await?;
        Ok(Round { entries, unread, raced })
    }

    /// Puts the entries of tenants beyond the bound under one name, and remembers the others.
    async fn under_known_tenants(
        &self,
        by_tenant: BTreeMap<String, Vec<Numbered>>,
    ) -> Result<BTreeMap<String, Vec<Numbered>>, StoreError> {
        let named: Vec<&String> = by_tenant.keys().collect();
        if named.is_empty() {
            return Ok(by_tenant);
        }
        let (known, count): (Vec<bool>, usize) = self
            .run(async |connection| {
                let mut asked = pipe();
                asked.cmd("SMISMEMBER").arg(USAGE_TENANTS_KEY).arg(&named);
                asked.cmd("SCARD").arg(USAGE_TENANTS_KEY);
                asked.query_async(connection).await
            })
            .await?;
        let mut room = TENANTS_MAX.saturating_sub(count);
        let mut kept: BTreeMap<String, Vec<Numbered>> = BTreeMap::new();
        let mut fresh = Vec::new();
        for ((tenant, entries), is_known) in by_tenant.into_iter().zip(known) {
            if is_known || room > 0 {
                if !is_known {
                    room -= 1;
                    fresh.push(tenant.clone());
                }
                kept.entry(tenant).or_default().extend(entries);
            } else {
                fresh.push(OTHER.to_owned());
                kept.entry(OTHER.to_owned()).or_default().extend(entries);
            }
        }
        if !fresh.is_empty() {
            // Before their sums: a tenant without sums does no harm, and sums without their tenant would not be found.
            let add = async |connection: &mut _| {
                redis::cmd("SADD").arg(USAGE_TENANTS_KEY).arg(&fresh).query_async(connection).await
            };
            let _: usize = self.run(add).await?;
        }
        Ok(kept)
    }

    /// The additions of each tenant's entries to its sums, with those already there. Entries that another round has
    /// added are left out.
    async fn parts(
        &self,
        by_tenant: BTreeMap<String, Vec<Numbered>>,
    ) -> Result<Vec<Part>, StoreError> {
        let mut asked = pipe();
        for tenant in by_tenant.keys() {
            asked.hget(usage_key(tenant), "position");
        }
        let positions: Vec<Option<String>> = if by_tenant.is_empty() {
            Vec::new()
        } else {
            self.run(async |connection| asked.query_async(connection).await).await?
        };
        let mut parts = Vec::new();
        for ((tenant, entries), from) in by_tenant.into_iter().zip(positions) {
            let from = from.unwrap_or_default();
            let after = Position::parse(&from).unwrap_or(Position::START);
            let entries: Vec<Numbered> =
                entries.into_iter().filter(|(number, _)| *number > after).collect();
            if !entries.is_empty() {
                let jobs = entries.iter().map(|(_, entry)| entry.id.to_string()).collect();
                parts.push(Part { tenant, from, jobs, days: summed(entries) });
            }
        }
        Ok(parts)
    }

    /// Adds all parts; whether no other program was first with any of them.
    async fn commit(
        &self,
        parts: Vec<Part>,
        last: &str,
        keep_days: u64,
    ) -> Result<bool, StoreError> {
        if parts.is_empty() {
            return Ok(true);
        }
        // Read after the positions: a program that has changed them since has moved the position too.
        let parts = self.with_present(parts).await?;
        let mut commands = pipe();
        for Added { tenant, from, jobs, costs, days } in &parts {
            let mut call = redis::cmd("EVALSHA");
            call.arg(COMMIT.get_hash()).arg(3 + days.len()).arg(usage_key(tenant));
            call.arg(limits_key(tenant, "money")).arg(limits_key(tenant, "amounts"));
            for day in days.keys() {
                call.arg(usage_day_key(tenant, &day.to_string()));
            }
            call.arg(from).arg(last).arg(costs.len());
            for (month, cost) in costs {
                call.arg(month).arg(i64::try_from(*cost).unwrap_or(i64::MAX));
            }
            call.arg(jobs.len()).arg(jobs);
            for (day, lines) in days {
                call.arg(day.starts_at_s() + (1 + keep_days) * 86_400).arg(lines.len());
                for (line, sums) in lines {
                    call.arg(line.field()).arg(sums.written());
                }
            }
            commands.add_command(call);
        }
        commands.ignore_errors();
        let committed: Vec<i64> = self
            .run(async |connection| {
                let replies = scripts::replies(connection, &commands, &COMMIT).await?;
                replies.into_iter().map(|reply| Ok(redis::from_redis_value(reply?)?)).collect()
            })
            .await?;
        Ok(committed.iter().all(|committed| *committed == 1))
    }

    /// The parts as they are to be written: with the sums that the lines have already.
    async fn with_present(&self, parts: Vec<Part>) -> Result<Vec<Added>, StoreError> {
        let mut asked = pipe();
        for Part { tenant, days, .. } in &parts {
            for (day, lines) in days {
                let key = usage_day_key(tenant, &day.to_string());
                asked.cmd("HLEN").arg(&key);
                let mut get = redis::cmd("HMGET");
                get.arg(&key);
                for line in lines.keys() {
                    get.arg(line.field()).arg(folded(line).field());
                }
                asked.add_command(get);
            }
        }
        let present: Vec<Present> = self
            .run(async |connection| {
                let replies: Vec<Value> = asked.query_async(connection).await?;
                let pairs = replies.chunks_exact(2);
                let read = |pair: &[Value]| -> redis::RedisResult<Present> {
                    let length = pair[0].clone();
                    let sums = pair[1].clone();
                    Ok((redis::from_redis_value(length)?, redis::from_redis_value(sums)?))
                };
                pairs.map(read).collect()
            })
            .await?;
        let mut present = present.into_iter();
        let mut all = Vec::with_capacity(parts.len());
        for Part { tenant, from, jobs, days } in parts {
            let (costs, written) = Default::default();
            let mut added = Added { tenant, from, jobs, costs, days: written };
            for (day, lines) in days {
                // There are as many answers as questions.
                let (length, sums) = present.next().unwrap_or_default();
                added.add(day, lines, length, &sums);
            }
            all.push(added);
        }
        Ok(all)
    }

    /// Removes the entries up to `last`, and returns how many are left.
    async fn trim(&self, last: Option<&String>) -> Result<u64, StoreError> {
        let next = last.and_then(|last| Position::parse(last)).map(|Position(ms, count)| {
            // Numbers of entries have 64 bits each, and no stream comes to their end.
            format!("{ms}-{}", count.saturating_add(1))
        });
        self.run(async |connection| {
            let mut commands = pipe();
            if let Some(next) = next {
                commands.cmd("XTRIM").arg(USAGE_STREAM).arg("MINID").arg(next).ignore();
            }
            commands.cmd("XLEN").arg(USAGE_STREAM);
            let (left,): (u64,) = commands.query_async(connection).await?;
            Ok(left)
        })
        .await
    }
}

/// A part with the sums that are there already, as it is to be written.
struct Added {
    tenant: String,
    from: String,
    jobs: Vec<String>,
    /// The cost of each month, without what it had.
    costs: BTreeMap<String, u64>,
    days: BTreeMap<Day, BTreeMap<Line, Sums>>,
}

impl Added {
    /// Adds a day's lines. `present` has two for each of these: its own sums, and those of the line that stands for it
    /// when its day has no room for more than its `length` lines.
    fn add(
        &mut self,
        day: Day,
        lines: BTreeMap<Line, Sums>,
        length: usize,
        present: &[Option<String>],
    ) {
        let mut room = LINES_MAX.saturating_sub(length);
        let written = self.days.entry(day).or_default();
        for ((line, sums), present) in lines.into_iter().zip(present.chunks_exact(2)) {
            let cost = self.costs.entry(day.month()).or_default();
            *cost = cost.saturating_add(sums.cost);
            let read = |text: &Option<String>| text.as_deref().and_then(Sums::read);
            let (line, before) = match (&present[0], room) {
                (Some(_), _) => (line, read(&present[0])),
                (None, 0) => (folded(&line), read(&present[1])),
                (None, _) => {
                    room -= 1;
                    (line, None)
                }
            };
            written.entry(line).or_insert_with(|| before.unwrap_or_default()).add(&sums);
        }
    }
}

/// The line that stands for one that is beyond the bound.
fn folded(line: &Line) -> Line {
    Line { api_key: OTHER.to_owned(), model: OTHER.to_owned(), ..line.clone() }
}

/// The entries by their tenants. One that can't be read is left out: it must not hold up the others.
fn by_tenant(read: Vec<(String, HashMap<String, String>)>) -> BTreeMap<String, Vec<Numbered>> {
    let mut by_tenant: BTreeMap<String, Vec<Numbered>> = BTreeMap::new();
    for (number, fields) in read {
        let Some(number) = Position::parse(&number) else { continue };
        match UsageEntry::read(&fields) {
            Ok(entry) => {
                by_tenant.entry(entry.tenant.clone()).or_default().push((number, entry));
            }
            Err(error) => {
                counter!("forebay_usage_unreadable_total").increment(1);
                tracing::warn!(%error, "an entry of the usage stream is left out");
            }
        }
    }
    by_tenant
}

/// The sums of entries by day and line. Their hour is that of their number, by Redis' clock: clocks of workers differ.
fn summed(entries: Vec<Numbered>) -> BTreeMap<Day, BTreeMap<Line, Sums>> {
    let mut days: BTreeMap<Day, BTreeMap<Line, Sums>> = BTreeMap::new();
    for (Position(ms, _), entry) in entries {
        let hour = Hour::of_ms(ms);
        let sums = Sums::of(&entry);
        let line = Line {
            hour_of_day: hour.of_day(),
            api_key: entry.api_key,
            model: entry.model,
            lane: entry.lane.to_string(),
            price: entry.price,
        };
        days.entry(hour.day()).or_default().entry(line).or_default().add(&sums);
    }
    days
}

#[cfg(test)]
mod tests;
