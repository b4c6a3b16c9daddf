//! The product that attention and linear layers are made of: a few rows by a panel, summed in registers.
//!
//! A panel holds [`PANEL`] columns of a matrix, one step of the product after the other: in f32 a step is a
//! row of it; in bf16 it is two rows, interleaved, since values are multiplied in pairs.
#![allow(unsafe_code)]

use crate::element::Element;
use crate::simd::Target;

/// Columns of a panel: two of the widest registers.
pub(crate) const PANEL: usize = 32;
/// The most rows that are multiplied at once: 24 sums of 32 registers, beside operands.
pub(crate) const ROWS_MAX: usize = 12;

/// Where a product's sums go: rows of f32 that lie a stride apart.
pub(crate) struct Sums<'a> {
    values: &'a mut [f32],
    stride: usize,
}

impl<'a> Sums<'a> {
    /// The first row at the start of `values`.
    pub(crate) fn new(values: &'a mut [f32], stride: usize) -> Self {
        Self { values, stride }
    }
}

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

    /// The rows from `first` on, and with fewer values each.
    #[inline(always)]
    pub(crate) fn part(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.count);
        Self { values: &self.values[first * self.stride..], count, ..self }
    }
}

/// How many rows are multiplied at once where `rows` are left: as many as registers hold, or the fewest of
/// a few sizes that cover them.
#[inline(always)]
pub(crate) fn rows_at_once<T: Target>(rows: usize) -> usize {
    let most = if T::MANY { ROWS_MAX } else { ROWS_MAX / 2 };
    rows.min(most)
}

/// Up to [`ROWS_MAX`] rows by [`columns_at_once`] columns of a panel, from `column` on. No sum leaves its register
/// before it is whole, and each is summed in the order of the depth, whatever the rows.
#[inline(always)]
pub(crate) fn multiply<T: Target, E: Element>(
    rows: RowsOf<'_, E>,
    panel: &[E],
    column: usize,
    sums: Sums<'_>,
) {
    // Sizes in between run as the next larger one; what they compute beside is not looked at.
    match rows.count {
        0 => {}
        1 => multiply_rows::<T, E, 1>(rows, panel, column, sums),
        2 => multiply_rows::<T, E, 2>(rows, panel, column, sums),
        3 | 4 => multiply_rows::<T, E, 4>(rows, panel, column, sums),
        5 | 6 => multiply_rows::<T, E, 6>(rows, panel, column, sums),
        7 | 8 => multiply_rows::<T, E, 8>(rows, panel, column, sums),
        _ => multiply_rows::<T, E, ROWS_MAX>(rows, panel, column, sums),
    }
}

/// Steps ahead at which a panel's lines are asked for: some 150 clock cycles, more than the second cache takes. The
/// panel does not fit the first one beside the rows; on an Emerald Rapids this is worth 8 %.
const AHEAD: usize = 12;
/// Registers that a row's sums take.
const REGISTERS: usize = 2;

/// Columns that one call of [`multiply`] sums.
pub(crate) const fn columns_at_once<T: Target>() -> usize {
    REGISTERS * T::WIDTH
}

#[inline(always)]
fn multiply_rows<T: Target, E: Element, const ROWS: usize>(
    rows: RowsOf<'_, E>,
    panel: &[E],
    column: usize,
    sums: Sums<'_>,
) {
    let steps = rows.depth / E::STEP;
    assert!(rows.depth.is_multiple_of(E::STEP) && rows.depth * PANEL <= panel.len());
    assert!(column + columns_at_once::<T>() <= PANEL && (1..=ROWS).contains(&rows.count));
    assert!((rows.count - 1) * sums.stride + columns_at_once::<T>() <= sums.values.len());
    let mut pointers = [rows.values.as_ptr(); ROWS];
    for (index, pointer) in pointers.iter_mut().enumerate() {
        // Past the last row it is repeated.
        let row = index.min(rows.count - 1);
        *pointer = rows.values[row * rows.stride..][..rows.depth].as_ptr();
    }
    // SAFETY: rows are `depth` long (sliced so above), the panel holds `steps` lines of `PANEL` steps' values, of
    // which the columns asked for exist, and there is room for the sums of all rows (asserted above); the set is there because only code
    // compiled for it is generic over it.
    unsafe {
        let mut registers = [[T::splat(0.0); REGISTERS]; ROWS];
        let mut line = panel.as_ptr().add(column * E::STEP);
        for step in 0..steps {
            // (Closures such as `array::from_fn` takes would not be compiled for the set.)
            let mut values = [E::load::<T>(line); REGISTERS];
            for (place, value) in values.iter_mut().enumerate().skip(1) {
                *value = E::load::<T>(line.add(place * T::WIDTH * E::STEP));
            }
            for place in 0..REGISTERS {
                T::prefetch(line.wrapping_add((AHEAD * PANEL + place * T::WIDTH) * E::STEP).cast());
            }
            for (registers, row) in registers.iter_mut().zip(pointers) {
                let factor = E::splat::<T>(row.add(step * E::STEP));
                for (register, value) in registers.iter_mut().zip(values) {
                    *register = E::fused::<T>(factor, value, *register);
                }
            }
            line = line.wrapping_add(PANEL * E::STEP);
        }
        for (index, registers) in registers.iter().enumerate().take(rows.count) {
            for (place, register) in registers.iter().enumerate() {
                let at = index * sums.stride + place * T::WIDTH;
                T::store(*register, sums.values.as_mut_ptr().add(at));
            }
        }
    }
}
