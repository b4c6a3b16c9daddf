//! The linear layers of a decoder's step at SmolLM2-135M's shapes, in every number type, beside the machine's limits.
//!
//! `cargo run --release -p forebay-kernels --example decoder_linear [threads]` prints tokens a second of the layers
//! alone: with the head for 1 to 64 sequences, without it for a prompt's 512 tokens; on the rayon thread pool and on
//! one whose threads spin. Each figure is the best of many steps, because other work on the machine can only slow one
//! down; the two pools take turns.
#![allow(clippy::print_stdout)]

#[path = "operations/limits.rs"]
mod limits;

use std::error::Error;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use forebay_kernels::{Activation, BLOCK, KernelError, Linear, Q4Block, Q8Block, SpinPool};

use crate::limits::Limits;

const LAYERS: usize = 30;
const HIDDEN: usize = 576;
const VOCABULARY: usize = 49_152;
/// `[in, out]` of a layer's projections.
const PROJECTIONS: [[usize; 2]; 4] =
    [[HIDDEN, 960], [HIDDEN, HIDDEN], [HIDDEN, 3_072], [1_536, HIDDEN]];
/// Rows of a step, and whether the head follows.
const STEPS: [(usize, bool); 8] =
    [(1, true), (4, true), (8, true), (16, true), (24, true), (32, true), (64, true), (512, false)];
const SECONDS: f64 = 0.8;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    F32,
    Bf16,
    Int8,
    /// 4-bit blocks with a head of 8-bit blocks, as `Q4_1` files have them.
    Q4,
    Q8,
}

fn main() -> Result<(), Box<dyn Error>> {
    let threads = std::env::args().nth(1).map_or(Ok(2), |argument| argument.parse())?;
    let limits = Limits::measure();
    println!(
        "limits on one thread: {:.0} GFLOP/s f32, {:.0} GFLOP/s bf16, {:.1} GB/s from memory",
        limits.f32_gflops, limits.bf16_gflops, limits.memory_gb_s
    );
    let rayon = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let spin = SpinPool::new(threads)?;
    println!(
        "{:<6} {:>5} {:>14} {:>14} {:>14}",
        "", "rows", "rayon tok/s", "spin tok/s", "spin Gop/s"
    );
    for format in [Format::Q4, Format::Q8, Format::Int8, Format::Bf16, Format::F32] {
        let model = Model::new(format)?;
        for (rows, with_head) in STEPS {
            let step = Step::new(&model, rows, with_head)?;
            let mut best = [f64::INFINITY; 2];
            let started = Instant::now();
            while started.elapsed().as_secs_f64() < SECONDS {
                best[0] = best[0].min(rayon.install(|| step.timed())?);
                best[1] = best[1].min(spin.step(|| step.timed())?);
            }
            let tokens = best.map(|seconds| rows as f64 / seconds);
            let gops = 2.0 * step.weights() as f64 * tokens[1] / 1e9;
            println!(
                "{:<6} {rows:>5} {:>14.0} {:>14.0} {gops:>14.0}",
                format!("{format:?}"),
                tokens[0],
                tokens[1]
            );
        }
    }
    Ok(())
}

struct Model {
    dtype: DType,
    layers: Vec<Linear>,
    head: Linear,
}

impl Model {
    fn new(format: Format) -> Result<Self, KernelError> {
        let dtype = if format == Format::Bf16 { DType::BF16 } else { DType::F32 };
        let mut layers = Vec::new();
        for _ in 0..LAYERS {
            for sizes in PROJECTIONS {
                layers.push(layer(format, sizes, dtype)?);
            }
        }
        let head = if format == Format::Q4 { Format::Q8 } else { format };
        Ok(Self { dtype, layers, head: layer(head, [HIDDEN, VOCABULARY], dtype)? })
    }
}

fn layer(
    format: Format,
    [inputs, outputs]: [usize; 2],
    dtype: DType,
) -> Result<Linear, KernelError> {
    let blocks = outputs * inputs / BLOCK;
    let none = Activation::None;
    match format {
        Format::Q4 => {
            let block = Q4Block { scale: 0.0625, minimum: -0.5, quants: [0x7A; BLOCK / 2] };
            Linear::of_q4(outputs, inputs, &vec![block; blocks], None, none, dtype)
        }
        Format::Q8 => {
            let block = Q8Block { scales: [0.0625; 2], minimum: 0.0, quants: [3; BLOCK] };
            Linear::of_q8(outputs, inputs, &vec![block; blocks], None, none, dtype)
        }
        Format::Int8 => Linear::int8(&noise(outputs, inputs, DType::F32)?, None, none, dtype),
        _ => Linear::new(&noise(outputs, inputs, dtype)?, None, none, dtype),
    }
}

fn noise(rows: usize, columns: usize, dtype: DType) -> candle_core::Result<Tensor> {
    Tensor::randn(0f32, 1.0, (rows, columns), &Device::Cpu)?.to_dtype(dtype)
}

/// A step's layers with their inputs and outputs.
struct Step<'a> {
    calls: Vec<(&'a Linear, Tensor, Tensor)>,
}

impl<'a> Step<'a> {
    fn new(model: &'a Model, rows: usize, with_head: bool) -> Result<Self, KernelError> {
        let head = with_head.then_some(&model.head);
        let tensor = |columns| noise(rows, columns, model.dtype);
        // Layers of a size share theirs, as those of a model do.
        let mut shared: Vec<(usize, usize, Tensor, Tensor)> = Vec::new();
        let mut calls = Vec::new();
        for layer in model.layers.iter().chain(head) {
            let sizes = (layer.inputs(), layer.outputs());
            let known = shared.iter().find(|known| (known.0, known.1) == sizes);
            let (x, out) = match known {
                Some((_, _, x, out)) => (x.clone(), out.clone()),
                None => (tensor(sizes.0)?, tensor(sizes.1)?),
            };
            if known.is_none() {
                shared.push((sizes.0, sizes.1, x.clone(), out.clone()));
            }
            calls.push((layer, x, out));
        }
        Ok(Self { calls })
    }

    fn weights(&self) -> usize {
        self.calls.iter().map(|(layer, ..)| layer.inputs() * layer.outputs()).sum()
    }

    fn timed(&self) -> Result<f64, KernelError> {
        let started = Instant::now();
        for (layer, x, out) in &self.calls {
            layer.forward_into(x, out)?;
        }
        Ok(started.elapsed().as_secs_f64())
    }
}
