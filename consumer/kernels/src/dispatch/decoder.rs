//! The public calls of decoders' operations, as `dispatch` has those of encoders'.

use candle_core::{DType, Device, Tensor};

use crate::cpu::backend::Cpu;
use crate::error::KernelError;
use crate::ops::activation::Activation;
use crate::ops::add_rms_norm::{self, AddRmsNorm};
use crate::ops::backend::Backend;
use crate::ops::clamped_gate::{self, AnyGate, ClampedGate};
use crate::ops::decoder_backend::DecoderBackend;
use crate::ops::experts::{self, ExpertRows, Experts};
use crate::ops::linear::{self, Linear, Parameters};
use crate::ops::operand::output;
use crate::ops::paged_attention::{self, PagedAttention};
use crate::ops::pages::Pages;
use crate::ops::qkv_into_pages::{self, QkvIntoPages};
use crate::ops::rms_norm::{self, RmsNorm};
use crate::ops::route::{self, Router};
use crate::ops::routes::Routes;
use crate::ops::step_rows::StepRows;
use crate::ops::weight_rows;

/// The back-end of a device for `op`.
pub(super) fn backend_of(
    op: &'static str,
    device: &Device,
) -> Result<&'static dyn DecoderBackend, KernelError> {
    match device {
        Device::Cpu => Ok(&Cpu),
        Device::Cuda(_) => Err(KernelError::NoBackend { op, device: "CUDA" }),
        Device::Metal(_) => Err(KernelError::NoBackend { op, device: "Metal" }),
    }
}

impl Linear {
    /// Packs `weight` `[out, in]` in f32, whatever goes in: inputs of `dtype` are widened, and what comes out is of
    /// `dtype`, or f32 by [`Self::forward_f32_into`]. For layers that decide something, as a router does.
    pub fn wide(weight: &Tensor, bias: Option<&Tensor>, dtype: DType) -> Result<Self, KernelError> {
        let weight = weight.to_dtype(DType::F32)?;
        let parameters = Parameters::checked(&weight, bias, DType::F32)?;
        backend_of(linear::OP, weight.device())?;
        let packed = Cpu.pack(&weight)?;
        Ok(Self::of(packed, parameters, Activation::None, dtype))
    }

    /// `x`: `[tokens, in]`; writes `out`, as long as `[tokens, out]`, in f32 whatever the number type of `x`: what a
    /// head's logits are wanted in.
    pub fn forward_f32_into(&self, x: &Tensor, out: &mut [f32]) -> Result<(), KernelError> {
        self.check_f32(x, out.len())?;
        Ok(backend_of(linear::OP, x.device())?.linear_f32(self, x, out)?)
    }

    /// The rows `outputs` of the weight, `[outputs, in]`, into `out` of that shape. Not of an int8 layer.
    pub fn weight_rows_into(&self, outputs: &[u32], out: &Tensor) -> Result<(), KernelError> {
        let operands = weight_rows::Operands { outputs, out };
        self.check_rows(operands)?;
        Ok(backend_of(weight_rows::OP, out.device())?.weight_rows(self, operands)?)
    }
}

impl RmsNorm {
    /// `x`: `[rows, width]`; gives the normalised rows, of the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let out = output(x, x.dims2().unwrap_or_default())?;
        self.forward_into(x, &out)?;
        Ok(out)
    }

    /// `x`: `[rows, width]`; writes `out` of the same shape.
    pub fn forward_into(&self, x: &Tensor, out: &Tensor) -> Result<(), KernelError> {
        let operands = rms_norm::Operands { x, out };
        self.check(operands)?;
        Ok(backend_of(rms_norm::OP, x.device())?.rms_norm(self, operands)?)
    }
}

impl AddRmsNorm {
    /// Adds `x` to `sum`, then writes `sum` normalised to `out`: all `[tokens, hidden]`.
    pub fn forward_both_into(
        &self,
        x: &Tensor,
        sum: &Tensor,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        let operands = add_rms_norm::Operands { x, sum, out };
        self.check(operands)?;
        Ok(backend_of(add_rms_norm::OP, x.device())?.add_rms_norm(self, operands)?)
    }
}

impl QkvIntoPages<'_> {
    /// `qkv`: `[tokens, (heads + 2 kv_heads) * dim]`, `dim` as of `pages`. Changes its queries in place and writes its
    /// keys and values to `pages`.
    pub fn apply(
        &self,
        qkv: &Tensor,
        rows: &StepRows<'_>,
        pages: &Pages,
    ) -> Result<(), KernelError> {
        let operands = qkv_into_pages::Operands { qkv, rows, pages };
        self.check(operands)?;
        Ok(backend_of(qkv_into_pages::OP, qkv.device())?.qkv_into_pages(self, operands)?)
    }
}

impl PagedAttention<'_> {
    /// `qkv`: `[tokens, heads * dim or more]`, `dim` as of `pages`, a token's queries first; gives
    /// `[tokens, heads * value dim]`.
    pub fn forward(&self, qkv: &Tensor, pages: &Pages) -> Result<Tensor, KernelError> {
        let tokens = qkv.dims().first().copied().unwrap_or_default();
        let out = output(qkv, (tokens, self.heads * pages.value_dim()))?;
        self.forward_into(qkv, pages, &out)?;
        Ok(out)
    }

    /// As [`Self::forward`], but writes `out`: `[tokens, heads * value dim]`.
    pub fn forward_into(
        &self,
        qkv: &Tensor,
        pages: &Pages,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        let operands = paged_attention::Operands { qkv, pages, out };
        self.check(operands)?;
        Ok(backend_of(paged_attention::OP, qkv.device())?.paged_attention(self, operands)?)
    }
}

impl ClampedGate {
    /// `x`: `[tokens, 2 * inner]`; writes `out`: `[tokens, inner]`.
    pub fn forward_into(self, x: &Tensor, out: &Tensor) -> Result<(), KernelError> {
        let operands = clamped_gate::Operands { x, out };
        self.check(operands)?;
        Ok(backend_of(clamped_gate::OP, x.device())?.clamped_gate(self, operands)?)
    }
}

impl AnyGate {
    /// `x`: `[tokens, 2 * inner]`; writes `out`: `[tokens, inner]`.
    pub fn forward_into(self, x: &Tensor, out: &Tensor) -> Result<(), KernelError> {
        match self {
            Self::Plain(gate) => gate.forward_into(x, out),
            Self::Clamped(gate) => gate.forward_into(x, out),
        }
    }
}

impl Router {
    /// `x`: `[tokens, hidden]`; writes the tokens' `routes`.
    pub fn forward_into(&self, x: &Tensor, routes: &mut Routes) -> Result<(), KernelError> {
        let tokens = self.check(x)?;
        let operands = route::Operands { x, tokens, routes };
        Ok(backend_of(route::OP, x.device())?.route(self, operands)?)
    }
}

impl Experts {
    /// `x`: `[tokens, hidden]`, whose tokens go by `routes`; writes `out`, of its shape. `rows` are scratch memory.
    pub fn forward_into(
        &self,
        x: &Tensor,
        routes: &Routes,
        rows: ExpertRows<'_>,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        self.run(experts::Operands { x, routes, rows, out, onto: false })
    }

    /// As [`Self::forward_into`], but adds to what `out` holds: the result of an expert that every token takes.
    pub fn forward_onto(
        &self,
        x: &Tensor,
        routes: &Routes,
        rows: ExpertRows<'_>,
        out: &Tensor,
    ) -> Result<(), KernelError> {
        self.run(experts::Operands { x, routes, rows, out, onto: true })
    }

    fn run(&self, operands: experts::Operands<'_>) -> Result<(), KernelError> {
        self.check(operands)?;
        Ok(backend_of(experts::OP, operands.x.device())?.experts(self, operands)?)
    }
}
