//! How the rows and the panels of a linear layer are shared out among threads.

use crate::cpu::gemm::ROWS_MAX;
use crate::cpu::parallel::threads;

/// Bytes of `x` a task takes through the panels: with a panel beside it, it stays in an L2 cache of 1 MiB.
const CHUNK_BYTES: usize = 512 * 1024;

/// How rows and panels are dealt out: chunks of rows, and where these are too few for the threads, the panels
/// in parts as well.
pub(super) struct Grid {
    rows: usize,
    rows_per_chunk: usize,
    panels: usize,
    panels_per_part: usize,
}

impl Grid {
    /// The dealing whose threads are done first; of those that are equal, the one with the fewest chunks, since each
    /// chunk reads the panels once more.
    pub(super) fn new(rows: usize, row_bytes: usize, panels: usize) -> Self {
        let threads = threads();
        let rows_max = (CHUNK_BYTES / row_bytes).max(ROWS_MAX);
        let first = Self::of_chunks(1, rows, rows_max, panels, threads);
        let others = (2..=threads).map(|at_once| {
            Self::of_chunks(at_once, rows, rows_max, panels, threads)
        });
        others.fold(first, |best, other| {
            if other.longest(threads) < best.longest(threads) { other } else { best }
        })
    }

    /// A dealing where `at_once` chunks are worked on at the same time, or some fewer.
    fn of_chunks(
        at_once: usize,
        rows: usize,
        rows_max: usize,
        panels: usize,
        threads: usize,
    ) -> Self {
        let rounds = rows.div_ceil(at_once * rows_max).max(1);
        // Whole groups of rows, for any number of rows that a target keeps in registers. Too few rows for
        // that stay together, and the panels are dealt out instead.
        let chunks = (at_once * rounds).min(rows.div_ceil(2 * ROWS_MAX)).max(1);
        let rows_per_chunk = rows.div_ceil(chunks).max(1).next_multiple_of(ROWS_MAX);
        let parts = threads.div_ceil(at_once);
        Self { rows, rows_per_chunk, panels, panels_per_part: panels.div_ceil(parts).max(1) }
    }

    /// The work of the thread with the most of it, in rows times panels.
    fn longest(&self, threads: usize) -> usize {
        let task = self.rows_per_chunk.min(self.rows) * self.panels_per_part.min(self.panels);
        self.tasks().div_ceil(threads) * task
    }

    fn parts(&self) -> usize {
        self.panels.div_ceil(self.panels_per_part)
    }

    pub(super) fn tasks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_chunk) * self.parts()
    }

    pub(super) fn task(&self, task: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let row = task / self.parts() * self.rows_per_chunk;
        let panel = task % self.parts() * self.panels_per_part;
        let rows = row..self.rows.min(row + self.rows_per_chunk);
        (rows, panel..self.panels.min(panel + self.panels_per_part))
    }
}
