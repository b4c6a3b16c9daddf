//! Token streams: what running generations have written so far, which readers follow and another worker goes on from.
//!
//! A stream has one owner, the attempt at its job that claimed it last, and only the owner appends. Entries follow each
//! other without gaps: the id of each is the number of tokens up to its end, so that an entry that is written again,
//! after a reply that was lost, is found to be there.

use std::sync::LazyLock;

use forebay_schemas::{
    JobId, TokenChunk,
    tokens::{TOKEN_CHUNKS_MAX, TOKENS_CHANNEL_SUFFIX, TOKENS_TTL_S},
};
use redis::{Script, pipe};

use super::{Notices, connection::Store, error::StoreError, scripts};

/// Appends one entry, if its writer owns the stream and it begins at the stream's end. Answers what the stream's end is
/// afterwards, or -1 for a writer that does not own it.
///
/// A notice is a hint, so its failure is none of the entry's.
static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
         local is_at = 0
         if last then
             is_at = tonumber(string.match(last[1], '^%d+'))
             if last[2][2] ~= ARGV[1] then return -1 end
         end
         local ends = tonumber(ARGV[3])
         if tonumber(ARGV[2]) ~= is_at or ends <= is_at then return is_at end
         redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], ARGV[3] .. '-0', 'w', ARGV[1], 'c', ARGV[5])
         redis.call('EXPIRE', KEYS[1], ARGV[6])
         if ARGV[7] ~= '' then redis.pcall('PUBLISH', ARGV[7], ARGV[8]) end
         return ends",
    )
});

/// Makes its caller the owner of a stream, by an entry without tokens, and answers the entries that it has.
static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local all = redis.call('XRANGE', KEYS[1], '-', '+')
         local is_at, number = '0', '0'
         if #all > 0 then is_at, number = string.match(all[#all][1], '^(%d+)-(%d+)') end
         local id = is_at .. '-' .. string.format('%d', tonumber(number) + 1)
         redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], id, 'w', ARGV[1], 'c', '')
         redis.call('EXPIRE', KEYS[1], ARGV[3])
         local chunks = {}
         for n, entry in ipairs(all) do chunks[n] = entry[2][4] end
         return chunks",
    )
});

/// An entry that is to be appended to a job's token stream.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenAppend {
    /// The job.
    pub id: JobId,
    /// The attempt that writes: unique to a delivery of the job to a worker.
    pub owner: String,
    /// The entry; it has at least one token.
    pub chunk: TokenChunk,
    /// How long the stream is kept from now on, in seconds.
    pub ttl_s: u64,
    /// The job's `notify` channel.
    pub notify: Option<String>,
}

/// The outcome of appending an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The stream has it.
    Written,
    /// The stream ends elsewhere than where the entry begins: part of it was lost. Entries from there on are taken.
    Ends {
        /// How many tokens it has.
        at: u32,
    },
    /// Another attempt has claimed the stream.
    Fenced,
}

/// An entry as Redis returns it: its id, and its fields with their names.
type Entry = (String, Vec<(String, Vec<u8>)>);

/// The most bytes of entries in one pipeline, as of records.
const PIPELINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most entries in one pipeline.
const PIPELINE_MAX: usize = 512;

/// Bytes of an entry, about.
fn bytes(append: &TokenAppend) -> usize {
    const LOGPROB_BYTES: usize = 64;
    let TokenChunk { ids, text, logprobs, .. } = &append.chunk;
    let likely = |logprobs: &Vec<forebay_schemas::TokenLogprob>| {
        logprobs.iter().map(|logprob| 1 + logprob.top.len()).sum::<usize>()
    };
    5 * ids.len() + text.len() + LOGPROB_BYTES * logprobs.as_ref().map_or(0, likely)
}

/// How many of the first entries go into one pipeline: at least one.
fn fitting(appends: &[TokenAppend]) -> usize {
    let mut all = 0;
    let fits = |append: &&TokenAppend| {
        all += bytes(append);
        all <= PIPELINE_BYTES_MAX
    };
    appends.iter().take(PIPELINE_MAX).take_while(fits).count().max(1)
}

impl Store {
    /// Appends entries to token streams, of one stream in their order. Idempotent: an error leaves it unknown which
    /// were written, and writing them again is safe.
    pub async fn append_tokens(
        &self,
        appends: &[TokenAppend],
    ) -> Result<Vec<Appended>, StoreError> {
        let mut appended = Vec::with_capacity(appends.len());
        let mut rest = appends;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest));
            appended.extend(self.append_pipeline(now).await?);
            rest = later;
        }
        Ok(appended)
    }

    async fn append_pipeline(&self, appends: &[TokenAppend]) -> Result<Vec<Appended>, StoreError> {
        let mut commands = pipe();
        for TokenAppend { id, owner, chunk, ttl_s, notify } in appends {
            let channel =
                notify.as_ref().map(|channel| format!("{channel}{TOKENS_CHANNEL_SUFFIX}"));
            let bytes = chunk.encode().map_err(|error| StoreError::Tokens(error.to_string()))?;
            let call = commands.cmd("EVALSHA").arg(APPEND.get_hash()).arg(1).arg(id.tokens_key());
            call.arg(owner).arg(chunk.at).arg(chunk.next()).arg(TOKEN_CHUNKS_MAX).arg(bytes);
            call.arg(ttl_s).arg(channel.unwrap_or_default()).arg(id.as_str());
        }
        commands.ignore_errors();
        let replies: Vec<i64> = self
            .run(async |connection| {
                let replies = scripts::replies(connection, &commands, &APPEND).await?;
                let numbers = replies.into_iter().map(|reply| Ok(redis::from_redis_value(reply?)?));
                numbers.collect::<Result<_, redis::RedisError>>()
            })
            .await?;
        let appended = |(append, ends): (&TokenAppend, i64)| match u32::try_from(ends) {
            Ok(at) if at >= append.chunk.next() => Appended::Written,
            Ok(at) => Appended::Ends { at },
            Err(_) => Appended::Fenced,
        };
        Ok(appends.iter().zip(replies).map(appended).collect())
    }

    /// Makes `owner` the only one that appends to a job's token stream, and returns the entries that it has: all that
    /// follow each other from its beginning.
    pub async fn claim_tokens(
        &self,
        id: &JobId,
        owner: &str,
    ) -> Result<Vec<TokenChunk>, StoreError> {
        let key = id.tokens_key();
        let mut call = CLAIM.key(&key);
        call.arg(owner).arg(TOKEN_CHUNKS_MAX).arg(TOKENS_TTL_S);
        let entries: Vec<Vec<u8>> =
            self.run(async |connection| call.invoke_async(connection).await).await?;
        following(0, entries)
    }

    /// The entries of a job's token stream that have tokens from number `from` on, at most `max` of them. The first one
    /// may begin before.
    pub async fn read_tokens(
        &self,
        id: &JobId,
        from: u32,
        max: usize,
    ) -> Result<Vec<TokenChunk>, StoreError> {
        let mut read = redis::cmd("XRANGE");
        // An entry's id is the number of tokens up to its end. Entries without tokens are passed over, which there is
        // one of for each attempt: they make a reader's page a little shorter.
        read.arg(id.tokens_key()).arg(format!("{}-0", u64::from(from) + 1)).arg("+");
        read.arg("COUNT").arg(max);
        let entries: Vec<Entry> =
            self.run(async |connection| read.query_async(connection).await).await?;
        let chunks = entries.into_iter().filter_map(|(_, fields)| {
            fields.into_iter().find(|(name, _)| name == "c").map(|(_, chunk)| chunk)
        });
        decoded(chunks)
    }

    /// Subscribes to the notices of token streams of the jobs with this `notify` channel: the id of a job whenever its
    /// stream has a new entry.
    pub async fn token_notices(&self, notify: &str) -> Result<Notices, StoreError> {
        self.notices(&format!("{notify}{TOKENS_CHANNEL_SUFFIX}")).await
    }
}

/// The entries, without those that have no tokens.
fn decoded(entries: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<TokenChunk>, StoreError> {
    let entries = entries.into_iter().filter(|entry| !entry.is_empty());
    let chunks = entries.map(|entry| TokenChunk::decode(&entry));
    chunks.collect::<Result<_, _>>().map_err(|error| StoreError::Tokens(error.to_string()))
}

/// The entries as far as they follow each other from `at` on.
fn following(mut at: u32, entries: Vec<Vec<u8>>) -> Result<Vec<TokenChunk>, StoreError> {
    let mut chunks = decoded(entries)?;
    let follows = |chunk: &TokenChunk| {
        let follows = chunk.at == at;
        at = chunk.next();
        follows
    };
    let end = chunks.iter().map(follows).take_while(|follows| *follows).count();
    chunks.truncate(end);
    Ok(chunks)
}

#[cfg(test)]
mod tests;
