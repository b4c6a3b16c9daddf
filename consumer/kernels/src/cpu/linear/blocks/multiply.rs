//! A few rows by a panel of blocks: integers within a block, then f32 from block to block, all in registers.
#![allow(unsafe_code)]

use super::format::QUAD;
use super::quantize::Inputs;
use crate::cpu::element::Element;
use crate::cpu::gemm::PANEL;
use crate::cpu::simd::{Isa, Quads, dispatched};
use crate::ops::blocks::BLOCK;
use crate::ops::linear::BlockFormat;

/// The most rows that are multiplied at once: of each, two registers of integers and two of f32.
pub(super) const ROWS_MAX: usize = 6;
/// Registers that a row's sums take.
const REGISTERS: usize = 2;
/// Bytes of a panel's line of quants: a quad of each output, or two quads in halves of bytes.
const LINE: usize = PANEL * QUAD;
/// Bytes ahead at which a panel is prefetched where rows meet it first: it may come from memory.
pub(super) const AHEAD: usize = 2_048;

/// A few quantized rows, end to end, and the panel that they are multiplied with.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) rows: &'a [Inputs],
    pub(super) count: usize,
    pub(super) format: BlockFormat,
    pub(super) panel: &'a [u8],
    /// The values that sums start from.
    pub(super) start: &'a [f32; PANEL],
    /// Prefetch hint: what lies so many bytes after each line of the panel is needed next. May be out of bounds.
    pub(super) ahead: usize,
}

/// Writes the sums of at most [`ROWS_MAX`] rows, [`PANEL`] each. Each sum is in the order of the blocks, whatever the
/// rows.
pub(super) fn multiply(isa: Isa, task: Task<'_>, sums: &mut [f32]) {
    // On a processor that multiplies quads of bytes with an instruction of its own, by that.
    #[cfg(target_arch = "x86_64")]
    if isa.multiplies_quads() {
        // SAFETY: an `Isa` says so only where the features were detected.
        unsafe { multiplied_by_vnni(task, sums) };
        return;
    }
    multiplied_by_parts::<f32>(isa, task, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512vnni,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
fn multiplied_by_vnni(task: Task<'_>, sums: &mut [f32]) {
    by_format::<crate::cpu::simd::Avx512Vnni, f32>(task, sums);
}

dispatched! {
    fn multiplied_by_parts<E>(task: Task<'_>, sums: &mut [f32]) = by_format;
}

/// A format as the loops are compiled for it.
trait Format {
    const FORMAT: BlockFormat;
    /// Factors of all columns of a register.
    unsafe fn load<T: Quads>(from: *const u8) -> T::Register;
}

/// Factors in f16 and factors in f32.
struct Narrow<const BITS: usize, const MINIMA: bool>;
struct Wide<const BITS: usize, const MINIMA: bool, const HALVES: bool>;

impl<const BITS: usize, const MINIMA: bool> Format for Narrow<BITS, MINIMA> {
    const FORMAT: BlockFormat = format(BITS, [false, false, MINIMA]);

    #[inline(always)]
    unsafe fn load<T: Quads>(from: *const u8) -> T::Register {
        // SAFETY: the caller's promise.
        unsafe { T::load_f16(from.cast()) }
    }
}

impl<const BITS: usize, const MINIMA: bool, const HALVES: bool> Format
    for Wide<BITS, MINIMA, HALVES>
{
    const FORMAT: BlockFormat = format(BITS, [true, HALVES, MINIMA]);

    #[inline(always)]
    unsafe fn load<T: Quads>(from: *const u8) -> T::Register {
        // SAFETY: the caller's promise.
        unsafe { T::load(from.cast()) }
    }
}

/// Quants of a table, factors in f16 or in f32.
struct Table<const WIDE: bool>;

impl<const WIDE: bool> Format for Table<WIDE> {
    const FORMAT: BlockFormat = BlockFormat { table: true, ..format(4, [WIDE, false, false]) };

    #[inline(always)]
    unsafe fn load<T: Quads>(from: *const u8) -> T::Register {
        // SAFETY: the caller's promise.
        unsafe { if WIDE { T::load(from.cast()) } else { T::load_f16(from.cast()) } }
    }
}

/// A format whose quants are numbers themselves.
const fn format(bits: usize, [wide, halves, minima]: [bool; 3]) -> BlockFormat {
    BlockFormat { bits, wide, halves, minima, table: false, skipped: 0 }
}

#[inline(always)]
fn by_format<T: Quads, E: Element>(task: Task<'_>, sums: &mut [f32]) {
    let BlockFormat { bits, wide, halves, minima, table, .. } = task.format;
    if table {
        if wide {
            by_rows::<T, Table<true>>(task, sums);
        } else {
            by_rows::<T, Table<false>>(task, sums);
        }
        return;
    }
    match (bits, wide, halves, minima) {
        (4, false, false, true) => by_rows::<T, Narrow<4, true>>(task, sums),
        (4, true, false, true) => by_rows::<T, Wide<4, true, false>>(task, sums),
        (8, false, false, false) => by_rows::<T, Narrow<8, false>>(task, sums),
        (8, true, false, false) => by_rows::<T, Wide<8, false, false>>(task, sums),
        (8, true, false, true) => by_rows::<T, Wide<8, true, false>>(task, sums),
        (8, true, true, false) => by_rows::<T, Wide<8, false, true>>(task, sums),
        (8, true, true, true) => by_rows::<T, Wide<8, true, true>>(task, sums),
        format => unreachable!("no weight is packed as {format:?}"),
    }
}

#[inline(always)]
fn by_rows<T: Quads, F: Format>(task: Task<'_>, sums: &mut [f32]) {
    assert!(task.count <= ROWS_MAX && sums.len() == task.count * PANEL);
    let depth = task.rows.len() / task.count.max(1);
    // Sums of six rows fill 32 registers with their operands, sums of three fill 16.
    let most = if T::MANY { ROWS_MAX } else { ROWS_MAX / 2 };
    for column in (0..PANEL).step_by(REGISTERS * T::WIDTH) {
        let mut first = 0;
        while first < task.count {
            let count = most.min(task.count - first);
            let rows = &task.rows[first * depth..(first + count) * depth];
            let sums = &mut sums[first * PANEL..(first + count) * PANEL];
            let loops = Loops { rows, depth, column, task };
            match count {
                1 => loops.multiply::<T, F, 1>(sums),
                2 => loops.multiply::<T, F, 2>(sums),
                3 => loops.multiply::<T, F, 3>(sums),
                4 if T::MANY => loops.multiply::<T, F, 4>(sums),
                5 if T::MANY => loops.multiply::<T, F, 5>(sums),
                _ if T::MANY => loops.multiply::<T, F, ROWS_MAX>(sums),
                _ => {}
            }
            first += count;
        }
    }
}

/// Rows of `depth` blocks by the columns of a panel from `column` on that registers hold.
#[derive(Clone, Copy)]
struct Loops<'a> {
    rows: &'a [Inputs],
    depth: usize,
    column: usize,
    task: Task<'a>,
}

/// A few rows' sums.
type Sums<V, const ROWS: usize> = [[V; REGISTERS]; ROWS];

impl Loops<'_> {
    #[inline(always)]
    #[allow(clippy::cast_ptr_alignment)] // a target's words and numbers may lie anywhere
    fn multiply<T: Quads, F: Format, const ROWS: usize>(self, sums: &mut [f32]) {
        let Self { rows, depth, column, task: Task { panel, start, ahead, .. } } = self;
        assert!(rows.len() == ROWS * depth && sums.len() == ROWS * PANEL);
        assert!(panel.len() >= depth * F::FORMAT.bytes());
        assert!(column + REGISTERS * T::WIDTH <= PANEL);
        // SAFETY: there are `depth` inputs of every row and as many blocks of the panel, each with all its lines of
        // `PANEL` columns, of which the columns asked for exist, and there is room for the sums of all rows (asserted
        // above); the set is there because only code compiled for it is generic over it.
        unsafe {
            let mut rows_at = [rows.as_ptr(); ROWS];
            for (index, at) in rows_at.iter_mut().enumerate() {
                *at = rows.as_ptr().add(index * depth);
            }
            let mut first = [T::splat(0.0); REGISTERS];
            for (index, register) in first.iter_mut().enumerate() {
                *register = T::load(start.as_ptr().add(column + index * T::WIDTH));
            }
            let mut totals = [first; ROWS];
            let mut block = panel.as_ptr();
            for _ in 0..depth {
                add_block::<T, F, ROWS>(rows_at, block, [column, ahead], &mut totals);
                block = block.add(F::FORMAT.bytes());
                for at in &mut rows_at {
                    *at = at.add(1);
                }
            }
            for (row, totals) in totals.iter().enumerate() {
                for (index, total) in totals.iter().enumerate() {
                    let at = row * PANEL + column + index * T::WIDTH;
                    T::store(*total, sums.as_mut_ptr().add(at));
                }
            }
        }
    }
}

/// Adds what a block of the panel gives.
///
/// # Safety
/// Pointers are to a row's inputs each, and to the panel's blocks along them.
#[inline(always)]
#[allow(clippy::cast_ptr_alignment)] // as above
unsafe fn add_block<T: Quads, F: Format, const ROWS: usize>(
    rows: [*const Inputs; ROWS],
    block: *const u8,
    [column, ahead]: [usize; 2],
    totals: &mut Sums<T::Register, ROWS>,
) {
    let format = F::FORMAT;
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[T::splat_word(0); REGISTERS]; ROWS];
        if format.bits == 8 || format.table {
            start_sums::<T, ROWS>(rows, if format.halves { Some(0) } else { None }, &mut sums);
        }
        for index in 0..format.quant_bytes() / LINE {
            let line = block.add(index * LINE + column * QUAD);
            let mut words = [T::load_words(line.cast()); REGISTERS];
            for (register, words) in words.iter_mut().enumerate() {
                let line = line.add(register * T::WIDTH * QUAD);
                *words = T::load_words(line.cast());
                T::prefetch(line.wrapping_add(ahead));
            }
            if format.bits == 4 {
                let mut halves = words;
                for (half, words) in halves.iter_mut().zip(words) {
                    *half = T::lower_halves(words);
                    if format.table {
                        *half = T::fp4_values(*half);
                    }
                }
                add_quad::<T, ROWS>(rows, 2 * index, halves, &mut sums);
                for (half, words) in halves.iter_mut().zip(words) {
                    *half = T::upper_halves(words);
                    if format.table {
                        *half = T::fp4_values(*half);
                    }
                }
                add_quad::<T, ROWS>(rows, 2 * index + 1, halves, &mut sums);
            } else {
                add_quad::<T, ROWS>(rows, index, words, &mut sums);
            }
            if format.halves && index + 1 == BLOCK / QUAD / 2 {
                let scale = factors::<T, F>(block, 0, column);
                add_sums::<T, ROWS>(rows, scale, sums, totals);
                start_sums::<T, ROWS>(rows, Some(1), &mut sums);
            }
        }
        let scale = factors::<T, F>(block, format.scales() - 1, column);
        add_sums::<T, ROWS>(rows, scale, sums, totals);
        if format.minima {
            let minimum = factors::<T, F>(block, format.scales(), column);
            for (totals, row) in totals.iter_mut().zip(rows) {
                let sum = T::splat((*row).sum);
                for (total, minimum) in totals.iter_mut().zip(minimum) {
                    *total = T::fused(minimum, sum, *total);
                }
            }
        }
    }
}

/// Sums begin at what takes back the 128 of every byte, of a half or of the whole.
#[inline(always)]
unsafe fn start_sums<T: Quads, const ROWS: usize>(
    rows: [*const Inputs; ROWS],
    half: Option<usize>,
    sums: &mut Sums<T::Words, ROWS>,
) {
    for (sums, row) in sums.iter_mut().zip(rows) {
        // SAFETY: the caller's promise.
        unsafe {
            let offset = half.map_or((*row).offset, |half| (*row).offsets[half]);
            *sums = [T::splat_word(offset.cast_unsigned()); REGISTERS];
        }
    }
}

/// Adds the dot products of every row's quad with the columns' quads.
#[inline(always)]
#[allow(clippy::cast_ptr_alignment)] // a quad may lie anywhere
unsafe fn add_quad<T: Quads, const ROWS: usize>(
    rows: [*const Inputs; ROWS],
    quad: usize,
    words: [T::Words; REGISTERS],
    sums: &mut Sums<T::Words, ROWS>,
) {
    for (sums, row) in sums.iter_mut().zip(rows) {
        // SAFETY: the caller's promise; quants are the first field.
        unsafe {
            let factor = T::splat_word(row.cast::<u32>().add(quad).read_unaligned());
            for (sum, words) in sums.iter_mut().zip(words) {
                *sum = T::fused_quads(words, factor, *sum);
            }
        }
    }
}

/// Adds sums of integers, scaled on both sides.
#[inline(always)]
unsafe fn add_sums<T: Quads, const ROWS: usize>(
    rows: [*const Inputs; ROWS],
    scale: [T::Register; REGISTERS],
    sums: Sums<T::Words, ROWS>,
    totals: &mut Sums<T::Register, ROWS>,
) {
    for ((totals, sums), row) in totals.iter_mut().zip(sums).zip(rows) {
        // SAFETY: the caller's promise.
        unsafe {
            let of_row = T::splat((*row).scale);
            for ((total, sum), scale) in totals.iter_mut().zip(sums).zip(scale) {
                *total = T::fused(T::floats(sum), T::times(scale, of_row), *total);
            }
        }
    }
}

/// A line of factors: scales, or minima.
#[inline(always)]
unsafe fn factors<T: Quads, F: Format>(
    block: *const u8,
    line: usize,
    column: usize,
) -> [T::Register; REGISTERS] {
    let size = F::FORMAT.line_bytes() / PANEL;
    // SAFETY: the caller's promise.
    unsafe {
        let at = block.add(F::FORMAT.quant_bytes() + line * F::FORMAT.line_bytes() + column * size);
        let mut factors = [T::splat(0.0); REGISTERS];
        for (register, factor) in factors.iter_mut().enumerate() {
            *factor = F::load::<T>(at.add(register * T::WIDTH * size));
        }
        factors
    }
}
