//! Every operation in both half types beside its CPU implementation, in f32, on the same values.

use candle_core::{DType, Device, Tensor};
use forebay_kernels::{
    Activation, AddLayerNorm, CuSeqlens, EmbedLayerNorm, FeedForward, Finish, Gate, LayerNorm,
    Linear, LinearKernels, LinearLayerNorm, Mask, PoolNormalize, Pooling, Rotary, VarlenAttention,
};
use serde_json::{Value, json};

use crate::data::Numbers;
use crate::measure::Result;

/// How far apart the two may be: `|difference| / |on CPU|` over all values, and of the worst value, over its own size
/// and the typical one. A half keeps 8 or 11 bits, and several are rounded on the way.
fn tolerances(dtype: DType) -> (f64, f64) {
    if dtype == DType::BF16 { (8e-3, 0.06) } else { (1e-3, 8e-3) }
}

/// Every way to compute a linear layer with what follows it.
const KERNELS: [LinearKernels; 3] =
    [LinearKernels::Library, LinearKernels::WholeRows, LinearKernels::Hopper];

/// Where a case is computed.
struct Side<'a> {
    device: &'a Device,
    dtype: DType,
}

impl Side<'_> {
    /// Hidden states or weights.
    fn put(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.to_dtype(self.dtype)?.to_device(self.device)?)
    }

    /// A parameter, which is f32 everywhere.
    fn parameter(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.to_device(self.device)?)
    }

    fn norm(&self, scale: &Tensor, shift: &Tensor) -> Result<LayerNorm> {
        Ok(LayerNorm { scale: self.parameter(scale)?, shift: self.parameter(shift)?, eps: 1e-12 })
    }
}

/// A case: computed on either side, from values that `dtype` holds.
type Compute<'a> = dyn Fn(&Side<'_>) -> Result<Tensor> + 'a;

struct Check<'a> {
    device: &'a Device,
    dtype: DType,
    numbers: Numbers,
    rows: Vec<Value>,
    agrees: bool,
}

/// Compares all of them; false where one disagrees.
pub fn check(device: &Device, report: &mut Value) -> Result<bool> {
    let mut agrees = true;
    let mut rows = Vec::new();
    println!(
        "{:<58} {:>10} {:>10}",
        "operation beside its CPU implementation", "over all", "worst"
    );
    for dtype in [DType::BF16, DType::F16] {
        let numbers = Numbers::new(7);
        let mut check = Check { device, dtype, numbers, rows: Vec::new(), agrees: true };
        check.norms()?;
        check.embeddings()?;
        check.linear()?;
        check.elementwise()?;
        check.attention()?;
        check.pooling()?;
        check.whole_rows()?;
        agrees &= check.agrees;
        rows.append(&mut check.rows);
    }
    *report = Value::Array(rows);
    Ok(agrees)
}

impl Check<'_> {
    fn compare(&mut self, name: &str, compute: &Compute<'_>) -> Result<()> {
        let on_cpu = compute(&Side { device: &Device::Cpu, dtype: DType::F32 })?;
        let ours = compute(&Side { device: self.device, dtype: self.dtype })?;
        let values = |tensor: &Tensor| -> Result<Vec<f32>> {
            Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
        };
        let on_cpu = values(&on_cpu)?;
        let ours = values(&ours)?;
        let square = |value: f64| value * value;
        let all: f64 = on_cpu.iter().map(|&x| square(f64::from(x))).sum();
        let typical = (all / on_cpu.len() as f64).sqrt();
        let mut apart = 0.0;
        let mut worst = 0.0_f64;
        for (&x, &y) in on_cpu.iter().zip(&ours) {
            let difference = f64::from(x) - f64::from(y);
            apart += square(difference);
            // A NaN is as far away as can be.
            let share = difference.abs() / (f64::from(x).abs() + typical);
            worst = if share.is_nan() { f64::INFINITY } else { worst.max(share) };
        }
        let over_all = (apart / all).sqrt();
        let (over_all_max, worst_max) = tolerances(self.dtype);
        let agrees = over_all <= over_all_max && worst <= worst_max && ours.len() == on_cpu.len();
        self.agrees &= agrees;
        let name = format!("{name}, {}", self.dtype.as_str());
        let verdict = if agrees { "" } else { "  DISAGREES" };
        println!("{name:<58} {over_all:>10.1e} {worst:>10.1e}{verdict}");
        self.rows
            .push(json!({ "case": name, "over_all": over_all, "worst": worst, "agrees": agrees }));
        Ok(())
    }

    fn states(&mut self, rows: usize, columns: usize) -> Result<Tensor> {
        self.numbers.tensor(&[rows, columns], 1.0, self.dtype)
    }

    fn weight(&mut self, outputs: usize, inputs: usize) -> Result<Tensor> {
        self.numbers.tensor(&[outputs, inputs], 1.0 / (inputs as f32).sqrt(), self.dtype)
    }

    fn vector(&mut self, size: usize) -> Result<Tensor> {
        self.numbers.tensor(&[size], 0.3, DType::F32)
    }

    fn norms(&mut self) -> Result<()> {
        for (rows, hidden) in
            [(1, 384), (1_003, 384), (77, 100), (515, 768), (130, 1_024), (33, 1_536)]
        {
            let x = self.states(rows, hidden)?;
            let residual = self.states(rows, hidden)?;
            let bias = self.vector(hidden)?;
            let scale = self.numbers.around_one(hidden)?;
            let shift = self.vector(hidden)?;
            self.compare(&format!("layer_norm {rows} x {hidden}"), &|side| {
                Ok(side.norm(&scale, &shift)?.forward(&side.put(&x)?)?)
            })?;
            let op = |side: &Side<'_>| -> Result<AddLayerNorm> {
                let bias = Some(side.parameter(&bias)?);
                Ok(AddLayerNorm { bias, norm: side.norm(&scale, &shift)? })
            };
            self.compare(&format!("add_layer_norm {rows} x {hidden}"), &|side| {
                Ok(op(side)?.forward(&side.put(&x)?, &side.put(&residual)?)?)
            })?;
            self.compare(&format!("add_layer_norm, sum kept, {rows} x {hidden}"), &|side| {
                let x = side.put(&x)?;
                let sum = side.put(&residual)?.copy()?;
                let out = x.zeros_like()?;
                op(side)?.forward_both_into(&x, &sum, &out)?;
                Ok(Tensor::cat(&[out, sum], 0)?)
            })?;
        }
        Ok(())
    }

    fn embeddings(&mut self) -> Result<()> {
        for (lengths, hidden) in [(vec![1], 384), (vec![17, 0, 256, 3], 384), (vec![60, 5], 770)] {
            let cu_seqlens: CuSeqlens = lengths.iter().copied().collect();
            let tokens = cu_seqlens.tokens();
            let words = self.states(900, hidden)?;
            let positions = self.states(300, hidden)?;
            let types = self.states(2, hidden)?;
            let scale = self.numbers.around_one(hidden)?;
            let shift = self.vector(hidden)?;
            let token_ids: Vec<u32> = (0..tokens).map(|_| self.numbers.below(900)).collect();
            let type_ids: Vec<u32> = (0..tokens).map(|_| self.numbers.below(2)).collect();
            self.compare(&format!("embed_layer_norm {lengths:?} x {hidden}"), &|side| {
                let norm = side.norm(&scale, &shift)?;
                let op = EmbedLayerNorm {
                    token_ids: &token_ids,
                    type_ids: Some(&type_ids),
                    cu_seqlens: &cu_seqlens,
                    first_position: 2,
                    norm: &norm,
                };
                let positions = side.put(&positions)?;
                let types = side.put(&types)?;
                Ok(op.forward(&side.put(&words)?, Some(&positions), Some(&types))?)
            })?;
        }
        Ok(())
    }

    fn linear(&mut self) -> Result<()> {
        let cases = [
            (1, 384, 1_152, Activation::None),
            (130, 384, 1_536, Activation::Gelu),
            (1_000, 1_536, 384, Activation::GeluTanh),
            (4_099, 384, 384, Activation::Silu),
            (37, 70, 46, Activation::Tanh),
            (64, 768, 3_072, Activation::Relu),
        ];
        for (rows, inputs, outputs, activation) in cases {
            let x = self.states(rows, inputs)?;
            let weight = self.weight(outputs, inputs)?;
            let bias = self.vector(outputs)?;
            for kernels in [LinearKernels::Library, LinearKernels::Hopper] {
                let name =
                    format!("linear {rows} x {inputs} x {outputs}, {activation:?}, {kernels:?}");
                self.compare(&name, &|side| {
                    let weight = side.put(&weight)?;
                    let bias = side.parameter(&bias)?;
                    let layer = Linear::new(&weight, Some(&bias), activation, side.dtype)?;
                    let layer = layer.with_kernels(Some(kernels));
                    Ok(layer.forward(&side.put(&x)?)?)
                })?;
            }
        }
        Ok(())
    }

    fn elementwise(&mut self) -> Result<()> {
        for (rows, inner) in [(1, 64), (301, 1_152), (50, 45)] {
            let x = self.states(rows, 2 * inner)?;
            self.compare(&format!("gate {rows} x {inner}"), &|side| {
                Ok(Gate { activation: Activation::Gelu }.forward(&side.put(&x)?)?)
            })?;
        }
        for (lengths, heads, dim) in [(vec![5, 0, 200], 12, 64), (vec![31], 3, 32)] {
            let cu_seqlens: CuSeqlens = lengths.iter().copied().collect();
            let qkv = self.states(cu_seqlens.tokens(), 3 * heads * dim)?;
            self.compare(&format!("rotary {lengths:?}, {heads} heads of {dim}"), &|side| {
                let qkv = side.put(&qkv)?.copy()?;
                let rotary = Rotary::new(dim, 10_000.0, 256)?.on(side.device)?;
                rotary.apply(&qkv, &cu_seqlens, heads)?;
                Ok(qkv)
            })?;
        }
        Ok(())
    }

    fn attention(&mut self) -> Result<()> {
        let many = || (0..40).map(|index| 1 + index * 7 % 90).collect::<Vec<usize>>();
        let cases = [
            (vec![1], 12, 32, Mask::Bidirectional),
            (vec![12; 30], 12, 32, Mask::Bidirectional),
            (many(), 12, 32, Mask::Bidirectional),
            (vec![512, 3, 0, 256, 100], 12, 32, Mask::Bidirectional),
            (vec![1_000, 65], 12, 64, Mask::Causal),
            (vec![700, 64], 12, 64, Mask::Window(64)),
            (vec![300, 17], 4, 128, Mask::Bidirectional),
            (vec![90, 33], 4, 128, Mask::Causal),
            (vec![90, 33, 16], 3, 48, Mask::Bidirectional),
            (vec![2_048], 2, 64, Mask::Bidirectional),
        ];
        for (lengths, heads, dim, mask) in cases {
            let cu_seqlens: CuSeqlens = lengths.iter().copied().collect();
            let longest = lengths.iter().copied().max().unwrap_or(1);
            let width = 3 * heads * dim;
            let qkv = self.states(cu_seqlens.tokens(), width)?;
            let bias = self.vector(width)?;
            let distances = self.numbers.tensor(&[heads, 2 * longest - 1], 0.5, DType::F32)?;
            let name = format!("attention of {} up to {longest}, {heads} x {dim}", lengths.len());
            for biased in [false, true] {
                let more = if biased { ", biased" } else { "" };
                self.compare(&format!("{name}, {mask:?}{more}"), &|side| {
                    let bias = side.parameter(&bias)?;
                    let distances = side.parameter(&distances)?;
                    let op = VarlenAttention {
                        mask,
                        bias: biased.then_some(&bias),
                        distance_bias: biased.then_some(&distances),
                        ..VarlenAttention::new(&cu_seqlens, heads)
                    };
                    Ok(op.forward(&side.put(&qkv)?)?)
                })?;
            }
        }
        Ok(())
    }

    fn pooling(&mut self) -> Result<()> {
        let cu_seqlens: CuSeqlens = [3, 0, 256, 1, 40].into_iter().collect();
        for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Last, Pooling::Max] {
            let x = self.states(cu_seqlens.tokens(), 384)?;
            let finishes: Vec<Finish> =
                [(true, None), (true, None), (false, None), (true, Some(7)), (false, Some(300))]
                    .map(|(normalize, dimensions)| Finish { normalize, dimensions })
                    .to_vec();
            self.compare(&format!("pool_normalize, {pooling:?}"), &|side| {
                let op = PoolNormalize { cu_seqlens: &cu_seqlens, pooling, finishes: &finishes };
                Ok(op.forward(&side.put(&x)?)?)
            })?;
        }
        Ok(())
    }

    /// Both ways, whichever is faster here.
    fn whole_rows(&mut self) -> Result<()> {
        for (rows, inputs, hidden) in
            [(1, 384, 384), (1_001, 384, 384), (700, 1_536, 384), (300, 768, 768)]
        {
            let x = self.states(rows, inputs)?;
            let residual = self.states(rows, hidden)?;
            let weight = self.weight(hidden, inputs)?;
            let bias = self.vector(hidden)?;
            let scale = self.numbers.around_one(hidden)?;
            let shift = self.vector(hidden)?;
            let closed = |side: &Side<'_>, kernels: LinearKernels| -> Result<LinearLayerNorm> {
                let linear = Linear::new(&side.put(&weight)?, None, Activation::None, side.dtype)?;
                let linear = linear.with_kernels(Some(kernels));
                let bias = Some(side.parameter(&bias)?);
                let norm = side.norm(&scale, &shift)?;
                Ok(LinearLayerNorm { linear, norm: AddLayerNorm { bias, norm } })
            };
            for kernels in KERNELS {
                self.compare(
                    &format!("linear_layer_norm {rows} x {inputs} x {hidden}, {kernels:?}"),
                    &|side| {
                        let x = side.put(&x)?;
                        let residual = side.put(&residual)?;
                        let projected = residual.zeros_like()?;
                        let out = residual.zeros_like()?;
                        closed(side, kernels)?.forward_into(&x, &residual, &projected, &out)?;
                        Ok(out)
                    },
                )?;
            }
            if hidden != 384 || inputs != 1_536 {
                continue;
            }
            let up = self.weight(inputs, hidden)?;
            let up_bias = self.vector(inputs)?;
            for kernels in KERNELS {
                self.compare(
                    &format!("feed_forward {rows} x {hidden} x {inputs}, {kernels:?}"),
                    &|side| {
                        let up = side.put(&up)?;
                        let up_bias = side.parameter(&up_bias)?;
                        let up = Linear::new(&up, Some(&up_bias), Activation::Gelu, side.dtype)?;
                        let up = up.with_kernels(Some(kernels));
                        let x = side.put(&residual)?;
                        let inner = Tensor::zeros((rows, inputs), side.dtype, side.device)?;
                        let projected = x.zeros_like()?;
                        let out = x.zeros_like()?;
                        let op = FeedForward { up, down: closed(side, kernels)? };
                        op.forward_into(&x, &inner, &projected, &out)?;
                        Ok(out)
                    },
                )?;
            }
        }
        Ok(())
    }
}
