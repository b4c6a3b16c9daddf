//! Terminal records: written once, by the first writer.

use forebay_schemas::{JobId, UsageEntry, tokens::TOKENS_AFTER_RESULT_TTL_S};
use metrics::counter;
use redis::{ExistenceCheck, SetExpiry, SetOptions, pipe};

use super::{
    connection::{PROBE_KEY, PROBE_TTL_S, Store},
    error::StoreError,
    metering::{STREAM_FULL, WRITE},
    scripts,
};

/// A terminal record to be written.
#[derive(Debug, Clone)]
pub struct ResultRecord {
    /// The job's id.
    pub id: JobId,
    /// The record, encoded.
    pub bytes: Vec<u8>,
    /// How long it is kept, in seconds.
    pub ttl_s: u64,
    /// The channel on which the id is published once it is written.
    pub notify: Option<String>,
    /// Whether the job may have a token stream: it goes soon after the record, whichever attempt wrote to it last.
    pub ends_tokens: bool,
    /// The usage of the job, which is written with the record if that is the job's first. Without it, or where metering
    /// is off, the record is written alone.
    pub usage: Option<UsageEntry>,
}

/// The outcome of writing a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is the job's record.
    First,
    /// The job had one already, which stands.
    AlreadyThere,
}

/// The most bytes of records in one pipeline: a large batch must not hold a connection past its
/// time-out on a slow network.
const PIPELINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most keys read at once.
pub(super) const KEYS_MAX: usize = 512;

impl Store {
    /// Writes each record unless its job has one, then publishes its notice. The write is idempotent: an error leaves
    /// it unknown which records were written, and writing them again is safe.
    pub async fn write_results(
        &self,
        records: &[ResultRecord],
    ) -> Result<Vec<Written>, StoreError> {
        let mut written = Vec::with_capacity(records.len());
        let mut rest = records;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest));
            written.extend(self.write_pipeline(now).await?);
            rest = later;
        }
        Ok(written)
    }

    async fn write_pipeline(&self, records: &[ResultRecord]) -> Result<Vec<Written>, StoreError> {
        let mut commands = pipe();
        for record in records {
            if let Some(usage) = record.usage.as_ref().filter(|_| self.metering.is_on()) {
                let ResultRecord { id, bytes, ttl_s, .. } = record;
                commands.add_command(self.metering.write(id, bytes, *ttl_s, usage));
                continue;
            }
            // `NX` makes the write idempotent: the first record of a job stands.
            let options = SetOptions::default()
                .conditional_set(ExistenceCheck::NX)
                .with_expiration(SetExpiry::EX(record.ttl_s));
            commands.set_options(record.id.result_key(), &record.bytes, options);
        }
        let replicas_min = self.config.replicas_min;
        if replicas_min > 0 {
            // `WAIT` promises to cover this connection's own writes, and a record that was there already is another's:
            // a write after it covers it. Redis 7.0 would cover it without.
            commands.cmd("SET").arg(PROBE_KEY).arg(1).arg("EX").arg(PROBE_TTL_S);
            // Well within the connection's own time-out, so that the reply arrives within it.
            commands.cmd("WAIT").arg(replicas_min).arg(self.config.timeout_ms / 2);
        }
        for record in records.iter().filter(|record| record.ends_tokens) {
            commands.expire(record.id.tokens_key(), TOKENS_AFTER_RESULT_TTL_S as i64).ignore();
        }
        // A notice is a hint: one that can't be published (say, because this user may not use the channel)
        // delays a waiter, and costs no result.
        for record in records {
            if let Some(channel) = &record.notify {
                commands.publish(channel, record.id.as_str()).ignore();
            }
        }
        commands.ignore_errors();
        let mut replies: Vec<redis::Value> = self
            .run(async |connection| {
                // The first error stands for all: they have one cause.
                scripts::replies(connection, &commands, &WRITE).await?.into_iter().collect()
            })
            .await?;
        if replicas_min > 0 {
            let replicas: u32 = replies.pop().map_or(Ok(0), redis::from_redis_value).unwrap_or(0);
            replies.truncate(records.len());
            if replicas < replicas_min {
                return Err(StoreError::Replicas { replicas, replicas_min });
            }
        }
        let written = |reply: redis::Value| match reply {
            redis::Value::Nil | redis::Value::Int(0) => Written::AlreadyThere,
            redis::Value::Int(STREAM_FULL) => {
                counter!("forebay_usage_lost_total").increment(1);
                Written::First
            }
            _ => Written::First,
        };
        Ok(replies.into_iter().map(written).collect())
    }

    /// The records of these jobs, in their order; `None` where there is none yet.
    pub async fn read_results(&self, ids: &[JobId]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let mut records = Vec::with_capacity(ids.len());
        for ids in ids.chunks(KEYS_MAX) {
            let keys: Vec<String> = ids.iter().map(JobId::result_key).collect();
            let found: Vec<Option<Vec<u8>>> = self
                .run(async |connection| redis::cmd("MGET").arg(&keys).query_async(connection).await)
                .await?;
            records.extend(found);
        }
        Ok(records)
    }

    /// Asks for a job to be cancelled. The request is forgotten after `ttl_s`.
    pub async fn request_cancel(&self, id: &JobId, ttl_s: u64) -> Result<(), StoreError> {
        let key = id.cancel_key();
        self.run(async |connection| {
            redis::cmd("SET").arg(&key).arg("1").arg("EX").arg(ttl_s).query_async(connection).await
        })
        .await
    }

    /// For each of these jobs, whether its cancellation was asked for.
    pub async fn cancelled(&self, ids: &[JobId]) -> Result<Vec<bool>, StoreError> {
        self.exist(ids.iter().map(JobId::cancel_key).collect()).await
    }

    /// For each of these jobs, whether its record is there.
    pub async fn present(&self, ids: &[JobId]) -> Result<Vec<bool>, StoreError> {
        self.exist(ids.iter().map(JobId::result_key).collect()).await
    }

    async fn exist(&self, keys: Vec<String>) -> Result<Vec<bool>, StoreError> {
        let mut exist = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_MAX) {
            // Mostly none of them is there, or all are: one count for all keys costs less than an answer for each.
            let count: usize = self
                .run(async |connection| {
                    redis::cmd("EXISTS").arg(keys).query_async(connection).await
                })
                .await?;
            if count == 0 || count == keys.len() {
                exist.extend(std::iter::repeat_n(count > 0, keys.len()));
                continue;
            }
            let mut commands = pipe();
            for key in keys {
                commands.exists(key);
            }
            let found: Vec<bool> =
                self.run(async |connection| commands.query_async(connection).await).await?;
            exist.extend(found);
        }
        Ok(exist)
    }
}

/// How many of the first records go into one pipeline: at least one.
fn fitting(records: &[ResultRecord]) -> usize {
    let mut bytes = 0;
    let fits = |record: &&ResultRecord| {
        bytes += record.bytes.len();
        bytes <= PIPELINE_BYTES_MAX
    };
    records.iter().take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: usize) -> ResultRecord {
        ResultRecord {
            id: JobId::random(),
            bytes: vec![0; bytes],
            ttl_s: 1,
            notify: None,
            ends_tokens: false,
            usage: None,
        }
    }

    #[test]
    fn a_pipeline_takes_what_fits_and_never_nothing() {
        let half = PIPELINE_BYTES_MAX / 2;
        assert_eq!(fitting(&[record(half), record(half), record(1)]), 2);
        assert_eq!(fitting(&[record(PIPELINE_BYTES_MAX + 1), record(1)]), 1);
    }
}
