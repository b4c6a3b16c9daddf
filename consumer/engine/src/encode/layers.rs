//! The trait that an encoder family implements.

use candle_core::Tensor;
use forebay_kernels::CuSeqlens;

use crate::encode::workspace::Workspace;
use crate::error::EngineError;

/// A model's layers, from token ids to the last hidden state.
pub(crate) trait Layers: Send + Sync {
    /// The last hidden states `[tokens, hidden]`, in a buffer of `space`.
    fn forward(
        &self,
        sequences: Sequences<'_>,
        space: &mut Workspace,
    ) -> Result<Tensor, EngineError>;
}

/// Packed sequences that are computed together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sequences<'a> {
    /// The ids of all sequences, end to end.
    pub(crate) token_ids: &'a [u32],
    /// For each token 1 if it is of a second text, else 0; `None` where there is no pair.
    pub(crate) type_ids: Option<&'a [u32]>,
    /// Where each sequence begins and ends.
    pub(crate) cu_seqlens: &'a CuSeqlens,
    /// Whether each sequence is a query.
    pub(crate) queries: &'a [bool],
    /// How many tokens of each sequence are seen by attention, from its first on; `None` where all are.
    pub(crate) seen: Option<&'a [usize]>,
}
