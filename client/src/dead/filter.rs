//! The filter that selects dead letters.

use std::{collections::BTreeSet, time::Duration};

use forebay_fabric::death::Reason;
use forebay_schemas::{JobId, ModelId};

use super::info::DeadLetterInfo;

/// Selects the dead letters that satisfy all of its conditions; the empty filter selects all of them.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Only those for this model.
    pub model: Option<ModelId>,
    /// Only those that died for this reason.
    pub reason: Option<Reason>,
    /// Only those dead for longer than this, which leaves out those whose time of death is unknown.
    pub older_than: Option<Duration>,
    /// Only those dead for less long than this, which leaves out those whose time of death is unknown.
    pub newer_than: Option<Duration>,
    /// At most this many, from the head of the queue.
    pub limit: Option<usize>,
    /// If not empty, only those with one of these names: ids of jobs, or names of dead letters
    /// ([`DeadLetterInfo::name`]).
    pub names: BTreeSet<JobId>,
}

impl DeadLetterFilter {
    /// Whether it has a condition; [`limit`](Self::limit) is none.
    pub fn has_conditions(&self) -> bool {
        self.model.is_some()
            || self.reason.is_some()
            || self.older_than.is_some()
            || self.newer_than.is_some()
            || !self.names.is_empty()
    }

    /// Whether this dead letter satisfies all conditions at the time `now_ms`. The caller keeps to the limit.
    pub fn selects(&self, info: &DeadLetterInfo, now_ms: u64) -> bool {
        let age = info.died_at_ms.map(|at| Duration::from_millis(now_ms.saturating_sub(at)));
        self.model.as_ref().is_none_or(|model| info.model.as_ref() == Some(model))
            && self.reason.as_ref().is_none_or(|reason| *reason == info.reason)
            && self.older_than.is_none_or(|limit| age.is_some_and(|age| age > limit))
            && self.newer_than.is_none_or(|limit| age.is_some_and(|age| age < limit))
            && (self.names.is_empty() || info.names().any(|name| self.names.contains(name)))
    }
}

#[cfg(test)]
mod tests {
    use forebay_schemas::ContentType;

    use super::*;

    const NOW_MS: u64 = 1_000_000_000;

    fn dead_letter(
        model: &str,
        job: Option<&str>,
        reason: Reason,
        age_s: Option<u64>,
    ) -> DeadLetterInfo {
        DeadLetterInfo {
            name: "0123456789ab".parse().unwrap(),
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

    fn selects(filter: &DeadLetterFilter, info: &DeadLetterInfo) -> bool {
        filter.selects(info, NOW_MS)
    }

    #[test]
    fn the_empty_filter_selects_everything_and_has_no_conditions() {
        let filter = DeadLetterFilter { limit: Some(3), ..DeadLetterFilter::default() };
        assert!(
            selects(&filter, &dead_letter("", None, Reason::Unknown, None))
                && !filter.has_conditions()
        );
    }

    #[test]
    fn model_and_reason_must_both_fit() {
        let model = Some("m".parse().unwrap());
        let filter = DeadLetterFilter {
            model,
            reason: Some(Reason::Expired),
            ..DeadLetterFilter::default()
        };
        assert!(selects(&filter, &dead_letter("m", None, Reason::Expired, None)));
        assert!(!selects(&filter, &dead_letter("n", None, Reason::Expired, None)));
        assert!(!selects(&filter, &dead_letter("m", None, Reason::Rejected, None)));
        assert!(filter.has_conditions());
    }

    #[test]
    fn ages_have_two_ends_and_an_unknown_age_is_neither() {
        let minute = Some(Duration::from_secs(60));
        let older = DeadLetterFilter { older_than: minute, ..DeadLetterFilter::default() };
        let newer = DeadLetterFilter { newer_than: minute, ..DeadLetterFilter::default() };
        let aged = |s| dead_letter("m", None, Reason::Expired, s);
        assert!(selects(&older, &aged(Some(61))) && !selects(&older, &aged(Some(59))));
        assert!(selects(&newer, &aged(Some(59))) && !selects(&newer, &aged(Some(61))));
        assert!(!selects(&older, &aged(None)) && !selects(&newer, &aged(None)));
    }

    #[test]
    fn a_dead_letter_is_found_by_its_own_name_and_by_its_job_s() {
        let named = |name: &str| DeadLetterFilter {
            names: [name.parse().unwrap()].into(),
            ..DeadLetterFilter::default()
        };
        let with_job = dead_letter("m", Some("j1"), Reason::Expired, None);
        let without = dead_letter("m", None, Reason::Unanswerable, None);
        assert!(selects(&named("j1"), &with_job) && !selects(&named("j2"), &with_job));
        assert!(selects(&named("0123456789ab"), &without) && !selects(&named("j1"), &without));
    }
}
