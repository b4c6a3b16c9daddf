//! Linear layers in int8: weights quantized with a scale for each output, and inputs quantized token by token.
//!
//! - formula: `y = activation(scale_x * scale_w * sum((q_x - zero_x) * q_w) + bias)`
//! - weight: `q_w = round(w / scale_w)` in -127 to 127, `scale_w = max abs w / 127` of an output's row
//! - input: `q_x = round(x / scale_x) + zero_x` in 0 to 255, where `scale_x` spreads the token's values, and zero,
//!   over all of it
//! - memory traffic: a quarter of f32's for the weight; an input is read twice and written once as int8
//! - numerics: sums of integers, exact, and nothing else fused: every instruction set gives the same bits before
//!   the activation
//! - source: Dettmers et al. 2022, a scale a row of each side; Jacob et al. 2018 for the zero
//!
//! An input that is not finite makes its token's outputs NaN, as it would in f32.
#![allow(unsafe_code)]

use std::cell::RefCell;

use candle_core::{Result, Tensor};

use crate::cpu::activation::activate;
use crate::cpu::block::Block;
use crate::cpu::element::{Element, store};
use crate::cpu::gemm::{PANEL, ROWS_MAX, RowsOf, columns_at_once, rows_at_once};
use crate::cpu::scratch::sized;
use crate::cpu::simd::{Isa, Target, dispatched};
use crate::ops::activation::Activation;
use crate::ops::linear::{PackedWeight, Scales};

/// Inputs that one step of the matrix product takes: four bytes are a word.
const STEP: usize = 4;
/// Values that are compared side by side: a register, or some.
const LANES: usize = 16;

/// Packs `weight` `[out, in]`, f32, as `[panels, steps, PANEL, STEP]`: bit patterns of i8, and scales and sums with
/// zeros up to whole panels.
pub(crate) fn pack(weight: &Tensor) -> Result<PackedWeight> {
    let (outputs, inputs) = weight.dims2()?;
    let (bytes, scales) = quantize_weight(&weight.flatten_all()?.to_vec1()?, outputs, inputs);
    let count = bytes.len();
    let values = Tensor::from_vec(bytes, count, weight.device())?;
    Ok(PackedWeight { values, scales: Some(scales), blocks: None })
}

fn quantize_weight(weight: &[f32], outputs: usize, inputs: usize) -> (Vec<u8>, Scales) {
    let panels = outputs.div_ceil(PANEL);
    let steps = inputs.div_ceil(STEP);
    let mut packed = vec![0; panels * steps * PANEL * STEP];
    let mut scales = vec![0.0; panels * PANEL];
    let mut sums = vec![0; panels * PANEL];
    for (output, row) in weight.chunks_exact(inputs).enumerate() {
        let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let finite = row.iter().all(|value| value.is_finite());
        let scale = match largest / 127.0 {
            _ if !finite => f32::NAN,
            0.0 => 1.0,
            scale => scale,
        };
        let panel = &mut packed[output / PANEL * steps * PANEL * STEP..][..steps * PANEL * STEP];
        for (input, value) in row.iter().enumerate() {
            let byte = (value / scale).round().clamp(-127.0, 127.0) as i8;
            let column = output % PANEL;
            panel[(input / STEP * PANEL + column) * STEP + input % STEP] = byte.cast_unsigned();
            sums[output] += i32::from(byte);
        }
        scales[output] = scale;
    }
    (packed, Scales { scales, sums })
}

/// Some panels of a layer with their part of what goes with them.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    bytes: &'a [u8],
    scales: &'a [f32],
    sums: &'a [i32],
    bias: Option<&'a [f32]>,
    activation: Activation,
    steps: usize,
}

impl<'a> Panels<'a> {
    /// Panels of a whole weight, from `first` up to `end`, for its outputs up to `outputs`.
    pub(crate) fn new(
        bytes: &'a [u8],
        scales: &'a Scales,
        bias: Option<&'a [f32]>,
        activation: Activation,
        inputs: usize,
        [first, end, outputs]: [usize; 3],
    ) -> Self {
        let steps = inputs.div_ceil(STEP);
        let columns = first * PANEL..end * PANEL;
        Self {
            bytes: &bytes[columns.start * steps * STEP..columns.end * steps * STEP],
            scales: &scales.scales[columns.clone()],
            sums: &scales.sums[columns.clone()],
            bias: bias.map(|bias| &bias[columns.start..outputs.min(columns.end)]),
            activation,
            steps,
        }
    }
}

/// A chunk of quantized tokens, each `steps * STEP` bytes long.
#[derive(Debug, Default)]
struct Quantized {
    values: Vec<u8>,
    tokens: Vec<Token>,
}

/// How a token is quantized: a byte stands for `scale * (byte - zero)`.
#[derive(Debug, Clone, Copy)]
struct Token {
    scale: f32,
    zero: i32,
}

thread_local! {
    static QUANTIZED: RefCell<Quantized> = RefCell::default();
}

/// A chunk of `x`, `[tokens, inputs]`, through some panels: `out` has a column for each of their outputs.
pub(crate) fn layer<X: Element, Y: Element>(
    isa: Isa,
    x: &[X],
    inputs: usize,
    panels: Panels<'_>,
    out: &mut Block<'_, Y>,
) {
    QUANTIZED.with_borrow_mut(|tokens| {
        quantized(isa, x, inputs, tokens);
        multiplied(isa, tokens, panels, out);
    });
}

dispatched! {
    /// Quantizes a chunk of tokens.
    fn quantized<E>(x: &[E], inputs: usize, tokens: &mut Quantized) = quantize;
}

#[inline(always)]
fn quantize<T: Target, E: Element>(x: &[E], inputs: usize, tokens: &mut Quantized) {
    let width = inputs.next_multiple_of(STEP);
    let values = sized(&mut tokens.values, x.len() / inputs * width);
    tokens.tokens.clear();
    for (row, bytes_of_row) in x.chunks_exact(inputs).zip(values.chunks_exact_mut(width)) {
        let (low, high, poison) = extent(row);
        let scale = if high > low { (high - low) / 255.0 } else { 1.0 } + poison;
        let inverse = 1.0 / scale;
        let zero = (-low * inverse).round_ties_even();
        for (byte, value) in bytes_of_row.iter_mut().zip(row) {
            // Not fused, so that every instruction set comes to the same byte.
            *byte = to_byte(value.widen() * inverse + zero);
        }
        // The weight has zeros for what is beyond.
        bytes_of_row[inputs..].fill(0);
        tokens.tokens.push(Token { scale, zero: zero as i32 });
    }
}

/// The least and greatest of a row's values and zero; and zero, or NaN where one is not finite.
#[inline(always)]
fn extent<E: Element>(row: &[E]) -> (f32, f32, f32) {
    let mut low = [0.0_f32; LANES];
    let mut high = [0.0_f32; LANES];
    let mut poison = [0.0_f32; LANES];
    let mut chunks = row.chunks_exact(LANES);
    let mut take = |lane: usize, value: f32| {
        low[lane] = if value < low[lane] { value } else { low[lane] };
        high[lane] = if value > high[lane] { value } else { high[lane] };
        poison[lane] += value * 0.0;
    };
    for chunk in &mut chunks {
        for (lane, value) in chunk.iter().enumerate() {
            take(lane, value.widen());
        }
    }
    for (lane, value) in chunks.remainder().iter().enumerate() {
        take(lane, value.widen());
    }
    let mut least = 0.0;
    let mut greatest = 0.0;
    let mut nan = 0.0;
    for lane in 0..LANES {
        least = if low[lane] < least { low[lane] } else { least };
        greatest = if high[lane] > greatest { high[lane] } else { greatest };
        nan += poison[lane];
    }
    (least, greatest, nan)
}

/// To the nearest integer from 0 to 255, by what adding 2^23 leaves of the fraction; without a branch, so that loops
/// vectorise. NaN is 0.
#[inline(always)]
fn to_byte(value: f32) -> u8 {
    const ROUND: f32 = 8_388_608.0;
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < 255.0 { value } else { 255.0 };
    (value + ROUND).to_bits() as u8
}

/// On a processor that multiplies quads of bytes with an instruction of its own, by that.
fn multiplied<E: Element>(
    isa: Isa,
    tokens: &Quantized,
    panels: Panels<'_>,
    out: &mut Block<'_, E>,
) {
    #[cfg(target_arch = "x86_64")]
    if isa.multiplies_quads() {
        // SAFETY: an `Isa` says so only where the features were detected.
        unsafe { multiplied_by_vnni(tokens, panels, out) };
        return;
    }
    multiplied_by_parts(isa, tokens, panels, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512vnni,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
fn multiplied_by_vnni<E: Element>(tokens: &Quantized, panels: Panels<'_>, out: &mut Block<'_, E>) {
    pass::<crate::cpu::simd::Avx512Vnni, E>(tokens, panels, out);
}

dispatched! {
    /// A chunk of tokens through some panels.
    fn multiplied_by_parts<E>(tokens: &Quantized, panels: Panels<'_>, out: &mut Block<'_, E>) = pass;
}

#[inline(always)]
fn pass<T: Target, E: Element>(tokens: &Quantized, panels: Panels<'_>, out: &mut Block<'_, E>) {
    let depth = panels.steps * STEP;
    let rows = RowsOf::new(&tokens.values, depth, out.rows(), depth);
    let columns = columns_at_once::<T>();
    let mut sums = [0; PANEL * ROWS_MAX];
    let mut values = [0.0; PANEL * ROWS_MAX];
    for column in (0..out.width()).step_by(columns) {
        let panel = &panels.bytes[column / PANEL * depth * PANEL..][..depth * PANEL];
        let width = columns.min(out.width() - column);
        let mut bias = [0.0; PANEL];
        if let Some(given) = panels.bias {
            bias[..width].copy_from_slice(&given[column..column + width]);
        }
        let scales = &panels.scales[column..column + columns];
        let byte_sums = &panels.sums[column..column + columns];
        let mut first = 0;
        while first < rows.count() {
            let count = rows_at_once::<T>(rows.count() - first);
            let sums = &mut sums[..count * columns];
            multiply::<T>(rows.part(first, count), panel, column % PANEL, sums);
            let values = &mut values[..count * columns];
            let quantization = &tokens.tokens[first..first + count];
            for ((values, sums), token) in
                values.chunks_exact_mut(columns).zip(sums.chunks_exact(columns)).zip(quantization)
            {
                for at in 0..columns_at_once::<T>() {
                    let sum = (sums[at] - token.zero * byte_sums[at]) as f32;
                    values[at] = sum * (token.scale * scales[at]) + bias[at];
                }
            }
            activate::<T, E>(panels.activation, values);
            let mut out = out.part(first..first + count, column..column + width);
            for (row, values) in values.chunks_exact(columns).enumerate() {
                if width == columns {
                    store(values, &mut out.row(row)[..columns_at_once::<T>()]);
                } else {
                    store(&values[..width], out.row(row));
                }
            }
            first += count;
        }
    }
}

/// Sums of a few rows with [`columns_at_once`] columns of a panel from `column` on.
#[inline(always)]
fn multiply<T: Target>(rows: RowsOf<'_, u8>, panel: &[u8], column: usize, sums: &mut [i32]) {
    match rows.count() {
        0 => {}
        1 => multiply_rows::<T, 1>(rows, panel, column, sums),
        2 => multiply_rows::<T, 2>(rows, panel, column, sums),
        3 | 4 => multiply_rows::<T, 4>(rows, panel, column, sums),
        5 | 6 => multiply_rows::<T, 6>(rows, panel, column, sums),
        7 | 8 => multiply_rows::<T, 8>(rows, panel, column, sums),
        _ => multiply_rows::<T, ROWS_MAX>(rows, panel, column, sums),
    }
}

/// Registers that a row's sums take.
const REGISTERS: usize = 2;
/// Steps ahead at which a panel's lines are asked for, as in the matrix product of floating-point numbers.
const AHEAD: usize = 12;

#[inline(always)]
#[allow(clippy::cast_ptr_alignment)] // a target's words may lie anywhere
fn multiply_rows<T: Target, const ROWS: usize>(
    rows: RowsOf<'_, u8>,
    panel: &[u8],
    column: usize,
    sums: &mut [i32],
) {
    let columns = columns_at_once::<T>();
    let steps = rows.depth() / STEP;
    assert!(rows.depth().is_multiple_of(STEP) && steps * PANEL * STEP <= panel.len());
    assert!(column + columns <= PANEL && (1..=ROWS).contains(&rows.count()));
    assert!(sums.len() == rows.count() * columns);
    let mut pointers = [panel.as_ptr(); ROWS];
    for (index, pointer) in pointers.iter_mut().enumerate() {
        // Past the last row it is repeated.
        *pointer = rows.row(index.min(rows.count() - 1)).as_ptr();
    }
    // SAFETY: rows are `steps` words long, the panel holds `steps` lines of `PANEL` words, of which the columns asked
    // for exist, and there is room for the sums of all rows (asserted above); the set is there because only code
    // compiled for it is generic over it.
    unsafe {
        let mut registers = [[T::splat_word(0); REGISTERS]; ROWS];
        let mut line = panel.as_ptr().add(column * STEP).cast::<u32>();
        for step in 0..steps {
            let mut weights = [T::load_words(line); REGISTERS];
            for (half, weight) in weights.iter_mut().enumerate().skip(1) {
                *weight = T::load_words(line.add(half * T::WIDTH));
            }
            for half in 0..REGISTERS {
                T::prefetch(line.wrapping_add(AHEAD * PANEL + half * T::WIDTH).cast());
            }
            for (registers, row) in registers.iter_mut().zip(pointers) {
                let factor = T::splat_word(row.cast::<u32>().add(step).read_unaligned());
                for (register, weight) in registers.iter_mut().zip(weights) {
                    *register = T::fused_quads(factor, weight, *register);
                }
            }
            line = line.wrapping_add(PANEL);
        }
        for (registers, sums) in registers.iter().zip(sums.chunks_exact_mut(columns)) {
            for (half, register) in registers.iter().enumerate() {
                T::store_words(*register, sums.as_mut_ptr().add(half * T::WIDTH).cast());
            }
        }
    }
}
