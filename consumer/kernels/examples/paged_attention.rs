//! Attention over pages at SmolLM2-135M's shapes on one thread, beside what the machine can do at most.
//!
//! `cargo run --release -p forebay-kernels --example paged_attention`: chunks of prompts are bound by multiplication,
//! single tokens by reading keys and values. Each figure is the best of many short runs.
#![allow(clippy::print_stdout)]

#[path = "operations/limits.rs"]
mod limits;

use std::error::Error;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use forebay_kernels::{
    KernelError, PAGE_TOKENS, PagedAttention, Pages, QkvIntoPages, Rotary, SequenceRows, StepRows,
    alone,
};

use crate::limits::Limits;

const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const DIM: usize = 64;
const RUNS: usize = 30;

fn main() -> Result<(), Box<dyn Error>> {
    let limits = Limits::measure();
    println!(
        "limits on one thread: {:.0} GFLOP/s f32, {:.0} GFLOP/s bf16, {:.1} GB/s from memory",
        limits.f32_gflops, limits.bf16_gflops, limits.memory_gb_s
    );
    println!("{:<36} {:>9} {:>9} {:>8} {:>8}", "", "into us", "over us", "GFLOP/s", "GB/s");
    for dtype in [DType::F32, DType::BF16] {
        for (sequences, tokens, position) in [
            (1, 512, 0),
            (1, 512, 1536),
            (1, 1, 128),
            (1, 1, 1024),
            (1, 1, 8192),
            (32, 1, 128),
            (32, 1, 1024),
        ] {
            alone(|| measure(dtype, sequences, tokens, position))?;
        }
    }
    Ok(())
}

/// A step of some sequences, each with so many new tokens from that position on.
fn measure(
    dtype: DType,
    sequences: usize,
    tokens: usize,
    position: usize,
) -> Result<(), KernelError> {
    let table_len = (position + tokens).div_ceil(PAGE_TOKENS);
    let count = table_len * sequences;
    let pages = Pages::new(count, KV_HEADS, DIM, dtype, &Device::Cpu)?;
    let rotary = Rotary::new(DIM, 100_000.0, position + tokens)?;
    let width = (HEADS + 2 * KV_HEADS) * DIM;
    let into = QkvIntoPages {
        rotary: Some(&rotary),
        q_norm: None,
        k_norm: None,
        heads: HEADS,
        kv_heads: KV_HEADS,
    };
    // Neighbours in a sequence are no neighbours in memory.
    let tables: Vec<Vec<u32>> = (0..sequences)
        .map(|sequence| (0..table_len).map(|page| (page * sequences + sequence) as u32).collect())
        .collect();
    // What lies there decides how fast the multiplication of bf16 is.
    let rows = |tokens, position| {
        let rows = tables.iter().map(|pages| SequenceRows { tokens, position, pages });
        StepRows::new(rows)
    };
    let before = rows(position, 0)?;
    into.apply(&noise(position * sequences, width, dtype)?, &before, &pages)?;
    let step = rows(tokens, position)?;
    let qkv = noise(tokens * sequences, width, dtype)?;
    let written = best(|| into.apply(&qkv, &step, &pages))?;
    let attention = PagedAttention::new(&step, HEADS, KV_HEADS);
    let out = Tensor::zeros((tokens * sequences, HEADS * DIM), dtype, &Device::Cpu)?;
    let seconds = best(|| attention.forward_into(&qkv, &pages, &out))?;
    let seen: usize = (0..tokens).map(|token| position + token + 1).sum();
    let flops = 4 * sequences * seen * HEADS * DIM;
    let bytes = 2 * sequences * (position + tokens) * KV_HEADS * DIM * dtype.size_in_bytes();
    println!(
        "{:<36} {:>9.1} {:>9.1} {:>8.0} {:>8.1}",
        format!("{dtype:?}, {sequences} x {tokens} at {position}"),
        written * 1e6,
        seconds * 1e6,
        flops as f64 / seconds / 1e9,
        bytes as f64 / seconds / 1e9
    );
    Ok(())
}

fn noise(rows: usize, width: usize, dtype: DType) -> candle_core::Result<Tensor> {
    Tensor::randn(0f32, 1.0, (rows, width), &Device::Cpu)?.to_dtype(dtype)
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
