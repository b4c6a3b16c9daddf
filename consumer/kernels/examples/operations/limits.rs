//! The limits of a machine on one thread: multiplications that stay in registers, and reading memory.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::time::Instant;

/// The limits of one thread.
pub struct Limits {
    /// Additions and multiplications of f32, fused.
    pub f32_gflops: f64,
    /// Additions and multiplications of bf16 by the instruction for pairs; 0 where there is none.
    pub bf16_gflops: f64,
    /// Reading an array far larger than any cache.
    pub memory_gb_s: f64,
}

/// Tries of each; the best one counts.
const TRIES: usize = 12;
/// Steps of a try: some milliseconds.
const STEPS: usize = 200_000;
/// Sums that are kept side by side: more than latency times throughput of any processor known.
const SUMS: usize = 24;

impl Limits {
    pub fn measure() -> Self {
        let best = |run: &dyn Fn() -> f64| (0..TRIES).map(|_| run()).fold(0.0, f64::max);
        Self {
            f32_gflops: best(&f32_multiplications),
            bf16_gflops: best(&bf16_multiplications),
            memory_gb_s: best(&memory),
        }
    }
}

/// Bytes a second of adding up 256 MiB, in GB.
fn memory() -> f64 {
    let values = vec![1_u64; 32 << 20];
    let started = Instant::now();
    let mut sums = [0_u64; 8];
    for chunk in black_box(&values).chunks_exact(8) {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*value);
        }
    }
    black_box(sums);
    size_of_val(values.as_slice()) as f64 / started.elapsed().as_secs_f64() / 1e9
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm256_fmadd_ps, _mm256_set1_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps,
        _mm512_set1_epi32, _mm512_set1_ps,
    };
    use std::hint::black_box;
    use std::mem::transmute;

    use super::{STEPS, SUMS};

    #[target_feature(enable = "avx512f")]
    pub fn avx512() {
        let a = _mm512_set1_ps(black_box(0.5));
        let b = _mm512_set1_ps(black_box(0.25));
        let mut sums = [_mm512_set1_ps(0.0); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2() {
        let a = _mm256_set1_ps(black_box(0.5));
        let b = _mm256_set1_ps(black_box(0.25));
        let mut sums = [_mm256_set1_ps(0.0); SUMS / 2];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512bf16,avx512f")]
    pub fn bf16() {
        // Pairs of ones.
        let ones = _mm512_set1_epi32(black_box(0x3F80_3F80));
        // SAFETY: both types are 512 bits of any value.
        let ones = unsafe { transmute::<__m512i, __m512bh>(ones) };
        let mut sums = [_mm512_set1_ps(0.0); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, ones, ones);
            }
        }
        black_box(sums);
    }
}

#[cfg(target_arch = "x86_64")]
fn f32_multiplications() -> f64 {
    let started = Instant::now();
    let flops = if is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature was detected.
        unsafe { x86::avx512() };
        STEPS * SUMS * 32
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features were detected.
        unsafe { x86::avx2() };
        STEPS * SUMS / 2 * 16
    } else {
        return scalar_multiplications();
    };
    flops as f64 / started.elapsed().as_secs_f64() / 1e9
}

#[cfg(target_arch = "x86_64")]
fn bf16_multiplications() -> f64 {
    if !is_x86_feature_detected!("avx512bf16") {
        return 0.0;
    }
    let started = Instant::now();
    // SAFETY: the feature was detected.
    unsafe { x86::bf16() };
    (STEPS * SUMS * 64) as f64 / started.elapsed().as_secs_f64() / 1e9
}

#[cfg(not(target_arch = "x86_64"))]
fn f32_multiplications() -> f64 {
    scalar_multiplications()
}

#[cfg(not(target_arch = "x86_64"))]
fn bf16_multiplications() -> f64 {
    0.0
}

/// Multiplications as the compiler vectorises a plain loop.
fn scalar_multiplications() -> f64 {
    let a = black_box(0.5_f32);
    let b = black_box(0.25_f32);
    let mut sums = [0.0_f32; 4 * SUMS];
    let started = Instant::now();
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum += a * b;
        }
    }
    black_box(sums);
    (STEPS * sums.len() * 2) as f64 / started.elapsed().as_secs_f64() / 1e9
}
