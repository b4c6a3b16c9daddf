//! What the worker counts of itself, shared by the stages and told by the registry.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use forebay_fabric::clock;

/// Running counts. Each is told on its own, so their order among each other does not matter.
#[derive(Debug, Default)]
pub struct Stats {
    in_flight: AtomicU64,
    jobs_done: AtomicU64,
    tokens_done: AtomicU64,
    busy_us: AtomicU64,
    progress_at_ms: AtomicU64,
    pending_tokens: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Jobs taken and not yet settled.
    pub in_flight: u64,
    /// Jobs settled.
    pub jobs_done: u64,
    /// Tokens computed.
    pub tokens_done: u64,
    /// Milliseconds spent computing.
    pub busy_ms: u64,
    /// When a batch or a settlement last ended, or nothing was there to do.
    pub progress_at_ms: u64,
    /// Tokens that wait to be packed.
    pub pending_tokens: u64,
}

impl Stats {
    /// A message was taken.
    pub fn taken(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// So many messages were settled.
    pub fn settled(&self, jobs: u64) {
        self.in_flight.fetch_sub(jobs, Relaxed);
        self.jobs_done.fetch_add(jobs, Relaxed);
        self.progress_at_ms.store(clock::now_ms(), Relaxed);
    }

    /// A batch was computed.
    pub fn computed(&self, tokens: u64, took: std::time::Duration) {
        self.tokens_done.fetch_add(tokens, Relaxed);
        self.busy_us.fetch_add(took.as_micros() as u64, Relaxed);
        self.progress_at_ms.store(clock::now_ms(), Relaxed);
    }

    /// So many tokens wait to be packed.
    pub fn pending(&self, tokens: usize) {
        self.pending_tokens.store(tokens as u64, Relaxed);
    }

    /// The counts now.
    pub fn snapshot(&self) -> Snapshot {
        let in_flight = self.in_flight.load(Relaxed);
        let idle = in_flight == 0;
        Snapshot {
            in_flight,
            jobs_done: self.jobs_done.load(Relaxed),
            tokens_done: self.tokens_done.load(Relaxed),
            busy_ms: self.busy_us.load(Relaxed) / 1_000,
            progress_at_ms: if idle { clock::now_ms() } else { self.progress_at_ms.load(Relaxed) },
            pending_tokens: self.pending_tokens.load(Relaxed),
        }
    }
}
