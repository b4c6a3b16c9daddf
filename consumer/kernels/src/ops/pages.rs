//! Pages: the memory that attention's keys and values of generated sequences lie in.

use candle_core::{DType, Device, Tensor};
use half::vec::HalfBitsVecExt;

use super::operand::dtype_name;
use crate::error::KernelError;

/// Tokens a page: as many keys as one panel of a matrix product has columns, so that attention multiplies a page as it
/// lies.
pub const PAGE_TOKENS: usize = 32;

/// One layer's keys and values, in pages of [`PAGE_TOKENS`] tokens. Which page holds which tokens of which sequence
/// only the page tables of [`StepRows`](crate::StepRows) say.
///
/// Values are memory of their own, or the first values of their keys (latent attention), which are stored once then.
///
/// A page must be filled from its first token on. It may be given to another sequence at any time: when a token is
/// written to its first slot, nothing is left of what it held. A clone is the same memory.
#[derive(Debug, Clone)]
pub struct Pages {
    /// `[pages, values of a page]`, in a layout of the back-end's own.
    pub(crate) store: Tensor,
    kv_heads: usize,
    head_dim: usize,
    /// How many values of a key are its token's values; `None` where these are stored beside it.
    prefix: Option<usize>,
}

impl Pages {
    /// `count` pages for `kv_heads` heads of `head_dim` values in f32 or bf16. On the processor memory that was never
    /// written is not yet taken from the system.
    pub fn new(
        count: usize,
        kv_heads: usize,
        head_dim: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, KernelError> {
        let bytes = Self::page_bytes(kv_heads, head_dim, dtype);
        Self::of(count, [kv_heads, head_dim], None, bytes, dtype, device)
    }

    /// As [`Self::new`], for one head whose keys have `key_dim` values, the first `value_dim` of which are the values.
    pub fn latent(
        count: usize,
        key_dim: usize,
        value_dim: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, KernelError> {
        let bytes = Self::latent_page_bytes(key_dim, dtype);
        Self::of(count, [1, key_dim], Some(value_dim), bytes, dtype, device)
    }

    fn of(
        count: usize,
        [kv_heads, head_dim]: [usize; 2],
        prefix: Option<usize>,
        bytes: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, KernelError> {
        let wrong = |expected: &str| KernelError::Shape {
            op: "pages",
            operand: "store",
            actual: vec![count, kv_heads, head_dim],
            expected: expected.to_owned(),
        };
        if !matches!(dtype, DType::F32 | DType::BF16) {
            return Err(KernelError::DType {
                op: "pages",
                operand: "store",
                actual: dtype,
                expected: "F32, BF16",
            });
        }
        if kv_heads == 0 || head_dim == 0 {
            return Err(wrong("at least one head of at least one value"));
        }
        if prefix.is_some_and(|values| values == 0 || values > head_dim) {
            return Err(wrong("values that are some or all of their keys' values"));
        }
        if dtype == DType::BF16 && !head_dim.is_multiple_of(2) {
            return Err(wrong("heads of an even size in bf16"));
        }
        if bytes.checked_mul(count).is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(wrong("pages that an address space holds"));
        }
        let values = bytes / dtype.size_in_bytes();
        Ok(Self { store: zeros((count, values), dtype, device)?, kv_heads, head_dim, prefix })
    }

    /// Bytes that a page of one layer takes. Values are stored in lines of 32, so heads of other sizes take a little
    /// more than they hold. Saturates where a page can't exist.
    pub fn page_bytes(kv_heads: usize, head_dim: usize, dtype: DType) -> usize {
        let values =
            head_dim.saturating_add(head_dim.checked_next_multiple_of(32).unwrap_or(usize::MAX));
        [kv_heads, PAGE_TOKENS, dtype.size_in_bytes()]
            .into_iter()
            .fold(values, usize::saturating_mul)
    }

    /// Bytes that a page of [`Self::latent`] takes. Saturates where a page can't exist.
    pub fn latent_page_bytes(key_dim: usize, dtype: DType) -> usize {
        key_dim.saturating_mul(PAGE_TOKENS * dtype.size_in_bytes())
    }

    /// Bytes that each of these pages takes.
    pub fn bytes_per_page(&self) -> usize {
        self.store.dims()[1] * self.dtype().size_in_bytes()
    }

    /// How many pages there are.
    pub fn count(&self) -> usize {
        self.store.dims()[0]
    }

    /// Heads of keys and values.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Values of a head's key, and of its value too where that is no prefix of the key.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Values that attention weighs for each head.
    pub fn value_dim(&self) -> usize {
        self.prefix.unwrap_or(self.head_dim)
    }

    /// Whether values are the first ones of their keys.
    pub fn is_latent(&self) -> bool {
        self.prefix.is_some()
    }

    /// The number type of keys and values.
    pub fn dtype(&self) -> DType {
        self.store.dtype()
    }

    /// The device that they lie on.
    pub fn device(&self) -> &Device {
        self.store.device()
    }

    /// Refuses pages of other heads or another number type than those of `op`.
    pub(crate) fn check(
        &self,
        op: &'static str,
        kv_heads: usize,
        dtype: DType,
    ) -> Result<(), KernelError> {
        if self.kv_heads != kv_heads {
            return Err(KernelError::Shape {
                op,
                operand: "pages",
                actual: vec![self.count(), self.kv_heads, self.head_dim],
                expected: format!("{kv_heads} heads"),
            });
        }
        if self.dtype() != dtype {
            return Err(KernelError::DType {
                op,
                operand: "pages",
                actual: self.dtype(),
                expected: dtype_name(dtype),
            });
        }
        Ok(())
    }
}

/// Zeros, on the processor in memory that the system gives as it is written. (The standard library asks for that only
/// where it knows that a value of zeros is zero in bits: of integers and f32, not of bf16.)
fn zeros(shape: (usize, usize), dtype: DType, device: &Device) -> Result<Tensor, KernelError> {
    if dtype == DType::BF16 && device.is_cpu() {
        let bits = vec![0_u16; shape.0 * shape.1];
        let values: Vec<half::bf16> = bits.reinterpret_into();
        return Ok(Tensor::from_vec(values, shape, device)?);
    }
    Ok(Tensor::zeros(shape, dtype, device)?)
}
