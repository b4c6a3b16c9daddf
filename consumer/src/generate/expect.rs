//! How long outputs are expected to be: by those that ended lately, of the same tenant and the same beginning of a
//! prompt where enough of those ended, else of any.
//!
//! A template is the beginning of many prompts, and no job says where it ends. So an output counts for its tenant and
//! for the first 1, 2, 4 and up to 64 pages of its prompt, and the longest beginning that is known well enough speaks
//! for a prompt. Beginnings that no other prompt has are forgotten first: those that many have are met again.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::generate::prefix::Prefix;

/// Outputs that are remembered of all: enough for a stable quantile, few enough to follow a change of what is asked.
const REMEMBERED: usize = 128;
/// Outputs that are remembered of one kind.
const REMEMBERED_OF_KIND: usize = 32;
/// With fewer than these nothing is expected, and a job's own limit counts.
const LEAST: usize = 8;
/// The most kinds that are remembered; together with what finds them they take less than 400 KiB.
const KINDS_MAX: usize = 1_024;

/// The lengths of the last outputs.
#[derive(Debug, Default)]
pub struct Expected {
    lengths: VecDeque<usize>,
    kinds: HashMap<u64, Kind>,
    /// When each kind was met last, by a count of all meetings.
    met: BTreeMap<u64, u64>,
    meetings: u64,
}

/// The last outputs of one kind of jobs.
#[derive(Debug)]
struct Kind {
    lengths: [u32; REMEMBERED_OF_KIND],
    /// Outputs so far; the ring has the last of them.
    count: u32,
    met: u64,
}

impl Expected {
    /// The output of a prompt ended with so many tokens.
    pub fn ended(&mut self, prefix: &Prefix, tokens: usize) {
        if self.lengths.len() == REMEMBERED {
            self.lengths.pop_front();
        }
        self.lengths.push_back(tokens);
        for kind in prefix.kinds() {
            self.ended_of(kind, u32::try_from(tokens).unwrap_or(u32::MAX));
        }
    }

    fn ended_of(&mut self, name: u64, tokens: u32) {
        self.meetings += 1;
        let met = self.meetings;
        let kind = self.kinds.entry(name).or_insert(Kind {
            lengths: [0; REMEMBERED_OF_KIND],
            count: 0,
            met,
        });
        kind.lengths[kind.count as usize % REMEMBERED_OF_KIND] = tokens;
        // The ring stays full when the count begins again at its length.
        kind.count = kind.count.checked_add(1).unwrap_or(REMEMBERED_OF_KIND as u32);
        self.met.remove(&kind.met);
        kind.met = met;
        self.met.insert(met, name);
        if self.kinds.len() > KINDS_MAX
            && let Some((_, forgotten)) = self.met.pop_first()
        {
            self.kinds.remove(&forgotten);
        }
    }

    /// The tokens that nine of ten outputs of such a prompt stay within; `None` while too few are known.
    pub fn tokens(&self, prefix: &Prefix) -> Option<usize> {
        let of_kind = |name| self.kinds.get(&name).and_then(Kind::tokens);
        prefix.kinds().rev().find_map(of_kind).or_else(|| {
            let mut lengths: Vec<usize> = self.lengths.iter().copied().collect();
            nine_of_ten(&mut lengths)
        })
    }
}

impl Kind {
    fn tokens(&self) -> Option<usize> {
        let known = (self.count as usize).min(REMEMBERED_OF_KIND);
        let mut lengths = self.lengths;
        nine_of_ten(&mut lengths[..known]).map(|tokens| tokens as usize)
    }
}

fn nine_of_ten<T: Ord + Copy>(lengths: &mut [T]) -> Option<T> {
    if lengths.len() < LEAST {
        return None;
    }
    let at = (lengths.len() * 9).div_ceil(10) - 1;
    Some(*lengths.select_nth_unstable(at).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(tenant: u64, template: u32, own: u32) -> Prefix {
        let template = [template; 20];
        let own = [own; 20];
        Prefix::of(&[&template[..], &own].concat(), tenant, 4)
    }

    #[test]
    fn nine_of_ten_outputs_stay_within_what_is_expected_and_old_ones_are_forgotten() {
        let mut expected = Expected::default();
        let other = Prefix::of(&[], 9, 4);
        for tokens in 1..LEAST {
            expected.ended(&other, tokens);
            assert_eq!(expected.tokens(&other), None);
        }
        (LEAST..=100).for_each(|tokens| expected.ended(&other, tokens));
        let unknown = Prefix::of(&[], 1, 4);
        assert_eq!(expected.tokens(&unknown), Some(90));
        (0..REMEMBERED).for_each(|_| expected.ended(&other, 5));
        assert_eq!(expected.tokens(&unknown), Some(5));
    }

    #[test]
    fn each_template_of_each_tenant_has_lengths_of_its_own() {
        let mut expected = Expected::default();
        for own in 0..40 {
            expected.ended(&prefix(1, 1, own), 10);
            expected.ended(&prefix(1, 2, own), 200);
            expected.ended(&prefix(2, 1, own), 3_000);
        }
        assert_eq!(expected.tokens(&prefix(1, 1, 99)), Some(10));
        assert_eq!(expected.tokens(&prefix(1, 2, 99)), Some(200));
        assert_eq!(expected.tokens(&prefix(2, 1, 99)), Some(3_000));
        assert_eq!(expected.tokens(&prefix(1, 7, 99)), Some(200), "another template of the tenant");
        assert_eq!(expected.tokens(&prefix(3, 1, 99)), Some(3_000), "another tenant: any output");
    }

    #[test]
    fn a_kind_that_changes_is_followed_within_so_many_outputs_as_are_remembered() {
        let mut expected = Expected::default();
        (0..100).for_each(|own| expected.ended(&prefix(1, 1, own), 500));
        (0..REMEMBERED_OF_KIND as u32).for_each(|own| expected.ended(&prefix(1, 1, own), 20));
        assert_eq!(expected.tokens(&prefix(1, 1, 0)), Some(20));
    }

    #[test]
    fn the_table_is_bounded_and_what_was_met_last_stays() {
        let mut expected = Expected::default();
        for own in 0..5_000 {
            // Prompts of which no two are alike, and one template among them.
            expected.ended(&prefix(1, 10 + own, own), 100);
            if own % 20 == 0 {
                expected.ended(&prefix(1, 1, own), 7);
            }
        }
        assert_eq!(expected.kinds.len(), KINDS_MAX);
        assert_eq!(expected.met.len(), KINDS_MAX);
        assert_eq!(expected.tokens(&prefix(1, 1, 0)), Some(7));
        let bytes = KINDS_MAX * 2 * (size_of::<(u64, Kind)>() + size_of::<(u64, u64)>());
        assert!(bytes < 400 << 10, "{bytes} bytes, with tables that are half empty");
    }
}
