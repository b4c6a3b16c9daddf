//! A generator around another, which counts, is slow, or asks the worker to drain amid a step.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use forebay_engine::{EngineError, Generator, Keep, Opened, PendingPicks, Room, SequenceId, Step};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The additions to each step.
#[derive(Debug, Clone, Default)]
pub struct TestDevice {
    /// How much longer a step takes.
    pub step_takes: Duration,
    /// Drains amid the first step with so many sequences.
    pub drains: Option<(usize, CancellationToken)>,
    /// The counts.
    pub counts: Arc<Counts>,
}

/// Counts of steps.
#[derive(Debug, Default)]
pub struct Counts {
    /// Tokens that were picked.
    pub picks: AtomicU64,
    /// Steps that were begun after it asked to drain.
    pub steps_after: AtomicU64,
    /// When it asked to drain.
    pub drained_at: Mutex<Option<Instant>>,
}

struct Around {
    device: TestDevice,
    inner: Box<dyn Generator>,
}

impl TestDevice {
    /// A generator that does so around another.
    pub fn around(&self, inner: Box<dyn Generator>) -> Box<dyn Generator> {
        Box::new(Around { device: self.clone(), inner })
    }
}

impl Generator for Around {
    fn open(&mut self, tokens: &[u32], salt: u64) -> Result<Opened, EngineError> {
        self.inner.open(tokens, salt)
    }

    fn begin(&mut self, step: &Step<'_>) -> Result<PendingPicks, EngineError> {
        std::thread::sleep(self.device.step_takes);
        let counts = &self.device.counts;
        let picks = step.rows.iter().filter(|row| row.pick.is_some()).count();
        counts.picks.fetch_add(picks as u64, Relaxed);
        if let Some((sequences, drain)) = &self.device.drains {
            if drain.is_cancelled() {
                counts.steps_after.fetch_add(1, Relaxed);
            } else if step.rows.len() == *sequences {
                *counts.drained_at.lock().unwrap() = Some(Instant::now());
                drain.cancel();
            }
        }
        self.inner.begin(step)
    }

    fn close(&mut self, id: SequenceId, keep: Keep) {
        self.inner.close(id, keep);
    }

    fn room(&self) -> Room {
        self.inner.room()
    }
}
