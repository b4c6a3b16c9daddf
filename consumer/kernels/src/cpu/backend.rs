//! The processor as a [`Backend`]: each operation's file does the work.

use candle_core::{DType, Result, Tensor};

use super::prefers_bf16::prefers_bf16;
use crate::cpu;
use crate::ops::add_layer_norm::{self, AddLayerNorm};
use crate::ops::add_rms_norm::{self, AddRmsNorm};
use crate::ops::backend::Backend;
use crate::ops::blocks::{Fp4Block, Q4Block, Q8Block};
use crate::ops::clamped_gate::{self, ClampedGate};
use crate::ops::decoder_backend::DecoderBackend;
use crate::ops::embed_layer_norm::{self, EmbedLayerNorm};
use crate::ops::experts::{self, Experts};
use crate::ops::gate::{self, Gate};
use crate::ops::head_linear::{self, HeadLinear};
use crate::ops::latent_into_pages::{self, LatentIntoPages};
use crate::ops::layer_norm::{self, LayerNorm};
use crate::ops::linear::{self, Linear, PackedWeight};
use crate::ops::paged_attention::{self, PagedAttention};
use crate::ops::pool_normalize::{self, PoolNormalize};
use crate::ops::qkv_into_pages::{self, QkvIntoPages};
use crate::ops::rms_norm::{self, RmsNorm};
use crate::ops::rotary::{self, Rotary};
use crate::ops::route::{self, Router};
use crate::ops::varlen_attention::{self, VarlenAttention};
use crate::ops::weight_rows;

/// The processor.
pub(crate) struct Cpu;

impl Backend for Cpu {
    /// Where the processor multiplies bf16 faster ([`prefers_bf16`]) it does so; elsewhere the packed weight is f32, of
    /// values that bf16 holds, and a chunk of `x` is widened first.
    fn pack(&self, weight: &Tensor) -> Result<PackedWeight> {
        let dtype = weight.dtype();
        let widens = dtype == DType::BF16 && !prefers_bf16();
        cpu::linear::pack(weight, if widens { DType::F32 } else { dtype })
    }

    fn pack_int8(&self, weight: &Tensor) -> Result<PackedWeight> {
        cpu::linear::int8::pack(weight)
    }

    fn pack_q4(&self, sizes: [usize; 2], blocks: &[Q4Block]) -> Result<PackedWeight> {
        cpu::linear::blocks::pack(sizes, blocks)
    }

    fn pack_q8(&self, sizes: [usize; 2], blocks: &[Q8Block]) -> Result<PackedWeight> {
        cpu::linear::blocks::pack(sizes, blocks)
    }

    fn pack_fp4(&self, sizes: [usize; 2], blocks: &[Fp4Block]) -> Result<PackedWeight> {
        cpu::linear::blocks::pack(sizes, blocks)
    }

    fn prefers_bias_in_attention(&self) -> bool {
        false
    }

    fn linear(&self, op: &Linear, operands: linear::Operands<'_>) -> Result<()> {
        cpu::linear::linear(op, operands)
    }

    fn layer_norm(&self, op: &LayerNorm, operands: layer_norm::Operands<'_>) -> Result<()> {
        cpu::layer_norm::layer_norm(op, operands)
    }

    fn add_layer_norm(
        &self,
        op: &AddLayerNorm,
        operands: add_layer_norm::Operands<'_>,
    ) -> Result<()> {
        cpu::add_layer_norm::add_layer_norm(op, operands)
    }

    fn embed_layer_norm(
        &self,
        op: &EmbedLayerNorm<'_>,
        operands: embed_layer_norm::Operands<'_>,
    ) -> Result<()> {
        cpu::embed_layer_norm::embed_layer_norm(op, operands)
    }

    fn gate(&self, op: Gate, operands: gate::Operands<'_>) -> Result<()> {
        cpu::gate::gate(op, operands)
    }

    fn rotary(&self, op: &Rotary, operands: rotary::Operands<'_>) -> Result<()> {
        cpu::rotary::rotary(op, operands)
    }

    fn varlen_attention(
        &self,
        op: &VarlenAttention<'_>,
        operands: varlen_attention::Operands<'_>,
    ) -> Result<()> {
        cpu::varlen_attention::varlen_attention(op, operands)
    }

    fn pool_normalize(
        &self,
        op: &PoolNormalize<'_>,
        operands: pool_normalize::Operands<'_>,
    ) -> Result<()> {
        cpu::pool_normalize::pool_normalize(op, operands)
    }
}

impl DecoderBackend for Cpu {
    fn linear_f32(&self, op: &Linear, x: &Tensor, out: &mut [f32]) -> Result<()> {
        cpu::linear::linear_f32(op, x, out)
    }

    fn weight_rows(&self, op: &Linear, operands: weight_rows::Operands<'_>) -> Result<()> {
        cpu::linear::weight_rows::weight_rows(op, operands)
    }

    fn rms_norm(&self, op: &RmsNorm, operands: rms_norm::Operands<'_>) -> Result<()> {
        cpu::rms_norm::rms_norm(op, operands)
    }

    fn add_rms_norm(&self, op: &AddRmsNorm, operands: add_rms_norm::Operands<'_>) -> Result<()> {
        cpu::add_rms_norm::add_rms_norm(op, operands)
    }

    fn qkv_into_pages(
        &self,
        op: &QkvIntoPages<'_>,
        operands: qkv_into_pages::Operands<'_>,
    ) -> Result<()> {
        cpu::qkv_into_pages::qkv_into_pages(op, operands)
    }

    fn latent_into_pages(
        &self,
        op: &LatentIntoPages<'_>,
        operands: latent_into_pages::Operands<'_>,
    ) -> Result<()> {
        cpu::latent_into_pages::latent_into_pages(op, operands)
    }

    fn head_linear(&self, op: &HeadLinear, operands: head_linear::Operands<'_>) -> Result<()> {
        cpu::linear::head_linear::head_linear(op, operands)
    }

    fn paged_attention(
        &self,
        op: &PagedAttention<'_>,
        operands: paged_attention::Operands<'_>,
    ) -> Result<()> {
        cpu::paged_attention::paged_attention(op, operands)
    }

    fn clamped_gate(&self, op: ClampedGate, operands: clamped_gate::Operands<'_>) -> Result<()> {
        cpu::clamped_gate::clamped_gate(op, operands)
    }

    fn route(&self, op: &Router, operands: route::Operands<'_>) -> Result<()> {
        cpu::route::route(op, operands)
    }

    fn experts(&self, op: &Experts, operands: experts::Operands<'_>) -> Result<()> {
        cpu::experts::experts(op, operands)
    }
}
