//! Memory that a thread keeps from task to task, so that operations allocate nothing once they are warm.

use std::cell::RefCell;

use half::bf16;

/// One thread's buffers; each user takes the sizes that it needs.
#[derive(Debug, Default)]
pub(crate) struct Scratch<E> {
    /// A row, or a few queries' scores, in f32.
    pub(crate) floats: Vec<f32>,
    /// A few queries' sums.
    pub(crate) sums: Vec<f32>,
    /// A head's keys, packed.
    pub(crate) keys: Vec<E>,
    /// A head's values, packed.
    pub(crate) values: Vec<E>,
    /// A few queries, with their bias.
    pub(crate) queries: Vec<E>,
    /// A few queries' probabilities.
    pub(crate) probabilities: Vec<E>,
}

thread_local! {
    static F32: RefCell<Scratch<f32>> = RefCell::default();
    static BF16: RefCell<Scratch<bf16>> = RefCell::default();
}

/// Which of this thread's buffers are a number type's.
pub(crate) trait HasScratch: Sized {
    /// Lends this thread's buffers for the time of `work`, which must not ask for them again.
    fn with_scratch<R>(work: impl FnOnce(&mut Scratch<Self>) -> R) -> R;
}

impl HasScratch for f32 {
    fn with_scratch<R>(work: impl FnOnce(&mut Scratch<Self>) -> R) -> R {
        F32.with_borrow_mut(work)
    }
}

impl HasScratch for bf16 {
    fn with_scratch<R>(work: impl FnOnce(&mut Scratch<Self>) -> R) -> R {
        BF16.with_borrow_mut(work)
    }
}

/// The first `len` values of a buffer, which grows where it must. What they hold is left over from earlier work.
pub(crate) fn sized<E: Copy + Default>(buffer: &mut Vec<E>, len: usize) -> &mut [E] {
    if buffer.len() < len {
        buffer.resize(len, E::default());
    }
    &mut buffer[..len]
}
