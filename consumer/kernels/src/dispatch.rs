//! The public calls of each operation: they check its operands and hand them to the back-end of the tensors' device.

mod decoder;
mod latent;

use candle_core::{DType, Device, Error, Tensor};

use crate::cpu::backend::Cpu;
#[cfg(feature = "cuda")]
use crate::cuda::backend::Cuda;
use crate::error::KernelError;
use crate::ops::activation::Activation;
use crate::ops::add_layer_norm::{self, AddLayerNorm, Sum};
use crate::ops::backend::Backend;
use crate::ops::blocks::{Fp4Block, Q4Block, Q8Block};
use crate::ops::cu_seqlens::CuSeqlens;
use crate::ops::embed_layer_norm::{self, EmbedLayerNorm};
use crate::ops::feed_forward::{self, FeedForward};
use crate::ops::gate::{self, Gate};
use crate::ops::layer_norm::{self, LayerNorm};
use crate::ops::linear::{self, Linear, Parameters};
use crate::ops::linear_layer_norm::{self, LinearLayerNorm};
use crate::ops::operand::output;
use crate::ops::pool_normalize::{self, PoolNormalize};
use crate::ops::rotary::{self, Rotary};
use crate::ops::varlen_attention::{self, VarlenAttention};

/// The back-end of a device.
fn backend_of(device: &Device) -> Result<&'static dyn Backend, KernelError> {
    match device {
        Device::Cpu => Ok(&Cpu),
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => Ok(&Cuda),
        _ => Err(Error::Msg("this build has no operations for that device".to_owned()).into()),
    }
}

/// Rows and columns of an operand that is checked later: none where it is no matrix.
fn sizes(x: &Tensor) -> (usize, usize) {
    x.dims2().unwrap_or_default()
}

impl Linear {
    /// Packs `weight` `[out, in]`, of any floating-point type, to compute in `dtype`. `bias`: `[out]`.
    pub fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        let weight = weight.to_dtype(dtype)?;
        let parameters = Parameters::checked(&weight, bias, dtype)?;
        let packed = backend_of(weight.device())?.pack(&weight)?;
        Ok(Self::of(packed, parameters, activation, dtype))
    }

    /// Packs `weight` `[out, in]`, of any floating-point type, as int8. What goes in and comes out is of `dtype`.
    pub fn int8(
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        let weight = weight.to_dtype(DType::F32)?;
        let parameters = Parameters::checked(&weight, bias, DType::F32)?;
        let packed = backend_of(weight.device())?.pack_int8(&weight)?;
        Ok(Self::of(packed, parameters, activation, dtype))
    }

    /// Packs 4-bit blocks, `[out, in / 32]` in this order, for the processor. What goes in and comes out is of `dtype`;
    /// in between, inputs are quantized by block.
    pub fn of_q4(
        outputs: usize,
        inputs: usize,
        blocks: &[Q4Block],
        bias: Option<&Tensor>,
        activation: Activation,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        let parameters = Parameters::of_blocks([outputs, inputs], blocks.len(), bias)?;
        let packed = backend_of(&Device::Cpu)?.pack_q4([outputs, inputs], blocks)?;
        Ok(Self::of(packed, parameters, activation, dtype))
    }

    /// As [`Self::of_q4`], of 8-bit blocks.
    pub fn of_q8(
        outputs: usize,
        inputs: usize,
        blocks: &[Q8Block],
        bias: Option<&Tensor>,
        activation: Activation,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        let parameters = Parameters::of_blocks([outputs, inputs], blocks.len(), bias)?;
        let packed = backend_of(&Device::Cpu)?.pack_q8([outputs, inputs], blocks)?;
        Ok(Self::of(packed, parameters, activation, dtype))
    }

    /// As [`Self::of_q4`], of blocks of `MXFP4`.
    pub fn of_fp4(
        outputs: usize,
        inputs: usize,
        blocks: &[Fp4Block],
        bias: Option<&Tensor>,
        activation: Activation,
        dtype: DType,
    ) -> Result<Self, KernelError> {
        let parameters = Parameters::of_blocks([outputs, inputs], blocks.len(), bias)?;
        let packed = backend_of(&Device::Cpu)?.pack_fp4([outputs, inputs], blocks)?;
        Ok(Self::of(packed, parameters, activation, dtype))
    }

    /// `x`: `[tokens, in]`; gives `[tokens, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let out = output(x, (x.dims().first().copied().unwrap_or_default(), self.outputs()))?;
        self.forward_into(x, &out)?;
        Ok(out)
    }

    /// `x`: `[tokens, in]`; writes `out`: `[tokens, out]`.
    pub fn forward_into(&self, x: &Tensor, out: &Tensor) -> Result<(), KernelError> {
        let operands = linear::Operands { x, out };
        self.check(operands)?;
        Ok(backend_of(x.device())?.linear(self, operands)?)
    }
}

impl LayerNorm {
    /// `x`: `[tokens, hidden]`; gives the normalised rows, of the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let out = output(x, sizes(x))?;
        self.forward_into(x, &out)?;
        Ok(out)
    }

    /// `x`: `[tokens, hidden]`; writes `out` of the same shape.
    pub fn forward_into(&self, x: &Tensor, out: &Tensor) -> Result<(), KernelError> {
        let operands = layer_norm::Operands { x, out };
        self.check(operands)?;
        Ok(backend_of(x.device())?.layer_norm(self, operands)?)
    }
}

impl AddLayerNorm {
    /// `x` and `residual`: `[tokens, hidden]`; gives `[tokens, hidden]`.
    pub fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor, KernelError> {
        let out = output(x, sizes(x))?;
        self.forward_into(x, residual, &out)?;
        Ok(out)
    }

    /// `x` and `residual`: `[tokens, hidden]`; writes `out` of the same shape.
    pub fn forward_into(
        &self,
        x: &Tensor,
        residual: &Tensor,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        self.run(add_layer_norm::Operands { x, sum: Sum::Discarded { residual }, out })
    }

    /// Adds `x` and the bias to `sum`, then writes `sum` normalised to `out`: all `[tokens, hidden]`.
    pub fn forward_both_into(
        &self,
        x: &Tensor,
        sum: &Tensor,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        self.run(add_layer_norm::Operands { x, sum: Sum::Kept { sum }, out })
    }

    fn run(&self, operands: add_layer_norm::Operands<'_>) -> Result<(), KernelError> {
        self.check(operands)?;
        Ok(backend_of(operands.x.device())?.add_layer_norm(self, operands)?)
    }
}

impl EmbedLayerNorm<'_> {
    /// Gives `[tokens, hidden]`. Every id and position must have a row in its table; a table that the model lacks
    /// adds nothing.
    pub fn forward(
        &self,
        words: &Tensor,
        positions: Option<&Tensor>,
        types: Option<&Tensor>,
    ) -> Result<Tensor, KernelError> {
        let out = output(words, (self.token_ids.len(), sizes(words).1))?;
        self.forward_into(words, positions, types, &out)?;
        Ok(out)
    }

    /// As [`Self::forward`], but writes `out`: `[tokens, hidden]`.
    pub fn forward_into(
        &self,
        words: &Tensor,
        positions: Option<&Tensor>,
        types: Option<&Tensor>,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        let operands = embed_layer_norm::Operands { words, positions, types, out };
        self.check(operands)?;
        Ok(backend_of(words.device())?.embed_layer_norm(self, operands)?)
    }
}

impl Gate {
    /// `x`: `[tokens, 2 * inner]`; gives `[tokens, inner]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let (tokens, width) = sizes(x);
        let out = output(x, (tokens, width / 2))?;
        self.forward_into(x, &out)?;
        Ok(out)
    }

    /// `x`: `[tokens, 2 * inner]`; writes `out`: `[tokens, inner]`.
    pub fn forward_into(&self, x: &Tensor, out: &Tensor) -> Result<(), KernelError> {
        let operands = gate::Operands { x, out };
        self.check(operands)?;
        Ok(backend_of(x.device())?.gate(*self, operands)?)
    }
}

impl Rotary {
    /// Rotates the queries and keys of `qkv`, `[tokens, 3 * hidden]`, each by its position in its sequence.
    pub fn apply(
        &self,
        qkv: &Tensor,
        cu_seqlens: &CuSeqlens,
        heads: usize,
    ) -> Result<(), KernelError> {
        let operands = rotary::Operands { qkv, cu_seqlens, heads };
        self.check(operands)?;
        Ok(backend_of(qkv.device())?.rotary(self, operands)?)
    }
}

impl VarlenAttention<'_> {
    /// Whether on this device the bias of queries, keys and values is better left to attention ([`Self::bias`]) than
    /// added by the linear layer before it. Not where [`Rotary`] turns them in between: they need their bias first.
    pub fn prefers_bias(device: &Device) -> bool {
        backend_of(device).is_ok_and(Backend::prefers_bias_in_attention)
    }

    /// `qkv`: `[tokens, 3 * hidden]`; gives `[tokens, hidden]`.
    pub fn forward(&self, qkv: &Tensor) -> Result<Tensor, KernelError> {
        let (tokens, width) = sizes(qkv);
        let out = output(qkv, (tokens, width / 3))?;
        self.forward_into(qkv, &out)?;
        Ok(out)
    }

    /// `qkv`: `[tokens, 3 * hidden]`; writes `out`: `[tokens, hidden]`.
    pub fn forward_into(&self, qkv: &Tensor, out: &Tensor) -> Result<(), KernelError> {
        let operands = varlen_attention::Operands { qkv, out };
        self.check(operands)?;
        Ok(backend_of(qkv.device())?.varlen_attention(self, operands)?)
    }
}

impl PoolNormalize<'_> {
    /// `x`: `[tokens, hidden]`; gives `[sequences, hidden]` in f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let shape = (self.cu_seqlens.sequences(), sizes(x).1);
        let out = Tensor::zeros(shape, DType::F32, x.device())?;
        self.forward_into(x, &out)?;
        Ok(out)
    }

    /// `x`: `[tokens, hidden]`; writes `out`: `[sequences, hidden]`, f32.
    pub fn forward_into(&self, x: &Tensor, out: &Tensor) -> Result<(), KernelError> {
        let operands = pool_normalize::Operands { x, out };
        self.check(operands)?;
        Ok(backend_of(x.device())?.pool_normalize(self, operands)?)
    }
}

impl LinearLayerNorm {
    /// `x`: `[tokens, in]`; `residual`: `[tokens, hidden]`; writes `out`: `[tokens, hidden]`. `projected`, of its
    /// shape, is scratch memory for the linear layer's result.
    pub fn forward_into(
        &self,
        x: &Tensor,
        residual: &Tensor,
        projected: &Tensor,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        let operands = linear_layer_norm::Operands { x, residual, projected, out };
        self.check(operands)?;
        Ok(backend_of(x.device())?.linear_layer_norm(self, operands)?)
    }
}

impl FeedForward {
    /// `x`, which is the residual too: `[tokens, hidden]`; writes `out` of its shape. `inner`: `[tokens, inner]` and
    /// `projected`: `[tokens, hidden]` are scratch memory for the results of the two linear layers.
    pub fn forward_into(
        &self,
        x: &Tensor,
        inner: &Tensor,
        projected: &Tensor,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        let operands = feed_forward::Operands { x, inner, projected, out };
        self.check(operands)?;
        Ok(backend_of(x.device())?.feed_forward(self, operands)?)
    }
}
