//! The product that attention and linear layers are made of: a few rows by a few columns, summed in registers.
#![allow(unsafe_code)]

use crate::simd::Target;

/// The most columns of a product: two of the widest registers.
pub(crate) const COLUMNS_MAX: usize = 32;

/// A product's sums; of each row the first so many as were asked for.
pub(crate) type Sums<const ROWS: usize> = [[f32; COLUMNS_MAX]; ROWS];

/// `ROWS` rows of `depth` values by the first `REGISTERS * T::WIDTH` columns of a matrix of `depth` rows that
/// lie `stride` apart. No sum leaves its register before it is whole.
#[inline(always)]
pub(crate) fn multiply<T: Target, const ROWS: usize, const REGISTERS: usize>(
    mut rows: [&[f32]; ROWS],
    matrix: &[f32],
    stride: usize,
    depth: usize,
    sums: &mut Sums<ROWS>,
) {
    let columns = REGISTERS * T::WIDTH;
    assert!(
        columns <= COLUMNS_MAX && (depth == 0 || (depth - 1) * stride + columns <= matrix.len())
    );
    for row in &mut rows {
        *row = &row[..depth];
    }
    // SAFETY: the last of the matrix's rows ends inside it, rows are `depth` long, and sums hold `columns`
    // (asserted above); the set is there because only code compiled for it is generic over it.
    unsafe {
        let mut registers = [[T::splat(0.0); REGISTERS]; ROWS];
        let mut line = matrix.as_ptr();
        for index in 0..depth {
            let mut values = [T::splat(0.0); REGISTERS];
            for (place, value) in values.iter_mut().enumerate() {
                *value = T::load(line.add(place * T::WIDTH));
            }
            for (registers, row) in registers.iter_mut().zip(&rows) {
                let factor = T::splat(*row.get_unchecked(index));
                for (register, value) in registers.iter_mut().zip(values) {
                    *register = T::fused(factor, value, *register);
                }
            }
            line = line.wrapping_add(stride);
        }
        for (registers, sums) in registers.iter().zip(sums) {
            for (place, register) in registers.iter().enumerate() {
                T::store(*register, sums.as_mut_ptr().add(place * T::WIDTH));
            }
        }
    }
}

/// The same by a single column, for widths that registers do not divide.
#[inline(always)]
pub(crate) fn multiply_column<T: Target, const ROWS: usize>(
    rows: [&[f32]; ROWS],
    matrix: &[f32],
    stride: usize,
    depth: usize,
    sums: &mut Sums<ROWS>,
) {
    for (row, sums) in rows.iter().zip(sums) {
        let mut sum = 0.0;
        for (value, factor) in row[..depth].iter().zip(matrix.iter().step_by(stride)) {
            sum = T::mul_add(*value, *factor, sum);
        }
        sums[0] = sum;
    }
}
