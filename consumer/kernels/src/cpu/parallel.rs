//! An operation's work, shared among the rayon thread pool that its caller is in, or kept to its caller's thread.

use std::cell::Cell;

use rayon::prelude::*;

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with every operation that it calls on this thread kept to this thread: for callers that
/// have shared out the work by themselves.
pub fn alone<R>(work: impl FnOnce() -> R) -> R {
    /// Puts back what was, also when `work` panics.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }
    let _restore = Restore(ALONE.replace(true));
    work()
}

/// How many threads an operation can share its work among.
pub(crate) fn threads() -> usize {
    if ALONE.get() { 1 } else { rayon::current_num_threads() }
}

/// Runs every task below `tasks`, in any order.
pub(crate) fn for_each(tasks: usize, work: impl Fn(usize) + Sync) {
    if tasks <= 1 || threads() == 1 {
        (0..tasks).for_each(work);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(&work);
    }
}
