//! The interface of back-ends that decoders run on: the operations that need more than an encoder's.

use candle_core::{Result, Tensor};

use super::add_rms_norm::{self, AddRmsNorm};
use super::clamped_gate::{self, ClampedGate};
use super::experts::{self, Experts};
use super::head_linear::{self, HeadLinear};
use super::latent_into_pages::{self, LatentIntoPages};
use super::linear::Linear;
use super::paged_attention::{self, PagedAttention};
use super::qkv_into_pages::{self, QkvIntoPages};
use super::rms_norm::{self, RmsNorm};
use super::route::{self, Router};
use super::weight_rows;

/// Computes decoders' operations on one kind of device. Operands come checked, as those of
/// [`Backend`](super::backend::Backend).
pub(crate) trait DecoderBackend {
    /// A linear layer whose sums are stored in f32, whatever its inputs are: logits.
    fn linear_f32(&self, op: &Linear, x: &Tensor, out: &mut [f32]) -> Result<()>;

    /// See [`Linear::weight_rows_into`].
    fn weight_rows(&self, op: &Linear, operands: weight_rows::Operands<'_>) -> Result<()>;

    /// See [`RmsNorm`].
    fn rms_norm(&self, op: &RmsNorm, operands: rms_norm::Operands<'_>) -> Result<()>;

    /// See [`AddRmsNorm`].
    fn add_rms_norm(&self, op: &AddRmsNorm, operands: add_rms_norm::Operands<'_>) -> Result<()>;

    /// See [`QkvIntoPages`].
    fn qkv_into_pages(
        &self,
        op: &QkvIntoPages<'_>,
        operands: qkv_into_pages::Operands<'_>,
    ) -> Result<()>;

    /// See [`LatentIntoPages`].
    fn latent_into_pages(
        &self,
        op: &LatentIntoPages<'_>,
        operands: latent_into_pages::Operands<'_>,
    ) -> Result<()>;

    /// See [`HeadLinear`].
    fn head_linear(&self, op: &HeadLinear, operands: head_linear::Operands<'_>) -> Result<()>;

    /// See [`PagedAttention`].
    fn paged_attention(
        &self,
        op: &PagedAttention<'_>,
        operands: paged_attention::Operands<'_>,
    ) -> Result<()>;

    /// See [`ClampedGate`].
    fn clamped_gate(&self, op: ClampedGate, operands: clamped_gate::Operands<'_>) -> Result<()>;

    /// See [`Router`].
    fn route(&self, op: &Router, operands: route::Operands<'_>) -> Result<()>;

    /// See [`Experts`].
    fn experts(&self, op: &Experts, operands: experts::Operands<'_>) -> Result<()>;
}
