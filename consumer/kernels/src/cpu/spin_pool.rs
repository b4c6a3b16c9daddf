//! A thread pool whose threads spin while a step runs and sleep between steps.
//!
//! A decode step has some hundred operations of 20 to 100 microseconds each, and waking a thread takes as long as one
//! of them. In a step the threads look for tasks without a pause, so that handing one over takes two cache lines that
//! move: less than a microsecond. A thread that the system takes off its core holds up only the tasks that it has
//! claimed; the others claim the rest.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::parallel::{Share, alone, shared_by};

/// Looks without finding anything before a thread offers its core to others: some tens of microseconds, longer than
/// the gaps of a step whose operations are all shared.
const LOOKS: usize = 2_000;

/// Threads for the operations of steps. Dropping it ends them.
#[derive(Debug)]
pub struct SpinPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One step at a time.
    turn: Mutex<()>,
}

/// A value on cache lines of its own: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// An operation's tasks, as long as they run.
type Work = *const (dyn Fn(usize) + Sync);

struct Shared {
    threads: usize,
    /// Tasks of the operation in the upper half, those that are claimed in the lower.
    claims: Apart<AtomicU64>,
    /// Tasks that are done.
    done: Apart<AtomicUsize>,
    /// Written before `claims` publishes tasks, read after one was claimed.
    work: UnsafeCell<Option<Work>>,
    in_step: AtomicBool,
    ends: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `work` is written only by the thread that has the turn, while no task is claimed and not done; it is read
// only by threads that have claimed a task and not done it. What it points to is `Sync` and outlives the tasks, since
// `run` returns when all are done.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// A lock whose holder panicked guards nothing that could be half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SpinPool {
    /// A pool of `threads` threads, of which the caller of each step is one.
    pub fn new(threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            threads: threads.max(1),
            claims: Apart::default(),
            done: Apart::default(),
            work: UnsafeCell::new(None),
            in_step: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Self { shared, workers: Vec::new(), turn: Mutex::new(()) };
        for index in 1..pool.shared.threads {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("spin-{index}"));
            // A pool that is dropped ends those that have started.
            pool.workers.push(builder.spawn(move || alone(|| shared.serve()))?);
        }
        Ok(pool)
    }

    /// How many threads it has, with the caller's.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Runs `work` on this thread, with the operations that it calls shared among the pool's threads, which spin
    /// meanwhile. One step at a time: others wait.
    pub fn step<R>(&self, work: impl FnOnce() -> R) -> R {
        /// Ends the step, also when `work` panics.
        struct Step<'a>(&'a Shared);
        impl Drop for Step<'_> {
            fn drop(&mut self) {
                self.0.in_step.store(false, Ordering::Release);
            }
        }
        let _turn = lock(&self.turn);
        self.shared.in_step.store(true, Ordering::Release);
        let _step = Step(&self.shared);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        shared_by(Arc::<Shared>::clone(&self.shared), work)
    }
}

impl Drop for SpinPool {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // Its tasks' panics were caught.
            let _ = worker.join();
        }
    }
}

impl Share for Shared {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        // More than can be counted is nothing that an operation has; kept to this thread, it is right all the same.
        let Ok(count) = u32::try_from(tasks) else {
            (0..tasks).for_each(work);
            return;
        };
        // SAFETY: only the lifetime changes; the pointer is used until this function returns.
        let work = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Work>(work) };
        // SAFETY: this thread has the turn, and all tasks that were claimed are done.
        unsafe { *self.work.get() = Some(work) };
        self.done.0.store(0, Ordering::Relaxed);
        self.claims.0.store(u64::from(count) << 32, Ordering::Release);
        // Operations within a task stay on its thread, as those of the workers do.
        alone(|| while self.serve_one() {});
        let mut looks = 0;
        while self.done.0.load(Ordering::Acquire) < tasks {
            pause(&mut looks);
        }
        if let Some(panic) = lock(&self.panic).take() {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    /// A worker's life.
    fn serve(&self) {
        while !self.ends.load(Ordering::Acquire) {
            let mut looks = 0;
            while self.in_step.load(Ordering::Acquire) {
                if self.serve_one() {
                    looks = 0;
                } else {
                    pause(&mut looks);
                }
            }
            thread::park();
        }
    }

    /// Claims a task and runs it, if there is one.
    fn serve_one(&self) -> bool {
        let mut claims = self.claims.0.load(Ordering::Relaxed);
        let task = loop {
            let next = claims & u64::from(u32::MAX);
            if next >= claims >> 32 {
                return false;
            }
            let claimed = self.claims.0.compare_exchange_weak(
                claims,
                claims + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            match claimed {
                Ok(_) => break next as usize,
                Err(now) => claims = now,
            }
        };
        // SAFETY: a task is claimed and not done: nothing writes, and what is pointed to is alive.
        let work = unsafe { (*self.work.get()).map(|work| &*work) };
        if let Some(work) = work
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(task)))
        {
            lock(&self.panic).get_or_insert(panic);
        }
        self.done.0.fetch_add(1, Ordering::Release);
        true
    }
}

/// Waits a moment; after many, lets other threads have the core.
fn pause(looks: &mut usize) {
    if *looks < LOOKS {
        *looks += 1;
        std::hint::spin_loop();
    } else {
        thread::yield_now();
    }
}
