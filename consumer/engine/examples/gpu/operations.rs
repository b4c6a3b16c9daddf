//! How fast each operation is at all-MiniLM-L6-v2's shapes, beside the least time that its bytes and its matrix
//! products take on this device: its memory and its tensor cores are measured first.

use candle_core::{DType, Device, Tensor};
use forebay_kernels::{
    Activation, AddLayerNorm, CuSeqlens, EmbedLayerNorm, FeedForward, Finish, LayerNorm, Linear,
    LinearKernels, LinearLayerNorm, PoolNormalize, Pooling, VarlenAttention,
};
use serde_json::{Value, json};

use crate::data::Numbers;
use crate::measure::{Result, seconds};

const TOKENS: usize = 16_384;
const HIDDEN: usize = 384;
const INNER: usize = 1_536;
const HEADS: usize = 12;
const LENGTH: usize = 128;

/// The rates that the device was measured to reach.
struct Ceilings {
    bytes_per_s: f64,
    flops_per_s: f64,
}

impl Ceilings {
    fn measure(device: &Device) -> Result<Self> {
        const BYTES: usize = 2 << 30;
        const SIDE: usize = 8_192;
        let from = Tensor::ones(BYTES / 4, DType::F32, device)?;
        let copy_s = seconds(device, &|| {
            from.copy()?;
            Ok(())
        })?;
        drop(from);
        // Drawn on the device: a GEMM of zeros would be faster.
        let random = || Tensor::randn(0_f32, 1.0, (SIDE, SIDE), device)?.to_dtype(DType::BF16);
        let layer = Linear::new(&random()?, None, Activation::None, DType::BF16)?;
        let x = random()?;
        let out = x.zeros_like()?;
        let gemm_s = seconds(device, &|| Ok(layer.forward_into(&x, &out)?))?;
        Ok(Self {
            bytes_per_s: 2.0 * BYTES as f64 / copy_s,
            flops_per_s: 2.0 * (SIDE as f64).powi(3) / gemm_s,
        })
    }
}

/// The least work of an operation for one token.
#[derive(Clone, Copy)]
struct Least {
    flops: usize,
    bytes: usize,
}

struct Timer<'a> {
    device: &'a Device,
    ceilings: Ceilings,
    rows: Vec<Value>,
}

impl Timer<'_> {
    fn time(&mut self, name: &str, least: Least, work: &dyn Fn() -> Result<()>) -> Result<()> {
        let took_s = seconds(self.device, work)?;
        let flops = (least.flops * TOKENS) as f64;
        let bytes = (least.bytes * TOKENS) as f64;
        let least_s = (flops / self.ceilings.flops_per_s).max(bytes / self.ceilings.bytes_per_s);
        let share = least_s / took_s;
        println!(
            "{name:<44} {:>8.1} {:>9.1} {:>8.2} {:>8.0} %",
            took_s * 1e6,
            flops / took_s / 1e12,
            bytes / took_s / 1e12,
            share * 100.0
        );
        self.rows.push(json!({
            "operation": name, "us": took_s * 1e6, "tflops_per_s": flops / took_s / 1e12,
            "tbytes_per_s": bytes / took_s / 1e12, "share_of_ceiling": share,
        }));
        Ok(())
    }
}

/// Measures the device, then each operation.
pub fn time(device: &Device, report: &mut Value) -> Result<()> {
    let ceilings = Ceilings::measure(device)?;
    let tbytes = ceilings.bytes_per_s / 1e12;
    let tflops = ceilings.flops_per_s / 1e12;
    println!(
        "measured here: {tbytes:.2} TB/s copied (read and written), {tflops:.0} TFLOP/s of bf16 GEMM"
    );
    report["ceilings"] = json!({ "tbytes_per_s": tbytes, "tflops_per_s": tflops });
    println!(
        "{:<44} {:>8} {:>9} {:>8} {:>10}",
        format!("{TOKENS} tokens, bf16"),
        "us",
        "TFLOP/s",
        "TB/s",
        "of ceiling"
    );
    let mut timer = Timer { device, ceilings, rows: Vec::new() };
    parts(&mut timer)?;
    halves(&mut timer)?;
    report["operations"] = Value::Array(timer.rows);
    Ok(())
}

/// A model's parameters and states on the device, in bf16.
struct Data<'a> {
    device: &'a Device,
    numbers: Numbers,
}

impl Data<'_> {
    fn states(&mut self, width: usize) -> Result<Tensor> {
        self.scaled(TOKENS, width, 1.0)
    }

    fn scaled(&mut self, rows: usize, columns: usize, scale: f32) -> Result<Tensor> {
        let tensor = self.numbers.tensor(&[rows, columns], scale, DType::BF16)?;
        Ok(tensor.to_dtype(DType::BF16)?.to_device(self.device)?)
    }

    fn vector(&mut self, size: usize) -> Result<Tensor> {
        Ok(self.numbers.tensor(&[size], 0.3, DType::F32)?.to_device(self.device)?)
    }

    fn linear(
        &mut self,
        inputs: usize,
        outputs: usize,
        activation: Activation,
        has_bias: bool,
    ) -> Result<Linear> {
        let weight = self.scaled(outputs, inputs, 1.0 / (inputs as f32).sqrt())?;
        let bias = has_bias.then(|| self.vector(outputs)).transpose()?;
        Ok(Linear::new(&weight, bias.as_ref(), activation, DType::BF16)?)
    }

    fn norm(&mut self) -> Result<AddLayerNorm> {
        let scale = self.numbers.around_one(HIDDEN)?.to_device(self.device)?;
        let norm = LayerNorm { scale, shift: self.vector(HIDDEN)?, eps: 1e-12 };
        Ok(AddLayerNorm { bias: Some(self.vector(HIDDEN)?), norm })
    }
}

fn parts(timer: &mut Timer<'_>) -> Result<()> {
    let device = timer.device;
    let mut data = Data { device, numbers: Numbers::new(3) };
    for (name, inputs, outputs, activation, has_bias) in [
        ("gemm 384 x 1152", HIDDEN, 3 * HIDDEN, Activation::None, false),
        ("gemm 384 x 384", HIDDEN, HIDDEN, Activation::None, false),
        ("gemm 384 x 1536", HIDDEN, INNER, Activation::None, false),
        ("linear 384 x 1536, bias and GELU", HIDDEN, INNER, Activation::Gelu, true),
        ("gemm 1536 x 384", INNER, HIDDEN, Activation::None, false),
    ] {
        let x = data.states(inputs)?;
        let layer = data.linear(inputs, outputs, activation, has_bias)?;
        let out = Tensor::zeros((TOKENS, outputs), DType::BF16, device)?;
        let least = Least { flops: 2 * inputs * outputs, bytes: 2 * (inputs + outputs) };
        for kernels in [LinearKernels::Library, LinearKernels::Hopper] {
            let layer = layer.clone().with_kernels(Some(kernels));
            let name = format!("{name}, {kernels:?}");
            timer.time(&name, least, &|| Ok(layer.forward_into(&x, &out)?))?;
        }
    }
    for length in [32, LENGTH, 512] {
        let cu_seqlens: CuSeqlens = vec![length; TOKENS / length].into_iter().collect();
        let qkv = data.states(3 * HIDDEN)?;
        let out = data.states(HIDDEN)?;
        let bias = data.vector(3 * HIDDEN)?;
        let op = VarlenAttention { bias: Some(&bias), ..VarlenAttention::new(&cu_seqlens, HEADS) };
        let least = Least { flops: 4 * length * HIDDEN, bytes: 2 * 4 * HIDDEN };
        timer.time(&format!("attention at length {length}"), least, &|| {
            Ok(op.forward_into(&qkv, &out)?)
        })?;
    }
    let x = data.states(HIDDEN)?;
    let residual = data.states(HIDDEN)?;
    let out = data.states(HIDDEN)?;
    let norm = data.norm()?;
    let least = Least { flops: 0, bytes: 2 * 3 * HIDDEN };
    timer.time("add_layer_norm", least, &|| Ok(norm.forward_into(&x, &residual, &out)?))?;
    let cu_seqlens: CuSeqlens = vec![LENGTH; TOKENS / LENGTH].into_iter().collect();
    let tables = [
        data.scaled(30_522, HIDDEN, 1.0)?,
        data.scaled(512, HIDDEN, 1.0)?,
        data.scaled(2, HIDDEN, 1.0)?,
    ];
    let token_ids: Vec<u32> = (0..TOKENS).map(|_| data.numbers.below(30_522)).collect();
    let op = EmbedLayerNorm {
        token_ids: &token_ids,
        type_ids: None,
        cu_seqlens: &cu_seqlens,
        first_position: 0,
        norm: &norm.norm,
    };
    timer.time(
        "embed_layer_norm, ids uploaded",
        Least { flops: 0, bytes: 2 * 2 * HIDDEN },
        &|| Ok(op.forward_into(&tables[0], Some(&tables[1]), Some(&tables[2]), &out)?),
    )?;
    let finishes = vec![Finish::default(); TOKENS / LENGTH];
    let pool =
        PoolNormalize { cu_seqlens: &cu_seqlens, pooling: Pooling::Mean, finishes: &finishes };
    let rows = Tensor::zeros((finishes.len(), HIDDEN), DType::F32, device)?;
    timer.time("pool_normalize, mean", Least { flops: 0, bytes: 2 * HIDDEN }, &|| {
        Ok(pool.forward_into(&x, &rows)?)
    })
}

/// The operations that close a layer's halves, with each kind of GEMM.
fn halves(timer: &mut Timer<'_>) -> Result<()> {
    let device = timer.device;
    let mut data = Data { device, numbers: Numbers::new(5) };
    let x = data.states(HIDDEN)?;
    let residual = data.states(HIDDEN)?;
    let out = data.states(HIDDEN)?;
    let projected = data.states(HIDDEN)?;
    let inner = Tensor::zeros((TOKENS, INNER), DType::BF16, device)?;
    let projection = data.linear(HIDDEN, HIDDEN, Activation::None, false)?;
    let norm = data.norm()?;
    let down = data.linear(INNER, HIDDEN, Activation::None, false)?;
    let down_norm = data.norm()?;
    let up = data.linear(HIDDEN, INNER, Activation::Gelu, true)?;
    for kernels in [LinearKernels::Library, LinearKernels::WholeRows, LinearKernels::Hopper] {
        let with = |layer: &Linear| layer.clone().with_kernels(Some(kernels));
        let closed = LinearLayerNorm { linear: with(&projection), norm: norm.clone() };
        let down = LinearLayerNorm { linear: with(&down), norm: down_norm.clone() };
        let feed_forward = FeedForward { up: with(&up), down };
        let least = Least { flops: 2 * HIDDEN * HIDDEN, bytes: 2 * 3 * HIDDEN };
        timer.time(&format!("projection and norm, {kernels:?}"), least, &|| {
            Ok(closed.forward_into(&x, &residual, &projected, &out)?)
        })?;
        let least = Least { flops: 4 * HIDDEN * INNER, bytes: 2 * 2 * HIDDEN };
        timer.time(&format!("feed-forward and norm, {kernels:?}"), least, &|| {
            Ok(feed_forward.forward_into(&x, &inner, &projected, &out)?)
        })?;
    }
    Ok(())
}
