//! The rows of one step of generation: which sequences' new tokens they are, and where those sequences' keys lie.

use std::ops::Range;

use super::cu_seqlens::CuSeqlens;
use super::pages::PAGE_TOKENS;
use crate::error::KernelError;

/// One sequence's part of a step: a chunk of its prompt, or the one token that was picked last.
#[derive(Debug, Clone, Copy)]
pub struct SequenceRows<'a> {
    /// New tokens; may be none.
    pub tokens: usize,
    /// The position of the first of them: how many tokens of the sequence have their keys in pages already.
    pub position: usize,
    /// The sequence's page table: `pages[n]` holds the tokens from position `n * PAGE_TOKENS` on. It reaches at least
    /// to the last new token. Entries that no window sees any more are not read, and may be anything.
    pub pages: &'a [u32],
}

/// The rows of a step, packed as [`CuSeqlens`] says, with the positions and page tables of their sequences. Made once
/// a step, for all layers that share page tables.
#[derive(Debug, Clone, Default)]
pub struct StepRows<'a> {
    cu_seqlens: CuSeqlens,
    sequences: Vec<SequenceRows<'a>>,
    spans: Vec<Span>,
}

/// New tokens of one sequence that go into one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// Rows of the step.
    pub(crate) rows: Range<usize>,
    /// The position of the first one.
    pub(crate) position: usize,
    pub(crate) page: usize,
}

impl Span {
    /// Where in the page its first token goes.
    pub(crate) fn slot(&self) -> usize {
        self.position % PAGE_TOKENS
    }
}

impl<'a> StepRows<'a> {
    /// The rows of these sequences, in order. Refused are page tables that end before the new tokens, and a page that
    /// two of these sequences would write to.
    pub fn new(sequences: impl IntoIterator<Item = SequenceRows<'a>>) -> Result<Self, KernelError> {
        let mut step = Self::default();
        for sequence in sequences {
            step.push(sequence)?;
        }
        let mut written: Vec<usize> = step.spans.iter().map(|span| span.page).collect();
        written.sort_unstable();
        match written.windows(2).find(|pages| pages[0] == pages[1]) {
            Some(pages) => Err(KernelError::SharedPage { page: pages[0] }),
            None => Ok(step),
        }
    }

    fn push(&mut self, sequence: SequenceRows<'a>) -> Result<(), KernelError> {
        let SequenceRows { tokens, position, pages } = sequence;
        let index = self.sequences.len();
        let short =
            KernelError::PageTable { sequence: index, pages: pages.len(), position, tokens };
        // Rows are counted together, so their sum has to be a number too.
        let end =
            position.checked_add(tokens).filter(|_| self.tokens().checked_add(tokens).is_some());
        let Some(end) = end.filter(|end| end.div_ceil(PAGE_TOKENS) <= pages.len()) else {
            return Err(short);
        };
        let mut row = self.tokens();
        let mut first = position;
        while first < end {
            let last = end.min((first / PAGE_TOKENS + 1) * PAGE_TOKENS);
            let page = pages[first / PAGE_TOKENS] as usize;
            self.spans.push(Span { rows: row..row + last - first, position: first, page });
            row += last - first;
            first = last;
        }
        self.cu_seqlens.push(tokens);
        self.sequences.push(sequence);
        Ok(())
    }

    /// Where each sequence's rows begin and end.
    pub fn cu_seqlens(&self) -> &CuSeqlens {
        &self.cu_seqlens
    }

    /// Rows of all sequences together.
    pub fn tokens(&self) -> usize {
        self.cu_seqlens.tokens()
    }

    /// The sequences, in order.
    pub fn sequences(&self) -> &[SequenceRows<'a>] {
        &self.sequences
    }

    /// The new tokens by the pages that they go into; no page is there twice.
    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Refuses new tokens for pages that are not there, and positions from `positions` on.
    pub(crate) fn check_writes(
        &self,
        op: &'static str,
        pages: usize,
        positions: Option<usize>,
    ) -> Result<(), KernelError> {
        if let Some(page) = self.spans.iter().map(|span| span.page).find(|&page| page >= pages) {
            return Err(KernelError::OutsideTable { op, what: "page", value: page, rows: pages });
        }
        let ends = self.sequences.iter().filter(|sequence| sequence.tokens > 0);
        let end =
            ends.map(|sequence| sequence.position + sequence.tokens).max().unwrap_or_default();
        match positions {
            Some(rows) if end > rows => {
                Err(KernelError::OutsideTable { op, what: "position", value: end - 1, rows })
            }
            _ => Ok(()),
        }
    }

    /// Refuses pages that are not there among those that `window` lets the new tokens see.
    pub(crate) fn check_reads(
        &self,
        op: &'static str,
        pages: usize,
        window: Option<usize>,
    ) -> Result<(), KernelError> {
        for sequence in self.sequences.iter().filter(|sequence| sequence.tokens > 0) {
            let first = first_seen(sequence.position, window) / PAGE_TOKENS;
            let end = (sequence.position + sequence.tokens).div_ceil(PAGE_TOKENS);
            let seen = sequence.pages[first..end].iter().map(|&page| page as usize);
            if let Some(page) = seen.into_iter().find(|&page| page >= pages) {
                return Err(KernelError::OutsideTable {
                    op,
                    what: "page",
                    value: page,
                    rows: pages,
                });
            }
        }
        Ok(())
    }
}

/// The first position that the query at `position` sees under a window of so many keys, its own among them.
#[inline(always)]
pub(crate) fn first_seen(position: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| (position + 1).saturating_sub(window))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn new_tokens_are_dealt_to_the_pages_of_their_positions() {
        let pages = [7, 3, 5];
        let chunk = SequenceRows { tokens: 40, position: 30, pages: &pages };
        let token = SequenceRows { tokens: 1, position: 32, pages: &[9, 8] };
        let none = SequenceRows { tokens: 0, position: 0, pages: &[] };
        let step = StepRows::new([chunk, none, token]).unwrap();
        assert_eq!(step.cu_seqlens().as_slice(), [0, 40, 40, 41]);
        let span = |rows, position, page| Span { rows, position, page };
        let expected =
            [span(0..2, 30, 7), span(2..34, 32, 3), span(34..40, 64, 5), span(40..41, 32, 8)];
        assert_eq!(step.spans(), expected);
        assert_eq!(step.spans().iter().map(Span::slot).collect::<Vec<_>>(), [30, 0, 0, 0]);
    }

    #[test]
    fn tables_that_end_too_early_and_pages_with_two_writers_are_refused() {
        let make =
            |position, tokens, pages: &'static [u32]| SequenceRows { tokens, position, pages };
        let short = StepRows::new([make(0, 32, &[0]), make(32, 1, &[1])]);
        assert!(matches!(short, Err(KernelError::PageTable { sequence: 1, .. })));
        let huge = StepRows::new([make(usize::MAX, 2, &[1])]);
        assert!(matches!(huge, Err(KernelError::PageTable { sequence: 0, .. })));
        let shared = StepRows::new([make(0, 1, &[4]), make(31, 2, &[2, 4])]);
        assert!(matches!(shared, Err(KernelError::SharedPage { page: 4 })));
        // A page that is only read may be read by all.
        assert!(StepRows::new([make(32, 1, &[2, 0]), make(32, 1, &[2, 1])]).is_ok());
    }
}
