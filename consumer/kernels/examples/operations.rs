//! Speed of single operations at all-MiniLM-L6-v2's shapes, on one thread.
//!
//! `cargo run --release -p forebay-kernels --example operations`. Each figure is the best of many short runs,
//! because other work on the machine can only slow a run down.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Instant;

use candle_core::{Device, Tensor};
use forebay_kernels::{
    Activation, AddLayerNorm, CuSeqlens, KernelError, LayerNorm, Linear, VarlenAttention,
};

const TOKENS: usize = 480;
const RUNS: usize = 300;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(measure)?;
    Ok(())
}

fn measure() -> Result<(), KernelError> {
    for (inputs, outputs, activation) in [
        (384, 1152, Activation::None),
        (384, 384, Activation::None),
        (384, 1536, Activation::Gelu),
        (1536, 384, Activation::None),
    ] {
        let layer = Linear::new(&noise(&[outputs, inputs])?, Some(noise(&[outputs])?), activation)?;
        let x = noise(&[TOKENS, inputs])?;
        let seconds = best(|| layer.forward(&x))?;
        let gflops = (2 * TOKENS * inputs * outputs) as f64 / seconds / 1e9;
        println!("linear {inputs:>4} -> {outputs:>4} {activation:?}: {gflops:.0} GFLOP/s");
    }
    for length in [16, 48, 120, 240] {
        let cu_seqlens: CuSeqlens = std::iter::repeat_n(length, TOKENS / length).collect();
        let attention = VarlenAttention { cu_seqlens: &cu_seqlens, heads: 12 };
        let qkv = noise(&[TOKENS, 1152])?;
        let seconds = best(|| attention.forward(&qkv))?;
        let gflops = (4 * TOKENS * length * 384) as f64 / seconds / 1e9;
        let per_token = seconds / TOKENS as f64 * 1e9;
        println!(
            "attention over {length:>3} tokens: {per_token:.0} ns a token, {gflops:.0} GFLOP/s"
        );
    }
    let norm = LayerNorm { scale: noise(&[384])?, shift: noise(&[384])?, eps: 1e-12 };
    let add_norm = AddLayerNorm { bias: noise(&[384])?, norm };
    let (x, residual) = (noise(&[TOKENS, 384])?, noise(&[TOKENS, 384])?);
    let seconds = best(|| add_norm.forward(&x, &residual))?;
    println!("add_layer_norm: {:.0} ns a token", seconds / TOKENS as f64 * 1e9);
    Ok(())
}

fn noise(shape: &[usize]) -> candle_core::Result<Tensor> {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu)
}

/// The shortest of many runs, in seconds.
fn best(run: impl Fn() -> Result<Tensor, KernelError>) -> Result<f64, KernelError> {
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
