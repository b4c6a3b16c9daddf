//! An operation's work, shared among the threads of the [`SpinPool`] whose step it is in or else of the rayon thread
//! pool that its caller is in, or kept to its caller's thread.
//!
//! [`SpinPool`]: super::spin_pool::SpinPool

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use rayon::prelude::*;

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
    static SHARING: RefCell<Option<Arc<dyn Share>>> = const { RefCell::new(None) };
}

/// Threads that are ready for tasks of operations.
pub(super) trait Share {
    /// How many there are, with the caller's.
    fn threads(&self) -> usize;

    /// Runs every task below `tasks`, in any order, and returns when all are done.
    fn run(&self, tasks: usize, work: &(dyn Fn(usize) + Sync));
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

/// Runs `work` with every operation that it calls on this thread shared by `threads`.
pub(super) fn shared_by<R>(threads: Arc<dyn Share>, work: impl FnOnce() -> R) -> R {
    /// Puts back what was, also when `work` panics.
    struct Restore(Option<Arc<dyn Share>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SHARING.set(self.0.take());
        }
    }
    let _restore = Restore(SHARING.replace(Some(threads)));
    work()
}

fn sharing() -> Option<Arc<dyn Share>> {
    SHARING.with_borrow(Clone::clone)
}

/// How many threads an operation can share its work among.
pub(crate) fn threads() -> usize {
    if ALONE.get() {
        return 1;
    }
    sharing().map_or_else(rayon::current_num_threads, |sharing| sharing.threads())
}

/// Runs every task below `tasks`, in any order, shared as operations are.
pub fn for_each(tasks: usize, work: impl Fn(usize) + Sync) {
    if tasks <= 1 || threads() == 1 {
        (0..tasks).for_each(work);
    } else if let Some(sharing) = sharing() {
        sharing.run(tasks, &work);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(&work);
    }
}
