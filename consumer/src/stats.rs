//! Figures that the worker counts of itself and the registry reports. Nothing is decided by them.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use forebay_fabric::clock::Clock;
use forebay_schemas::GenerateRecord;

/// Running figures. Each is reported on its own, so their order among each other does not matter.
#[derive(Debug, Default)]
pub struct Stats {
    tokens_done: AtomicU64,
    busy_us: AtomicU64,
    computed_at_ms: AtomicU64,
    pending_tokens: AtomicU64,
    /// Of a model that generates text.
    generation: Mutex<Option<GenerateRecord>>,
    clock: Clock,
}

/// The figures at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Tokens computed.
    pub tokens_done: u64,
    /// Milliseconds spent computing.
    pub busy_ms: u64,
    /// When a batch last ended, in Unix milliseconds; 0 before the first.
    pub computed_at_ms: u64,
    /// Tokens that wait to be packed.
    pub pending_tokens: u64,
}

impl Stats {
    /// Figures of zero, by this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// So many tokens were computed, in so many microseconds.
    pub fn computed(&self, tokens: u64, busy_us: u64) {
        self.tokens_done.fetch_add(tokens, Relaxed);
        self.busy_us.fetch_add(busy_us, Relaxed);
        self.computed_at_ms.store(self.clock.now_ms(), Relaxed);
    }

    /// So many tokens wait to be packed.
    pub fn pending(&self, tokens: usize) {
        self.pending_tokens.store(tokens as u64, Relaxed);
    }

    /// Generation is at this point.
    pub fn generates(&self, record: GenerateRecord) {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }

    /// Where generation is; `None` for a model that generates no text.
    pub fn generation(&self) -> Option<GenerateRecord> {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The figures now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            tokens_done: self.tokens_done.load(Relaxed),
            busy_ms: self.busy_us.load(Relaxed) / 1_000,
            computed_at_ms: self.computed_at_ms.load(Relaxed),
            pending_tokens: self.pending_tokens.load(Relaxed),
        }
    }
}
