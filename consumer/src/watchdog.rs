//! Ends a process whose device hangs: the broker delivers its jobs to another worker.
//!
//! On a thread of its own, so that nothing that hangs keeps it from looking.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The engine's calls, reported by the stage that makes them.
#[derive(Debug, Default)]
pub struct EngineCalls {
    begun: AtomicU64,
    /// The number of the call that is under way; 0 between calls.
    under_way: AtomicU64,
}

impl EngineCalls {
    /// The engine begins a call.
    pub fn begin(&self) {
        let call = self.begun.fetch_add(1, Relaxed) + 1;
        self.under_way.store(call, Relaxed);
    }

    /// The engine's call has ended.
    pub fn end(&self) {
        self.under_way.store(0, Relaxed);
    }
}

/// Watches the engine's calls from now on. One that takes longer than `deadline` aborts the process.
pub fn start(calls: Arc<EngineCalls>, deadline: Duration) -> std::io::Result<()> {
    let watch = move || {
        let mut seen = Seen { call: 0, since: Instant::now() };
        loop {
            thread::sleep(LOOK_EVERY);
            if let Some(for_how_long) = seen.look(calls.under_way.load(Relaxed), Instant::now())
                && for_how_long > deadline
            {
                tracing::error!(
                    deadline_s = deadline.as_secs(),
                    "the engine is stuck in a batch: this worker ends, and its jobs go back to their queue"
                );
                // Not an exit in good order: that could wait for the very thread that hangs.
                std::process::abort();
            }
        }
    };
    thread::Builder::new().name("watchdog".into()).spawn(watch).map(drop)
}

/// The call that was seen last, and when it was first seen.
struct Seen {
    call: u64,
    since: Instant,
}

impl Seen {
    /// How long `call` has been under way, as far as was seen; `None` between calls, whose number is 0.
    fn look(&mut self, call: u64, now: Instant) -> Option<Duration> {
        if call != self.call {
            *self = Self { call, since: now };
        }
        (call != 0).then(|| now - self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_grows_old_and_the_next_begins_at_zero() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut seen = Seen { call: 0, since: start };
        assert_eq!(seen.look(0, at(100)), None, "nothing is under way");
        assert_eq!(seen.look(1, at(200)), Some(Duration::ZERO));
        assert_eq!(seen.look(1, at(260)), Some(Duration::from_secs(60)));
        assert_eq!(seen.look(2, at(261)), Some(Duration::ZERO));
        assert_eq!(seen.look(0, at(900)), None);
    }
}
