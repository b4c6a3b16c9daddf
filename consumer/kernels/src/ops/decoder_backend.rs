//! The interface of back-ends that decoders run on: the operations that need more than an encoder's.

use candle_core::Result;

use super::add_rms_norm::{self, AddRmsNorm};
use super::paged_attention::{self, PagedAttention};
use super::qkv_into_pages::{self, QkvIntoPages};
use super::rms_norm::{self, RmsNorm};

/// Computes decoders' operations on one kind of device. Operands come checked, as those of
/// [`Backend`](super::backend::Backend).
pub(crate) trait DecoderBackend {
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

    /// See [`PagedAttention`].
    fn paged_attention(
        &self,
        op: &PagedAttention<'_>,
        operands: paged_attention::Operands<'_>,
    ) -> Result<()>;
}
