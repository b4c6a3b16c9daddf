//! Records in a hash of Redis: read by id, listed, and written only if they have not changed meanwhile.

use std::{collections::BTreeMap, sync::LazyLock};

use forebay_schemas::names::ACCESS_CHANNEL;
use redis::Script;
use serde::{Serialize, de::DeserializeOwned};

use super::{bounds::RECORDS_MAX, error::AccessError};
use crate::{Store, store::StoreError};

/// Entries that Redis is asked for at a time.
const SCANNED_AT_ONCE: usize = 512;
/// Attempts at a change that others keep overtaking.
const ATTEMPTS_MAX: u32 = 8;

/// Writes a field if it still has the value that was read (none is empty), removes it where the new one is empty, and
/// publishes its id: all in one step, so that no reader keeps what has changed. Of a marked hash a removal leaves the
/// mark.
static SWAP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local held = redis.call('HGET', KEYS[1], ARGV[1]) or ''
         if held ~= ARGV[2] then return 'changed' end
         if held == '' and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then return 'full' end
         if ARGV[3] == '' then
           redis.call('HDEL', KEYS[1], ARGV[1])
           if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], ARGV[6], 'there were records') end
         else
           redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
         end
         redis.call('PUBLISH', ARGV[5], ARGV[1])
         return 'written'",
    )
});

/// The field that stays in a hash whose records are never to be forgotten wholly; no id is like it.
const MARK: &str = "-";

/// Removes the mark from a hash that has nothing else.
static UNMARK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local marked = redis.call('HGET', KEYS[1], ARGV[1])
         local records = redis.call('HLEN', KEYS[1]) - (marked and 1 or 0)
         if marked and records == 0 then
           redis.call('HDEL', KEYS[1], ARGV[1])
           redis.call('PUBLISH', ARGV[2], ARGV[1])
         end
         return records",
    )
});

/// One hash of records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Records<'a> {
    pub(super) store: &'a Store,
    pub(super) hash: &'static str,
    /// Whether a removal leaves a mark, by which the hash shows that it had records.
    pub(super) is_marked: bool,
}

impl Records<'_> {
    /// The record of an id.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        id: &str,
    ) -> Result<Option<T>, AccessError> {
        self.raw(id).await?.map(|json| self.read(id, &json)).transpose()
    }

    /// All records by id. One that can't be read is an error that names it.
    pub(super) async fn all<T: DeserializeOwned>(&self) -> Result<Vec<T>, AccessError> {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        let mut cursor = 0_u64;
        loop {
            let (next, page): (u64, Vec<(String, String)>) = self
                .store
                .run(async |connection| {
                    let mut scan = redis::cmd("HSCAN");
                    scan.arg(self.hash).arg(cursor).arg("COUNT").arg(SCANNED_AT_ONCE);
                    scan.query_async(connection).await
                })
                .await?;
            // A scan may return an entry twice.
            found.extend(page);
            if next == 0 || found.len() > RECORDS_MAX {
                break;
            }
            cursor = next;
        }
        found.remove(MARK);
        found.iter().map(|(id, json)| self.read(id, json)).collect()
    }

    /// How many there are, the mark included.
    pub(super) async fn count(&self) -> Result<usize, AccessError> {
        let count = async |connection: &mut _| {
            redis::cmd("HLEN").arg(self.hash).query_async(connection).await
        };
        Ok(self.store.run(count).await?)
    }

    /// Writes a record that must not be there yet; whether it was written.
    pub(super) async fn create<T: Serialize>(
        &self,
        id: &str,
        record: &T,
    ) -> Result<bool, AccessError> {
        let json = serde_json::to_string(record).map_err(StoreError::from)?;
        self.swap(id, "", &json).await
    }

    /// Changes a record, or returns `None` if there is none. `change` may be called several times.
    pub(super) async fn change<T: DeserializeOwned + Serialize>(
        &self,
        id: &str,
        change: impl Fn(&mut T),
    ) -> Result<Option<T>, AccessError> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(held) = self.raw(id).await? else { return Ok(None) };
            let mut record = self.read(id, &held)?;
            change(&mut record);
            let json = serde_json::to_string(&record).map_err(StoreError::from)?;
            if self.swap(id, &held, &json).await? {
                return Ok(Some(record));
            }
        }
        Err(AccessError::Contended(id.to_owned()))
    }

    /// Removes a record, whatever it is; whether there was one.
    pub(super) async fn remove(&self, id: &str) -> Result<bool, AccessError> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(held) = self.raw(id).await? else { return Ok(false) };
            if self.swap(id, &held, "").await? {
                return Ok(true);
            }
        }
        Err(AccessError::Contended(id.to_owned()))
    }

    /// Removes the mark, unless there are records; returns how many there are.
    pub(super) async fn unmark(&self) -> Result<usize, AccessError> {
        let unmark = async |connection: &mut redis::aio::MultiplexedConnection| {
            let mut unmark = UNMARK.key(self.hash);
            unmark.arg(MARK).arg(ACCESS_CHANNEL).invoke_async(connection).await
        };
        Ok(self.store.run(unmark).await?)
    }

    async fn raw(&self, id: &str) -> Result<Option<String>, StoreError> {
        let get = async |connection: &mut redis::aio::MultiplexedConnection| {
            redis::cmd("HGET").arg(self.hash).arg(id).query_async(connection).await
        };
        self.store.run(get).await
    }

    async fn swap(&self, id: &str, held: &str, new: &str) -> Result<bool, AccessError> {
        let answer: String = self
            .store
            .run(async |connection| {
                let mut swap = SWAP.key(self.hash);
                swap.arg(id).arg(held).arg(new).arg(RECORDS_MAX).arg(ACCESS_CHANNEL);
                swap.arg(if self.is_marked { MARK } else { "" });
                swap.invoke_async(connection).await
            })
            .await?;
        match answer.as_str() {
            "full" => Err(AccessError::Full { hash: self.hash, max: RECORDS_MAX }),
            answer => Ok(answer == "written"),
        }
    }

    fn read<T: DeserializeOwned>(&self, id: &str, json: &str) -> Result<T, AccessError> {
        serde_json::from_str(json).map_err(|error| AccessError::Unreadable {
            hash: self.hash,
            field: id.to_owned(),
            reason: error.to_string(),
        })
    }
}
