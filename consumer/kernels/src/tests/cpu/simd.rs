//! Instruction sets: a register's worth of words, transposed by each.

use crate::cpu::element::Element;
use crate::cpu::simd::{Isa, Target, dispatched};

dispatched! {
    fn transpose_square<E>(from: &[u32], to: &mut [u32], width: &mut usize) = transpose;
}
#[inline(always)]
#[allow(unsafe_code)]
fn transpose<T: Target, E: Element>(from: &[u32], to: &mut [u32], width: &mut usize) {
    *width = T::WIDTH;
    assert!(from.len() >= 20 * T::WIDTH && to.len() >= 24 * T::WIDTH);
    // SAFETY: rows 20 and 24 words apart hold `WIDTH` words each, as was asserted; the set is this function's.
    unsafe { T::transpose(|row| from.as_ptr().add(row * 20), to.as_mut_ptr(), 24) }
}

#[test]
fn rows_become_columns_and_nothing_else_is_touched() {
    let from: Vec<u32> = (0..20 * 16).collect();
    Isa::each(|| {
        let mut to = vec![u32::MAX; 24 * 16];
        let mut width = 0;
        transpose_square::<f32>(Isa::best(), &from, &mut to, &mut width);
        for (index, word) in to.iter().enumerate() {
            let row = index / 24;
            let column = index % 24;
            let inside = row < width && column < width;
            assert_eq!(*word, if inside { from[column * 20 + row] } else { u32::MAX });
        }
    });
}
