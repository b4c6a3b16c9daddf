//! The rows of a matrix, shared out among threads.
#![allow(unsafe_code)]

use super::block::Columns;
use super::element::Element;
use super::parallel::{for_each, threads};

/// Shares out the rows of a matrix whose rows are `width` long: enough tasks for the threads to even out, none so
/// small that handing it over costs more.
pub(super) fn each_rows<E: Element>(
    matrix: &mut [E],
    width: usize,
    work: impl Fn(std::ops::Range<usize>, &mut [E]) + Sync,
) {
    if width == 0 {
        return;
    }
    let rows = matrix.len() / width;
    let per_task = rows.div_ceil(4 * threads()).max(8);
    let matrix = Columns::new(matrix, width);
    for_each(rows.div_ceil(per_task), |task| {
        let range = task * per_task..rows.min((task + 1) * per_task);
        // SAFETY: each task has its own rows.
        let rows = unsafe { matrix.rows(range.clone()) };
        work(range, rows);
    });
}
