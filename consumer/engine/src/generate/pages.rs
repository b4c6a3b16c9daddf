//! Which page belongs to which sequence: reference counts, and the prefix cache.
//!
//! Every layer has its keys and values in pages of its own, but a page number means the same tokens in all of them: one
//! allocator deals them out. A page that is full is known by its tokens and by what stands before it, back to the
//! sequence's salt. Sequences that begin in the same way therefore share pages, while they are open and later on: a
//! page that is kept stays when no sequence holds it, until its memory is needed. Keys are compared as a whole, so that
//! no collision of hashes can hand out another text's page.
//!
//! Shared pages are never written to: they are full, and a sequence writes only behind its last token.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use forebay_kernels::PAGE_TOKENS;

use crate::generate::generator::Keep;

/// The tokens of a full page.
type PageTokens = [u32; PAGE_TOKENS];

/// The tokens before a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Before {
    /// Nothing but the salt of the sequence.
    Salt(u64),
    /// The full page that has this number among all that ever were full.
    Page(u64),
}

/// The key of a full page.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    before: Before,
    tokens: PageTokens,
}

/// One page.
#[derive(Debug, Clone, Default)]
struct Page {
    /// Open sequences that hold it.
    holders: usize,
    /// Whether it stays when no sequence holds it: some sequence that held it was closed with [`Keep::Prefix`].
    kept: bool,
    /// Where it is found once it is full, and its number among the full ones.
    full: Option<(Key, u64)>,
    /// When it was last let go, if it is cached.
    since: u64,
}

/// A prefix that was found in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// Its pages, which the finder now holds.
    pub(crate) pages: Vec<u32>,
    /// The tokens before the next page.
    pub(crate) before: Before,
}

/// How many pages are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) free: usize,
    pub(crate) held: usize,
    pub(crate) cached: usize,
}

/// Deals out pages by number.
#[derive(Debug)]
pub(crate) struct PageAllocator {
    pages: Vec<Page>,
    /// The lowest number is dealt first, so that memory that was never needed is never touched.
    free: BinaryHeap<Reverse<u32>>,
    /// Pages that no sequence holds, by the time since when.
    cached: BTreeMap<u64, u32>,
    full: HashMap<Key, u32>,
    filled: u64,
    now: u64,
}

impl PageAllocator {
    pub(crate) fn new(count: u32) -> Self {
        Self {
            pages: vec![Page::default(); count as usize],
            free: (0..count).map(Reverse).collect(),
            cached: BTreeMap::new(),
            full: HashMap::new(),
            filled: 0,
            now: 0,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let [free, cached] = [self.free.len(), self.cached.len()];
        Counts { free, held: self.pages.len() - free - cached, cached }
    }

    /// Pages that can be taken: free and cached ones.
    pub(crate) fn left(&self) -> usize {
        self.free.len() + self.cached.len()
    }

    /// Holds the pages of the longest prefix of `tokens` that is known, short of the last token: its logits are still
    /// to be computed.
    pub(crate) fn find(&mut self, salt: u64, tokens: &[u32]) -> Prefix {
        let mut prefix = Prefix { pages: Vec::new(), before: Before::Salt(salt) };
        let computed = tokens.len().saturating_sub(1);
        let (whole, _) = tokens[..computed].as_chunks::<PAGE_TOKENS>();
        for tokens in whole {
            let key = Key { before: prefix.before, tokens: *tokens };
            let Some(&page) = self.full.get(&key) else { break };
            let Some(number) = self.hold(page) else { break };
            prefix.pages.push(page);
            prefix.before = Before::Page(number);
        }
        prefix
    }

    /// One more holder of a full page; its number among the full ones.
    fn hold(&mut self, page: u32) -> Option<u64> {
        let state = self.pages.get_mut(page as usize)?;
        let number = state.full.as_ref()?.1;
        if state.holders == 0 {
            self.cached.remove(&state.since);
        }
        state.holders += 1;
        Some(number)
    }

    /// An empty page: a free one, or the cached one that was let go the longest time ago.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let page = if let Some(Reverse(page)) = self.free.pop() {
            page
        } else {
            let (_, page) = self.cached.pop_first()?;
            self.forget(page);
            page
        };
        self.pages[page as usize] = Page { holders: 1, ..Page::default() };
        Some(page)
    }

    /// Makes a page known that its only holder has just filled. Where the same tokens stand behind the same prefix in
    /// another page already, that one is held instead: by the promise of a generator it has the same bits. Returns the
    /// page that is held now, and what stands before the next one.
    pub(crate) fn fill(&mut self, before: Before, tokens: PageTokens, page: u32) -> (u32, Before) {
        let key = Key { before, tokens };
        if let Some(&known) = self.full.get(&key)
            && known != page
            && let Some(number) = self.hold(known)
        {
            self.release(page, Keep::Nothing);
            return (known, Before::Page(number));
        }
        self.filled += 1;
        self.full.insert(key.clone(), page);
        self.pages[page as usize].full = Some((key, self.filled));
        (page, Before::Page(self.filled))
    }

    /// Lets the pages of a sequence go, which are given in the order of its tokens. The last ones are then older than
    /// those before them, without which they would be of no use, and make room first.
    pub(crate) fn release_all(&mut self, pages: &[u32], keep: Keep) {
        for &page in pages.iter().rev() {
            self.release(page, keep);
        }
    }

    fn release(&mut self, page: u32, keep: Keep) {
        let state = &mut self.pages[page as usize];
        state.holders = state.holders.saturating_sub(1);
        state.kept |= keep == Keep::Prefix;
        if state.holders > 0 {
            return;
        }
        if state.kept && state.full.is_some() {
            self.now += 1;
            state.since = self.now;
            self.cached.insert(self.now, page);
        } else {
            self.forget(page);
            self.free.push(Reverse(page));
        }
    }

    /// The page is not found any more.
    fn forget(&mut self, page: u32) {
        if let Some((key, _)) = self.pages[page as usize].full.take() {
            self.full.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
