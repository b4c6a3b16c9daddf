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
    pub(super) fn new(rows: usize, row_bytes: usize, panels: usize) -> Self {
        let threads = threads();
        let rows_max = (CHUNK_BYTES / row_bytes).max(ROWS_MAX);
        let rounds = rows.div_ceil(threads * rows_max).max(1);
        // Whole groups of rows, for any number of rows that a target keeps in registers. Too few rows for
        // that stay together, and the panels are dealt out instead.
        let chunks = (threads * rounds).min(rows.div_ceil(2 * ROWS_MAX)).max(1);
        let rows_per_chunk = rows.div_ceil(chunks).max(1).next_multiple_of(ROWS_MAX);
        let parts = threads.div_ceil(rows.div_ceil(rows_per_chunk).max(1));
        Self { rows, rows_per_chunk, panels, panels_per_part: panels.div_ceil(parts).max(1) }
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
