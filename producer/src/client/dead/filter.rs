//! Which dead letters are meant.

use std::{collections::BTreeSet, time::Duration};

use forebay_fabric::death::Reason;
use forebay_schemas::{JobId, ModelId};

use super::LetterInfo;

/// Lets through the letters that fit everything it asks for; the empty one lets all through.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    /// Of this model.
    pub model: Option<ModelId>,
    /// Dead for this reason.
    pub reason: Option<Reason>,
    /// Dead for longer than this. A letter that does not say since when is not.
    pub older_than: Option<Duration>,
    /// Dead for less long than this. A letter that does not say since when is not.
    pub newer_than: Option<Duration>,
    /// No more than the first so many.
    pub limit: Option<usize>,
    /// With one of these names, where there are any: ids of jobs, or of letters
    /// ([`LetterInfo::letter`]).
    pub names: BTreeSet<JobId>,
}

impl LetterFilter {
    /// Whether it asks for anything; how many are wanted does not count.
    pub fn asks(&self) -> bool {
        self.model.is_some()
            || self.reason.is_some()
            || self.older_than.is_some()
            || self.newer_than.is_some()
            || !self.names.is_empty()
    }

    /// Whether it lets this letter through at the time `now_ms`; the limit is the caller's to keep.
    pub fn lets_through(&self, letter: &LetterInfo, now_ms: u64) -> bool {
        let age = letter.died_at_ms.map(|at| Duration::from_millis(now_ms.saturating_sub(at)));
        self.model.as_ref().is_none_or(|model| letter.model.as_ref() == Some(model))
            && self.reason.as_ref().is_none_or(|reason| *reason == letter.reason)
            && self.older_than.is_none_or(|limit| age.is_some_and(|age| age > limit))
            && self.newer_than.is_none_or(|limit| age.is_some_and(|age| age < limit))
            && (self.names.is_empty() || letter.names().any(|name| self.names.contains(name)))
    }
}

#[cfg(test)]
mod tests {
    use forebay_schemas::ContentType;

    use super::*;

    const NOW_MS: u64 = 1_000_000_000;

    fn letter(model: &str, job: Option<&str>, reason: Reason, age_s: Option<u64>) -> LetterInfo {
        LetterInfo {
            letter: "0123456789ab".parse().unwrap(),
            job: job.map(|id| id.parse().unwrap()),
            model: model.parse().ok(),
            lane: None,
            routing_key: model.to_owned(),
            reason,
            detail: None,
            queue: None,
            died_at_ms: age_s.map(|s| NOW_MS - s * 1_000),
            bytes: 0,
            content_type: ContentType::Json,
        }
    }

    fn through(filter: &LetterFilter, letter: &LetterInfo) -> bool {
        filter.lets_through(letter, NOW_MS)
    }

    #[test]
    fn the_empty_filter_lets_everything_through_and_asks_for_nothing() {
        let filter = LetterFilter { limit: Some(3), ..LetterFilter::default() };
        assert!(through(&filter, &letter("", None, Reason::Unknown, None)) && !filter.asks());
    }

    #[test]
    fn model_and_reason_must_both_fit() {
        let model = Some("m".parse().unwrap());
        let filter =
            LetterFilter { model, reason: Some(Reason::Expired), ..LetterFilter::default() };
        assert!(through(&filter, &letter("m", None, Reason::Expired, None)));
        assert!(!through(&filter, &letter("n", None, Reason::Expired, None)));
        assert!(!through(&filter, &letter("m", None, Reason::Rejected, None)));
        assert!(filter.asks());
    }

    #[test]
    fn ages_have_two_ends_and_an_unknown_age_is_neither() {
        let minute = Some(Duration::from_secs(60));
        let older = LetterFilter { older_than: minute, ..LetterFilter::default() };
        let newer = LetterFilter { newer_than: minute, ..LetterFilter::default() };
        let aged = |s| letter("m", None, Reason::Expired, s);
        assert!(through(&older, &aged(Some(61))) && !through(&older, &aged(Some(59))));
        assert!(through(&newer, &aged(Some(59))) && !through(&newer, &aged(Some(61))));
        assert!(!through(&older, &aged(None)) && !through(&newer, &aged(None)));
    }

    #[test]
    fn a_letter_goes_by_its_own_name_and_by_its_job_s() {
        let named = |name: &str| LetterFilter {
            names: [name.parse().unwrap()].into(),
            ..LetterFilter::default()
        };
        let with_job = letter("m", Some("j1"), Reason::Expired, None);
        let without = letter("m", None, Reason::Unanswerable, None);
        assert!(through(&named("j1"), &with_job) && !through(&named("j2"), &with_job));
        assert!(through(&named("0123456789ab"), &without) && !through(&named("j1"), &without));
    }
}
