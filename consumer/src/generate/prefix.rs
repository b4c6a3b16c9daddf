//! The prefix of a sequence: the whole pages that its tokens fill, by hashes.
//!
//! The hash of a page is made of its tokens and of all before them, back to the tenant's salt, as the cache of the
//! engine knows pages. So two sequences share as many pages as their lists of hashes have in common, and a hash names a
//! node of the tree of all prefixes. Nothing but order and expectations depends on a hash: pages are shared by their
//! tokens.

use std::{iter::once, sync::Arc};

/// The whole pages that a sequence begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefix {
    salt: u64,
    pages: Arc<[u64]>,
}

impl Prefix {
    /// The prefix of a sequence that begins with these tokens. At least one of them is in no page: its logits are
    /// always computed.
    pub fn of(tokens: &[u32], salt: u64, page_tokens: usize) -> Self {
        let page_tokens = page_tokens.max(1);
        let whole = tokens.len().saturating_sub(1) / page_tokens;
        let mut before = salt;
        let pages = tokens.chunks_exact(page_tokens).take(whole).map(|page| {
            before = page.iter().fold(mixed(before), |hash, token| mixed(hash ^ u64::from(*token)));
            before
        });
        Self { salt, pages: pages.collect() }
    }

    /// The hashes of its pages.
    pub fn pages(&self) -> &[u64] {
        &self.pages
    }

    /// How many pages it shares with another prefix.
    pub fn shared(&self, other: &Self) -> usize {
        let most = self.pages.len().min(other.pages.len());
        // A page is the same only if all before it are.
        let mut least = 0;
        let mut end = most;
        while least < end {
            let middle = usize::midpoint(least, end);
            if self.pages[middle] == other.pages[middle] {
                least = middle + 1;
            } else {
                end = middle;
            }
        }
        least
    }

    /// Names of the kind of job that it is of, from its tenant to ever longer beginnings: of 1, 2, 4 and so many pages.
    pub fn kinds(&self) -> impl DoubleEndedIterator<Item = u64> {
        const DOUBLINGS: u32 = 7;
        let beginnings = (0..DOUBLINGS).map_while(|at| self.pages.get((1 << at) - 1).copied());
        let beginnings: Vec<u64> = beginnings.collect();
        once(mixed(self.salt)).chain(beginnings)
    }
}

/// Steele and Vigna's splitmix64.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const PAGE: usize = 4;

    #[test]
    fn tenants_share_no_pages_and_a_token_is_left_to_compute() {
        let text = [1, 2, 3, 4, 5, 6, 7, 8];
        let whole = Prefix::of(&text, 1, PAGE);
        assert_eq!(whole.pages().len(), 1, "the second page is the end of the prompt");
        assert_eq!(Prefix::of(&text[..4], 1, PAGE).pages(), &[0; 0]);
        assert_eq!(whole.shared(&Prefix::of(&text, 2, PAGE)), 0);
        let kinds: Vec<u64> = whole.kinds().collect();
        assert_eq!(kinds.len(), 2, "the tenant, and a page");
        assert_ne!(kinds[0], Prefix::of(&text, 2, PAGE).kinds().next().unwrap());
    }

    proptest! {
        #[test]
        fn prefixes_share_as_many_pages_as_their_tokens_do(
            one in vec(0_u32..2, 0..40), other in vec(0_u32..2, 0..40),
        ) {
            let alike = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
            let prefixes = [&one, &other].map(|tokens| Prefix::of(tokens, 7, PAGE));
            let whole = prefixes.each_ref().map(|prefix| prefix.pages().len());
            let shared = (alike / PAGE).min(whole[0]).min(whole[1]);
            prop_assert_eq!(prefixes[0].shared(&prefixes[1]), shared);
        }
    }
}
