//! Each operation at all-MiniLM-L6-v2's shapes on one thread, beside what the machine can do at most.
//!
//! `cargo run --release -p forebay-kernels --example operations` measures the limits first: products in registers
//! alone, in f32 and where there is the instruction in bf16, and how fast memory is added up. Each figure is the best
//! of many short runs, because other work on the machine can only slow a run down. Prints a table, a line of JSON,
//! and with a file's name as argument a roofline plot as SVG there.
#![allow(clippy::print_stdout)]

#[path = "operations/limits.rs"]
mod limits;
#[path = "operations/plot.rs"]
mod plot;

use std::error::Error;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use forebay_kernels::{
    Activation, AddLayerNorm, CuSeqlens, EmbedLayerNorm, Finish, KernelError, LayerNorm, Linear,
    PoolNormalize, Pooling, VarlenAttention, alone, prefers_bf16,
};

use crate::limits::Limits;
use crate::plot::Point;

/// What a thread takes through all layers at once.
const TOKENS: usize = 256;
const HIDDEN: usize = 384;
const INNER: usize = 1_536;
const HEADS: usize = 12;
const RUNS: usize = 300;

fn main() -> Result<(), Box<dyn Error>> {
    let limits = Limits::measure();
    println!(
        "limits on one thread: {:.0} GFLOP/s f32, {:.0} GFLOP/s bf16, {:.1} GB/s from memory",
        limits.f32_gflops, limits.bf16_gflops, limits.memory_gb_s
    );
    println!("bf16 is {}the faster type here", if prefers_bf16() { "" } else { "not " });
    println!("{:<34} {:>10} {:>8} {:>8} {:>12}", "", "ns/token", "GFLOP/s", "GB/s", "of its limit");
    let mut points = Vec::new();
    for dtype in [DType::F32, DType::BF16] {
        alone(|| measure(dtype, &limits, &mut points))?;
    }
    println!("{}", plot::json(&limits, &points));
    if let Some(file) = std::env::args().nth(1) {
        std::fs::write(file, plot::svg(&limits, &points))?;
    }
    Ok(())
}

fn measure(dtype: DType, limits: &Limits, points: &mut Vec<Point>) -> Result<(), KernelError> {
    let peak = if dtype == DType::BF16 {
        limits.bf16_gflops.max(limits.f32_gflops)
    } else {
        limits.f32_gflops
    };
    let size = dtype.size_in_bytes();
    let mut record = |name: String, flops: usize, bytes: usize, tokens: usize, seconds: f64| {
        let point = Point::new(
            format!("{name}, {dtype:?}"),
            flops,
            bytes,
            seconds,
            peak,
            limits.memory_gb_s,
        );
        println!(
            "{:<34} {:>10.0} {:>8.0} {:>8.1} {:>10.0} %",
            point.name,
            seconds / tokens as f64 * 1e9,
            point.gflops,
            point.gb_s,
            100.0 * point.share
        );
        points.push(point);
    };
    for (inputs, outputs, activation) in [
        (HIDDEN, 3 * HIDDEN, Activation::None),
        (HIDDEN, HIDDEN, Activation::None),
        (HIDDEN, INNER, Activation::Gelu),
        (INNER, HIDDEN, Activation::None),
    ] {
        let (weight, bias) =
            (noise(&[outputs, inputs], DType::F32)?, noise(&[outputs], DType::F32)?);
        let layer = Linear::new(&weight, Some(&bias), activation, dtype)?;
        let (x, out) = (noise(&[TOKENS, inputs], dtype)?, noise(&[TOKENS, outputs], dtype)?);
        let seconds = best(|| layer.forward_into(&x, &out))?;
        let bytes = (TOKENS * (inputs + outputs) + inputs * outputs) * size;
        let name = format!("linear {inputs} to {outputs} {activation:?}");
        record(name, 2 * TOKENS * inputs * outputs, bytes, TOKENS, seconds);
    }
    for length in [16, 32, 128, 256] {
        let cu_seqlens: CuSeqlens = std::iter::repeat_n(length, TOKENS / length).collect();
        let (qkv, out) = (noise(&[TOKENS, 3 * HIDDEN], dtype)?, noise(&[TOKENS, HIDDEN], dtype)?);
        let attention = VarlenAttention::new(&cu_seqlens, HEADS);
        let seconds = best(|| attention.forward_into(&qkv, &out))?;
        let flops = 4 * TOKENS * length * HIDDEN;
        record(
            format!("attention over {length}"),
            flops,
            TOKENS * 4 * HIDDEN * size,
            TOKENS,
            seconds,
        );
    }
    let norm = LayerNorm {
        scale: noise(&[HIDDEN], DType::F32)?,
        shift: noise(&[HIDDEN], DType::F32)?,
        eps: 1e-12,
    };
    let state = || noise(&[TOKENS, HIDDEN], dtype);
    let (x, residual, out) = (state()?, state()?, state()?);
    let add_norm = AddLayerNorm { bias: Some(noise(&[HIDDEN], DType::F32)?), norm: norm.clone() };
    let seconds = best(|| add_norm.forward_into(&x, &residual, &out))?;
    // Two sums, the mean, the variance, and scale and shift.
    record(
        "add_layer_norm".to_owned(),
        9 * TOKENS * HIDDEN,
        3 * TOKENS * HIDDEN * size,
        TOKENS,
        seconds,
    );
    let cu_seqlens: CuSeqlens = std::iter::repeat_n(64, TOKENS / 64).collect();
    let words = noise(&[4_096, HIDDEN], dtype)?;
    let token_ids: Vec<u32> = (0..TOKENS as u32).map(|token| token * 37 % 4_096).collect();
    let embed = EmbedLayerNorm {
        token_ids: &token_ids,
        type_ids: None,
        cu_seqlens: &cu_seqlens,
        first_position: 0,
        norm: &norm,
    };
    let seconds = best(|| embed.forward_into(&words, Some(&words), Some(&words), &out))?;
    record(
        "embed_layer_norm".to_owned(),
        9 * TOKENS * HIDDEN,
        4 * TOKENS * HIDDEN * size,
        TOKENS,
        seconds,
    );
    let finishes = [Finish::default(); TOKENS / 64];
    let pool =
        PoolNormalize { cu_seqlens: &cu_seqlens, pooling: Pooling::Mean, finishes: &finishes };
    let pooled = noise(&[TOKENS / 64, HIDDEN], DType::F32)?;
    let seconds = best(|| pool.forward_into(&x, &pooled))?;
    record("pool_normalize".to_owned(), TOKENS * HIDDEN, TOKENS * HIDDEN * size, TOKENS, seconds);
    Ok(())
}

fn noise(shape: &[usize], dtype: DType) -> candle_core::Result<Tensor> {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu)?.to_dtype(dtype)
}

/// The shortest of many runs, in seconds.
fn best(run: impl Fn() -> Result<(), KernelError>) -> Result<f64, KernelError> {
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let started = Instant::now();
        run()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best)
}
