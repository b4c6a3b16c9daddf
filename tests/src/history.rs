//! A record of the jobs that were sent and of their results over time, and the promises that it breaks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use redis::aio::MultiplexedConnection;

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
    text: Option<String>,
    confirmed: bool,
}

/// Everything that happened in one run.
#[derive(Debug, Default)]
pub struct History {
    sent: BTreeMap<String, Sent>,
    /// By id, a hash of the record as it was first seen.
    seen: HashMap<String, u64>,
    /// By text, its first vector.
    vectors: HashMap<String, Vec<f32>>,
    violations: BTreeSet<Violation>,
}

impl History {
    /// A job is about to be sent; it may have been before. A good job has its text compared.
    pub fn sends(&mut self, id: &str, outcome: Outcome, text: Option<&str>) {
        let sent = || Sent { outcome, text: text.map(str::to_owned), confirmed: false };
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
        let wrong = record.fields["id"] != id
            || (record.state(), record.error_code()) != sent.outcome
            || record.vectors.len() != usize::from(sent.outcome == SUCCEEDED);
        if wrong {
            let said = format!("{:?} expected, {}", sent.outcome, record.fields);
            let is_accused = record.error_code() == ENDS_WORKERS && sent.outcome.1 != ENDS_WORKERS;
            let violation = if is_accused { Violation::FalseDeath } else { Violation::Wrong };
            self.breaks(violation(id.into(), said));
        } else if let (Some(text), Some(vector)) = (&sent.text, record.vectors.first()) {
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
mod tests {
    use serde_json::json;

    use super::*;

    fn history() -> History {
        let mut history = History::default();
        history.sends("good", SUCCEEDED, Some("text"));
        history.sends("twin", SUCCEEDED, Some("text"));
        history.sends("bad", ("failed", "invalid_request"), None);
        for id in ["good", "twin", "bad"] {
            history.confirmed(id);
        }
        history.sends("unknown", SUCCEEDED, Some("other"));
        history
    }

    fn succeeded(id: &str, x: f32) -> Vec<u8> {
        let output = json!({"dim": 2, "count": 1, "embeddings": [[x, 0.5]]});
        json!({"id": id, "state": "succeeded", "output": output}).to_string().into_bytes()
    }

    fn failed(id: &str, code: &str) -> Vec<u8> {
        json!({"id": id, "state": "failed", "error": {"code": code}}).to_string().into_bytes()
    }

    fn see(history: &mut History, id: &str, record: Option<Vec<u8>>) {
        history.observe(&[id.to_owned()], &[record]);
    }

    fn whole() -> History {
        let mut history = history();
        see(&mut history, "good", Some(succeeded("good", 1.0)));
        see(&mut history, "twin", Some(succeeded("twin", 1.0)));
        see(&mut history, "bad", Some(failed("bad", "invalid_request")));
        history
    }

    #[test]
    fn a_history_that_keeps_every_promise_breaks_none() {
        let mut history = whole();
        assert_eq!(history.violations(), []);
        see(&mut history, "good", Some(succeeded("good", 1.0)));
        see(&mut history, "unknown", None);
        history.observe_keys(&[result_key("good"), result_key("unknown")]);
        assert_eq!(history.violations(), []);
        assert_eq!(history.counts(), (4, 3, 3));
    }

    #[test]
    fn a_confirmed_job_without_a_record_is_missing() {
        let mut history = history();
        see(&mut history, "good", Some(succeeded("good", 1.0)));
        let missing = ["bad", "twin"].map(|id| Violation::Missing(id.into()));
        assert_eq!(history.violations(), missing);
    }

    #[test]
    fn a_record_that_changes_or_vanishes_is_found() {
        let mut history = whole();
        see(&mut history, "good", Some(succeeded("good", 0.25)));
        see(&mut history, "bad", None);
        let found = [Violation::Changed("good".into()), Violation::Vanished("bad".into())];
        assert_eq!(history.violations(), found);
    }

    #[test]
    fn a_record_of_a_job_that_was_not_sent_is_a_stranger() {
        let mut history = whole();
        history.observe_keys(&[result_key("good"), result_key("else")]);
        assert_eq!(history.violations(), [Violation::Stranger(result_key("else"))]);
    }

    #[test]
    fn a_wrong_outcome_is_found_also_where_the_confirmation_is_unknown() {
        let mut history = whole();
        see(&mut history, "unknown", Some(failed("unknown", "internal")));
        let violations = history.violations();
        assert!(matches!(&violations[..], [Violation::Wrong(id, _)] if id == "unknown"));
    }

    #[test]
    fn a_job_that_is_said_to_have_ended_workers_and_ends_none_is_found() {
        let mut history = history();
        see(&mut history, "good", Some(failed("good", "attempts_exhausted")));
        assert!(matches!(&history.violations()[0], Violation::FalseDeath(id, _) if id == "good"));
    }

    #[test]
    fn a_job_that_ends_workers_has_to_end_as_one() {
        let mut history = History::default();
        for id in ["killer", "survivor"] {
            history.sends(id, ("failed", "attempts_exhausted"), None);
        }
        see(&mut history, "killer", Some(failed("killer", "attempts_exhausted")));
        assert_eq!(history.violations(), []);
        see(&mut history, "survivor", Some(succeeded("survivor", 1.0)));
        assert!(matches!(&history.violations()[0], Violation::Wrong(id, _) if id == "survivor"));
    }

    #[test]
    fn a_record_under_a_wrong_key_is_found() {
        let mut history = history();
        see(&mut history, "good", Some(succeeded("twin", 1.0)));
        assert!(matches!(&history.violations()[0], Violation::Wrong(id, _) if id == "good"));
    }

    #[test]
    fn two_vectors_of_one_text_are_found() {
        let mut history = history();
        see(&mut history, "good", Some(succeeded("good", 1.0)));
        see(&mut history, "twin", Some(succeeded("twin", 0.9)));
        assert!(history.violations().contains(&Violation::Unlike("twin".into())));
    }

    #[test]
    fn what_else_is_broken_is_kept() {
        let mut history = whole();
        history.breaks(Violation::Left("queue".into(), 1));
        history.breaks(Violation::Wedged("probe".into()));
        assert_eq!(history.violations().len(), 2);
    }
}
