//! The matrix product (GEMM) that attention and linear layers are made of: a few rows by a panel, summed in registers.
//!
//! A panel holds [`PANEL`] columns of a matrix, one step of the matrix product after the other: in f32 a step is a
//! row of it; in bf16 it is two rows, interleaved, since values are multiplied in pairs.
#![allow(unsafe_code)]

use super::block::Block;
use super::element::Element;
use super::simd::Target;

/// Columns of a panel: two of the widest registers.
pub(crate) const PANEL: usize = 32;
/// The most rows that are multiplied at once: 24 sums of 32 registers, beside operands.
pub(crate) const ROWS_MAX: usize = 12;

/// Rows of a matrix that lie a stride apart.
#[derive(Clone, Copy)]
pub(crate) struct RowsOf<'a, E> {
    values: &'a [E],
    stride: usize,
    count: usize,
    depth: usize,
}

impl<'a, E> RowsOf<'a, E> {
    /// `count` rows of `depth` values, the first one at the start of `values`.
    pub(crate) fn new(values: &'a [E], stride: usize, count: usize, depth: usize) -> Self {
        assert!(count == 0 || (count - 1) * stride + depth <= values.len());
        Self { values, stride, count, depth }
    }

    pub(crate) fn count(self) -> usize {
        self.count
    }

    pub(crate) fn depth(self) -> usize {
        self.depth
    }

    #[inline(always)]
    pub(crate) fn row(self, row: usize) -> &'a [E] {
        assert!(row < self.count);
        &self.values[row * self.stride..][..self.depth]
    }

    /// `count` of the rows, from `first` on.
    #[inline(always)]
    pub(crate) fn part(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.count);
        Self { values: &self.values[first * self.stride..], count, ..self }
    }
}

/// How many rows are multiplied at once where `rows` are left: as many as registers hold the sums of.
#[inline(always)]
pub(crate) fn rows_at_once<T: Target>(rows: usize) -> usize {
    let most = if T::MANY { ROWS_MAX } else { ROWS_MAX / 2 };
    rows.min(most)
}

/// Columns of a panel, as a matrix product takes them.
#[derive(Clone, Copy)]
pub(crate) struct PanelOf<'a, E> {
    /// The panel: at least as many lines as the rows are deep.
    pub(crate) values: &'a [E],
    /// The first of the [`columns_at_once`].
    pub(crate) column: usize,
    /// The values that sums start from; shorter than the columns only where the rest does not matter. `None` is zero.
    pub(crate) start: Option<&'a [f32]>,
    /// Prefetch hint: the memory that is needed after this panel. Never dereferenced, may be out of bounds.
    pub(crate) next: *const u8,
}

/// Up to [`ROWS_MAX`] rows by [`columns_at_once`] columns of a panel. No sum leaves its register
/// before it is whole, and each is summed in the order of the depth, whatever the rows.
#[inline(always)]
pub(crate) fn multiply<T: Target, E: Element>(
    rows: RowsOf<'_, E>,
    panel: PanelOf<'_, E>,
    sums: Block<'_, f32>,
) {
    multiply_any::<T, E, false>(rows, panel, sums);
}

/// As [`multiply`], but each sum starts from what `sums` holds; [`PanelOf::start`] does not count. A matrix product whose
/// depth lies in several panels gives the bits of one whose depth lies in one.
#[inline(always)]
pub(crate) fn multiply_onto<T: Target, E: Element>(
    rows: RowsOf<'_, E>,
    panel: PanelOf<'_, E>,
    sums: Block<'_, f32>,
) {
    multiply_any::<T, E, true>(rows, panel, sums);
}

#[inline(always)]
fn multiply_any<T: Target, E: Element, const ONTO: bool>(
    rows: RowsOf<'_, E>,
    panel: PanelOf<'_, E>,
    sums: Block<'_, f32>,
) {
    // Sizes in between run as the next larger one; what they compute beside is not used.
    match rows.count {
        0 => {}
        1 => multiply_rows::<T, E, 1, ONTO>(rows, panel, sums),
        2 => multiply_rows::<T, E, 2, ONTO>(rows, panel, sums),
        3 | 4 => multiply_rows::<T, E, 4, ONTO>(rows, panel, sums),
        5 | 6 => multiply_rows::<T, E, 6, ONTO>(rows, panel, sums),
        7 | 8 => multiply_rows::<T, E, 8, ONTO>(rows, panel, sums),
        _ => multiply_rows::<T, E, ROWS_MAX, ONTO>(rows, panel, sums),
    }
}

/// Steps ahead at which a panel's lines are prefetched: some 150 clock cycles, more than L2 cache takes. The panel does
/// not fit L1 cache beside the rows; on an Emerald Rapids this is worth 8 %.
const AHEAD: usize = 12;
/// The next panel is prefetched to L2 cache, from the last-level cache or memory, at a line in so many steps: a panel's
/// worth by the time that some twenty groups of rows have passed. Faster, it would hold up the loads of this panel.
const STEPS_PER_LINE: usize = 8;
/// Bytes of a cache line.
const LINE_BYTES: usize = 64;
/// Registers that a row's sums take.
const REGISTERS: usize = 2;

/// Columns that one call of [`multiply`] sums.
pub(crate) const fn columns_at_once<T: Target>() -> usize {
    REGISTERS * T::WIDTH
}

/// Bytes of what comes next that one call of [`multiply`] fetches.
pub(crate) const fn fetched<E: Element>(depth: usize) -> usize {
    depth / E::STEP / STEPS_PER_LINE * LINE_BYTES
}

#[inline(always)]
fn multiply_rows<T: Target, E: Element, const ROWS: usize, const ONTO: bool>(
    rows: RowsOf<'_, E>,
    panel: PanelOf<'_, E>,
    mut sums: Block<'_, f32>,
) {
    let steps = rows.depth / E::STEP;
    assert!(rows.depth.is_multiple_of(E::STEP) && rows.depth * PANEL <= panel.values.len());
    assert!(panel.column + columns_at_once::<T>() <= PANEL && (1..=ROWS).contains(&rows.count));
    assert!(sums.rows() == rows.count && sums.width() == columns_at_once::<T>());
    let mut pointers = [rows.values.as_ptr(); ROWS];
    for (index, pointer) in pointers.iter_mut().enumerate() {
        // Past the last row it is repeated.
        *pointer = rows.row(index.min(rows.count - 1)).as_ptr();
    }
    let mut start = [0.0; PANEL];
    if let Some(values) = panel.start {
        let count = values.len().min(PANEL);
        start[..count].copy_from_slice(&values[..count]);
    }
    // SAFETY: rows are `depth` long, the panel holds `steps` lines of `PANEL` steps' values, of which
    // the columns asked for exist, and there is room for the sums of all rows (asserted above); the set is there
    // because only code compiled for it is generic over it.
    unsafe {
        let mut first = [T::splat(0.0); REGISTERS];
        for (index, register) in first.iter_mut().enumerate() {
            *register = T::load(start.as_ptr().add(index * T::WIDTH));
        }
        let mut registers = [first; ROWS];
        if ONTO {
            for (index, registers) in registers.iter_mut().enumerate().take(rows.count) {
                let sums = sums.row(index).as_ptr();
                for (index, register) in registers.iter_mut().enumerate() {
                    *register = T::load(sums.add(index * T::WIDTH));
                }
            }
        }
        let mut line = panel.values.as_ptr().add(panel.column * E::STEP);
        for step in 0..steps {
            // (Closures such as `array::from_fn` takes would not be compiled for the set.)
            let mut values = [E::load::<T>(line); REGISTERS];
            for (index, value) in values.iter_mut().enumerate().skip(1) {
                *value = E::load::<T>(line.add(index * T::WIDTH * E::STEP));
            }
            for index in 0..REGISTERS {
                T::prefetch(line.wrapping_add((AHEAD * PANEL + index * T::WIDTH) * E::STEP).cast());
            }
            T::prefetch_far(panel.next.wrapping_add(step / STEPS_PER_LINE * LINE_BYTES));
            for (registers, row) in registers.iter_mut().zip(pointers) {
                let factor = E::splat::<T>(row.add(step * E::STEP));
                for (register, value) in registers.iter_mut().zip(values) {
                    *register = E::fused::<T>(factor, value, *register);
                }
            }
            line = line.wrapping_add(PANEL * E::STEP);
        }
        for (index, registers) in registers.iter().enumerate().take(rows.count) {
            let sums = sums.row(index).as_mut_ptr();
            for (index, register) in registers.iter().enumerate() {
                T::store(*register, sums.add(index * T::WIDTH));
            }
        }
    }
}
