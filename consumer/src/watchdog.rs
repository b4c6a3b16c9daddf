//! Ends a process whose device hangs: the broker hands its work to somebody else.
//!
//! On a thread of its own, so that nothing that hangs keeps it from looking.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::stats::Stats;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Watches the engine's calls from now on. One that takes longer than `deadline` aborts the process.
pub fn start(stats: Arc<Stats>, deadline: Duration) -> std::io::Result<()> {
    let watch = move || {
        let mut seen = Seen { call: 0, since: Instant::now() };
        loop {
            thread::sleep(LOOK_EVERY);
            if let Some(for_how_long) = seen.look(stats.engine_call(), Instant::now())
                && for_how_long > deadline
            {
                tracing::error!(
                    deadline_s = deadline.as_secs(),
                    "the engine is stuck in a batch: this worker ends, and its work is done elsewhere"
                );
                // Not an exit in good order: that could wait for the very thread that hangs.
                std::process::abort();
            }
        }
    };
    thread::Builder::new().name("watchdog".into()).spawn(watch).map(drop)
}

/// The call that was seen last, and since when.
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
    fn a_call_grows_old_and_the_next_begins_anew() {
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
