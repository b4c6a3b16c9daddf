//! Blocks of one output matrix, for tasks that write some columns of some rows side by side.
#![allow(unsafe_code)]

use std::marker::PhantomData;

/// A matrix that tasks write disjoint blocks of.
pub(crate) struct Columns<'a, E> {
    start: *mut E,
    len: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [E]>,
}

// SAFETY: it is a mutable borrow of plain values, used only through `block`, whose callers promise that
// no two blocks overlap.
unsafe impl<E: Send> Sync for Columns<'_, E> {}

impl<'a, E> Columns<'a, E> {
    /// The whole of `matrix`, its rows `stride` long.
    pub(crate) fn new(matrix: &'a mut [E], stride: usize) -> Self {
        Self { start: matrix.as_mut_ptr(), len: matrix.len(), stride, matrix: PhantomData }
    }

    /// `rows` rows of `width` values, from that row and column on.
    ///
    /// # Safety
    /// No other block that is alive may share a value with this one.
    pub(crate) unsafe fn block(
        &self,
        row: usize,
        rows: usize,
        column: usize,
        width: usize,
    ) -> Block<'a, E> {
        assert!(column + width <= self.stride && (row + rows) * self.stride <= self.len);
        // SAFETY: the first value of the block, or one past the last row when it has no rows.
        let start =
            unsafe { self.start.add(row * self.stride + if rows == 0 { 0 } else { column }) };
        Block { start, rows, width, stride: self.stride, matrix: PhantomData }
    }

    /// Whole rows.
    ///
    /// # Safety
    /// As for [`Self::block`].
    pub(crate) unsafe fn rows(&self, rows: std::ops::Range<usize>) -> &'a mut [E] {
        assert!(rows.start <= rows.end && rows.end * self.stride <= self.len);
        // SAFETY: they lie inside the matrix, and the caller promises that no other borrow of them is alive.
        unsafe {
            let start = self.start.add(rows.start * self.stride);
            std::slice::from_raw_parts_mut(start, rows.len() * self.stride)
        }
    }
}

/// Some columns of some rows of a matrix.
pub(crate) struct Block<'a, E> {
    start: *mut E,
    rows: usize,
    width: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [E]>,
}

impl<'a, E> Block<'a, E> {
    /// Rows of `width` values that lie `stride` apart, the first one at the start of `values`.
    pub(crate) fn new(values: &'a mut [E], rows: usize, width: usize, stride: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * stride + width <= values.len());
        assert!(width <= stride, "rows that overlap");
        Self { start: values.as_mut_ptr(), rows, width, stride, matrix: PhantomData }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Some columns of some of its rows.
    #[inline(always)]
    pub(crate) fn part(
        &mut self,
        rows: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
    ) -> Block<'_, E> {
        assert!(rows.start < rows.end && rows.end <= self.rows);
        assert!(columns.start <= columns.end && columns.end <= self.width);
        // SAFETY: the first value of the part lies inside this block, which stays borrowed meanwhile.
        let start = unsafe { self.start.add(rows.start * self.stride + columns.start) };
        Block {
            start,
            rows: rows.len(),
            width: columns.len(),
            stride: self.stride,
            matrix: PhantomData,
        }
    }

    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [E] {
        assert!(row < self.rows);
        // SAFETY: `Columns::block` checked that all rows of the block lie inside the matrix, and no other
        // block shares them; the borrow of `self` keeps this block's own rows from being borrowed twice.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.width) }
    }
}
