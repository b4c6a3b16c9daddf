//! A record of the jobs that were sent and of their results over time, and the promises that it breaks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use redis::aio::MultiplexedConnection;

use crate::generator::{Chunk, Generated};
use crate::record::{Record, result_key};

/// How many keys are read at once.
const KEYS_AT_ONCE: usize = 500;

/// How far two vectors of one text may be apart, in any value.
const DIFFERENCE_MAX: f32 = 1e-4;

/// The outcome that a job has to reach: its state, and its error's code where it is not `succeeded`.
pub type Outcome = (&'static str, &'static str);

/// The code of a job that ended as many workers as one may. Whether it does is in the job alone, whatever else
/// becomes of the workers that have it.
const ENDS_WORKERS: &str = "attempts_exhausted";

/// The outcome of a good job.
pub const SUCCEEDED: Outcome = ("succeeded", "");

/// The most tokens of an entry of a token stream: what a worker that dies has not written.
const ENTRY_TOKENS_MAX: usize = 16;

/// A text of so many tokens may have no token stream.
const SHORT_TOKENS_MAX: usize = 64;

/// So many seconds after its result a token stream is gone.
const STREAM_TTL_S_MAX: i64 = 600;

/// The output of a good job.
#[derive(Debug, Clone)]
pub enum Expected {
    /// The vector of this text, which is alike wherever it is computed.
    Vector(String),
    /// This text, by bits.
    Text(Arc<Generated>),
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// A confirmed job has no record.
    Missing(String),
    /// A record was written twice.
    Changed(String),
    /// A record was there and is no more.
    Vanished(String),
    /// A record of a job that was not sent.
    Stranger(String),
    /// A job came to something else than it has to.
    Wrong(String, String),
    /// A job is said to have ended too many workers, and ends none.
    FalseDeath(String, String),
    /// A job's vector is not that of the same text elsewhere.
    Unlike(String),
    /// A job's text is not that of an undisturbed worker.
    OtherText(String),
    /// A token stream has a gap, an overlap, too much in one entry, or other tokens than the result.
    Stream(String, String),
    /// A queue still holds messages when all is done.
    Left(String, u64),
    /// A program ended in a way in which none may.
    Ended(String, i32),
    /// The fleet does not take or do work any more.
    Wedged(String),
}

#[derive(Debug)]
struct Sent {
    outcome: Outcome,
    expected: Option<Expected>,
    confirmed: bool,
}

/// Figures of the texts that were generated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Texts {
    /// Jobs that ended with their text.
    pub jobs: usize,
    /// Tokens of it.
    pub tokens: usize,
    /// Times that a worker took up what another had written.
    pub taken_up: usize,
    /// Tokens that were written by then, and not computed again.
    pub kept: usize,
}

/// Everything that happened in one run.
#[derive(Debug, Default)]
pub struct History {
    sent: BTreeMap<String, Sent>,
    /// By id, a hash of the record as it was first seen.
    seen: HashMap<String, u64>,
    /// By text, its first vector.
    vectors: HashMap<String, Vec<f32>>,
    texts: Texts,
    violations: BTreeSet<Violation>,
}

impl History {
    /// A job is about to be sent; it may have been before. A good job has its output compared.
    pub fn sends(&mut self, id: &str, outcome: Outcome, expected: Option<&Expected>) {
        let sent = || Sent { outcome, expected: expected.cloned(), confirmed: false };
        self.sent.entry(id.to_owned()).or_insert_with(sent);
    }

    /// The broker has confirmed a job. Without this it is unknown whether it has it.
    pub fn confirmed(&mut self, id: &str) {
        self.sent.get_mut(id).expect("a job that was sent").confirmed = true;
    }

    /// Something else broke a promise.
    pub fn breaks(&mut self, violation: Violation) {
        self.violations.insert(violation);
    }

    /// Every job that was sent.
    pub fn ids(&self) -> Vec<String> {
        self.sent.keys().cloned().collect()
    }

    /// How many jobs were sent, how many of those were confirmed, and how many have a record.
    pub fn counts(&self) -> (usize, usize, usize) {
        let confirmed = self.sent.values().filter(|sent| sent.confirmed).count();
        (self.sent.len(), confirmed, self.seen.len())
    }

    /// Figures of the texts that were generated.
    pub fn texts(&self) -> Texts {
        self.texts
    }

    /// The answered jobs whose text has to be in their token streams as well.
    pub fn streamed(&self) -> Vec<String> {
        let is_text = |sent: &Sent| matches!(sent.expected, Some(Expected::Text(_)));
        let answered = self.sent.iter().filter(|(id, _)| self.seen.contains_key(*id));
        answered.filter(|(_, sent)| is_text(sent)).map(|(id, _)| id.clone()).collect()
    }

    /// Takes in the entries of a token stream when all is done, and in how many seconds it goes; a short text need not
    /// have any.
    pub fn observe_stream(&mut self, id: &str, entries: &[Option<Chunk>], ttl_s: i64) {
        let Some(Expected::Text(text)) = self.sent.get(id).and_then(|sent| sent.expected.clone())
        else {
            return self.breaks(Violation::Stranger(id.into()));
        };
        let mut ids = Vec::new();
        let mut whole = String::new();
        for entry in entries {
            let Some(chunk) = entry else {
                self.texts.taken_up += 1;
                self.texts.kept += ids.len();
                continue;
            };
            let has_gap = chunk.at != ids.len() as u64;
            if has_gap || chunk.ids.len() > ENTRY_TOKENS_MAX {
                let found =
                    format!("{} tokens from {} after {}", chunk.ids.len(), chunk.at, ids.len());
                self.breaks(Violation::Stream(id.into(), found));
            }
            ids.extend_from_slice(&chunk.ids);
            whole.push_str(&chunk.text);
        }
        let is_absent = ids.is_empty() && text.ids.len() <= SHORT_TOKENS_MAX;
        if !is_absent && (ids != text.ids || whole != text.text) {
            let found = format!("{} tokens, {} in the result", ids.len(), text.ids.len());
            self.breaks(Violation::Stream(id.into(), found));
        }
        if ttl_s > STREAM_TTL_S_MAX || !entries.is_empty() && ttl_s < 0 {
            self.breaks(Violation::Stream(id.into(), format!("it goes in {ttl_s} s")));
        }
    }

    /// The confirmed jobs of which no record was seen.
    pub fn unanswered(&self) -> Vec<&str> {
        let open = |(id, sent): &(&String, &Sent)| sent.confirmed && !self.seen.contains_key(*id);
        self.sent.iter().filter(open).map(|(id, _)| id.as_str()).collect()
    }

    /// Takes in the records that the store holds for these jobs now.
    pub fn observe(&mut self, ids: &[String], records: &[Option<Vec<u8>>]) {
        for (id, record) in ids.iter().zip(records) {
            let now = record.as_ref().map(|bytes| hash(bytes));
            match (self.seen.get(id).copied(), now) {
                (None, Some(now)) => {
                    self.seen.insert(id.clone(), now);
                    self.judge(id, &Record::decode(record.as_deref().unwrap_or_default()));
                }
                (Some(_), None) => self.breaks(Violation::Vanished(id.clone())),
                (Some(before), Some(now)) if before != now => {
                    self.breaks(Violation::Changed(id.clone()));
                }
                (None, None) | (Some(_), Some(_)) => {}
            }
        }
    }

    /// Every key of a record that the store holds in the end.
    pub fn observe_keys(&mut self, keys: &[String]) {
        let own = |key: &&String| {
            let id = key.strip_prefix(&result_key("")).unwrap_or(key);
            self.sent.contains_key(id)
        };
        let strangers: Vec<String> = keys.iter().filter(|key| !own(key)).cloned().collect();
        self.violations.extend(strangers.into_iter().map(Violation::Stranger));
    }

    /// Every broken promise so far, and every confirmed job without a record.
    pub fn violations(&self) -> Vec<Violation> {
        let missing = self.unanswered().into_iter().map(|id| Violation::Missing(id.into()));
        self.violations.iter().cloned().chain(missing).collect()
    }

    fn judge(&mut self, id: &str, record: &Record) {
        let Some(sent) = self.sent.get(id) else {
            self.breaks(Violation::Stranger(id.into()));
            return;
        };
        let is_text = matches!(sent.expected, Some(Expected::Text(_)));
        let wrong = record.fields["id"] != id
            || (record.state(), record.error_code()) != sent.outcome
            || record.vectors.len() != usize::from(sent.outcome == SUCCEEDED && !is_text);
        if wrong {
            let said = format!("{:?} expected, {}", sent.outcome, record.fields);
            let is_accused = record.error_code() == ENDS_WORKERS && sent.outcome.1 != ENDS_WORKERS;
            let violation = if is_accused { Violation::FalseDeath } else { Violation::Wrong };
            self.breaks(violation(id.into(), said));
        } else if let Some(Expected::Text(text)) = &sent.expected {
            self.texts.jobs += 1;
            self.texts.tokens += text.ids.len();
            if Generated::of(&record.fields["output"]).as_ref() != Some(text) {
                self.breaks(Violation::OtherText(id.into()));
            }
        } else if let (Some(Expected::Vector(text)), Some(vector)) =
            (&sent.expected, record.vectors.first())
        {
            let first = self.vectors.entry(text.clone()).or_insert_with(|| vector.clone());
            if !are_alike(first, vector) {
                self.breaks(Violation::Unlike(id.into()));
            }
        }
    }
}

/// Reads the records of these jobs; an error when the store is away.
pub async fn read(
    redis: &mut MultiplexedConnection,
    ids: &[String],
) -> redis::RedisResult<Vec<Option<Vec<u8>>>> {
    let mut records = Vec::with_capacity(ids.len());
    for ids in ids.chunks(KEYS_AT_ONCE) {
        let keys: Vec<String> = ids.iter().map(|id| result_key(id)).collect();
        let read: Vec<Option<Vec<u8>>> = redis::cmd("MGET").arg(keys).query_async(redis).await?;
        records.extend(read);
    }
    Ok(records)
}

fn are_alike(one: &[f32], other: &[f32]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| (a - b).abs() <= DIFFERENCE_MAX)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
