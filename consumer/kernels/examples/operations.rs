//! Each operation at all-MiniLM-L6-v2's shapes on one thread, beside what the machine can do at most.
//!
//! `cargo run --release -p forebay-kernels --example operations` measures the limits first: multiplications in
//! registers alone, in f32 and where there is the instruction in bf16, and how fast memory is added up. Each figure is
//! the best of many short runs, because other work on the machine can only slow a run down. Prints a table, a line of
//! JSON, and with a file's name as argument a roofline plot as SVG there.
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

/// Tokens that a thread takes through all layers at once.
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

/// The operations of one number type, and where their figures go.
struct Bench<'a> {
    dtype: DType,
    peak_gflops: f64,
    memory_gb_s: f64,
    points: &'a mut Vec<Point>,
}

fn measure(dtype: DType, limits: &Limits, points: &mut Vec<Point>) -> Result<(), KernelError> {
    // Where bf16 has no fast instruction it is widened and multiplied in f32.
    let half = limits.bf16_gflops.max(limits.f32_gflops);
    let peak_gflops = if dtype == DType::BF16 { half } else { limits.f32_gflops };
    let mut bench = Bench { dtype, peak_gflops, memory_gb_s: limits.memory_gb_s, points };
    bench.linear()?;
    bench.attention()?;
    bench.norms()
}

impl Bench<'_> {
    /// Of one pass over all tokens: additions and multiplications, and values that have to move.
    fn record(&mut self, name: &str, flops: usize, values: usize, seconds: f64) {
        let name = format!("{name}, {:?}", self.dtype);
        let bytes = values * self.dtype.size_in_bytes();
        let point = Point::new(name, flops, bytes, seconds, self.peak_gflops, self.memory_gb_s);
        println!(
            "{:<34} {:>10.0} {:>8.0} {:>8.1} {:>10.0} %",
            point.name,
            seconds / TOKENS as f64 * 1e9,
            point.gflops,
            point.gb_s,
            100.0 * point.share
        );
        self.points.push(point);
    }

    fn state(&self, rows: usize, width: usize) -> candle_core::Result<Tensor> {
        noise(&[rows, width], self.dtype)
    }

    fn linear(&mut self) -> Result<(), KernelError> {
        for (inputs, outputs, activation) in [
            (HIDDEN, 3 * HIDDEN, Activation::None),
            (HIDDEN, HIDDEN, Activation::None),
            (HIDDEN, INNER, Activation::Gelu),
            (INNER, HIDDEN, Activation::None),
        ] {
            let weight = noise(&[outputs, inputs], DType::F32)?;
            let bias = noise(&[outputs], DType::F32)?;
            let layer = Linear::new(&weight, Some(&bias), activation, self.dtype)?;
            let x = self.state(TOKENS, inputs)?;
            let out = self.state(TOKENS, outputs)?;
            let seconds = best(|| layer.forward_into(&x, &out))?;
            let values = TOKENS * (inputs + outputs) + inputs * outputs;
            let name = format!("linear {inputs} to {outputs} {activation:?}");
            self.record(&name, 2 * TOKENS * inputs * outputs, values, seconds);
        }
        Ok(())
    }

    fn attention(&mut self) -> Result<(), KernelError> {
        let qkv = self.state(TOKENS, 3 * HIDDEN)?;
        let out = self.state(TOKENS, HIDDEN)?;
        for length in [16, 32, 128, 256] {
            let cu_seqlens: CuSeqlens = std::iter::repeat_n(length, TOKENS / length).collect();
            let attention = VarlenAttention::new(&cu_seqlens, HEADS);
            let seconds = best(|| attention.forward_into(&qkv, &out))?;
            let name = format!("attention over {length}");
            self.record(&name, 4 * TOKENS * length * HIDDEN, TOKENS * 4 * HIDDEN, seconds);
        }
        Ok(())
    }

    fn norms(&mut self) -> Result<(), KernelError> {
        // Two sums, the mean, the variance, and scale and shift.
        const FLOPS: usize = 9 * TOKENS * HIDDEN;
        let vector = || noise(&[HIDDEN], DType::F32);
        let norm = LayerNorm { scale: vector()?, shift: vector()?, eps: 1e-12 };
        let add_norm = AddLayerNorm { bias: Some(vector()?), norm: norm.clone() };
        let x = self.state(TOKENS, HIDDEN)?;
        let residual = self.state(TOKENS, HIDDEN)?;
        let out = self.state(TOKENS, HIDDEN)?;
        let seconds = best(|| add_norm.forward_into(&x, &residual, &out))?;
        self.record("add_layer_norm", FLOPS, 3 * TOKENS * HIDDEN, seconds);

        let cu_seqlens: CuSeqlens = std::iter::repeat_n(64, TOKENS / 64).collect();
        let words = self.state(4_096, HIDDEN)?;
        let token_ids: Vec<u32> = (0..TOKENS as u32).map(|token| token * 37 % 4_096).collect();
        let embed = EmbedLayerNorm {
            token_ids: &token_ids,
            type_ids: None,
            cu_seqlens: &cu_seqlens,
            first_position: 0,
            norm: &norm,
        };
        let seconds = best(|| embed.forward_into(&words, Some(&words), Some(&words), &out))?;
        self.record("embed_layer_norm", FLOPS, 4 * TOKENS * HIDDEN, seconds);

        let finishes = [Finish::default(); TOKENS / 64];
        let pool =
            PoolNormalize { cu_seqlens: &cu_seqlens, pooling: Pooling::Mean, finishes: &finishes };
        let pooled = noise(&[TOKENS / 64, HIDDEN], DType::F32)?;
        let seconds = best(|| pool.forward_into(&x, &pooled))?;
        self.record("pool_normalize", TOKENS * HIDDEN, TOKENS * HIDDEN, seconds);
        Ok(())
    }
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
