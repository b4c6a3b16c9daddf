//! Fail points: named points at which a test can kill a program, as a machine that loses its power would.
//!
//! `FOREBAY_FAIL_POINTS=after_compute=kill:3,before_ack=kill` ends the process by SIGKILL when it passes
//! `after_compute` the third time, or `before_ack` the first time. With `hang` instead of `kill` the thread that passes
//! stands still there, so that a test can look at the process before it kills it. Without the cargo feature
//! `fail-points`, which no released program has, a point compiles to nothing.

/// The variable that arms points.
pub const VARIABLE: &str = "FOREBAY_FAIL_POINTS";

/// Dies or hangs here if this point is armed and its turn has come.
#[cfg(not(feature = "fail-points"))]
#[inline]
pub fn point(_name: &str) {}

#[cfg(feature = "fail-points")]
pub use armed::point;

#[cfg(feature = "fail-points")]
mod armed {
    use std::{
        collections::HashMap,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering::Relaxed},
        },
    };

    /// An event at a point.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Action {
        Kill,
        Hang,
    }

    /// A point that is armed: at which passage what happens, and the number of passages so far.
    struct Armed {
        action: Action,
        turn: u64,
        passed: AtomicU64,
    }

    /// By name.
    static POINTS: LazyLock<HashMap<String, Armed>> =
        LazyLock::new(|| parse(&std::env::var(super::VARIABLE).unwrap_or_default()));

    /// Dies or hangs here if this point is armed and its turn has come.
    pub fn point(name: &str) {
        let Some(Armed { action, turn, passed }) = POINTS.get(name) else { return };
        if passed.fetch_add(1, Relaxed) + 1 != *turn {
            return;
        }
        tracing::error!(point = name, turn, ?action, "fail point");
        match action {
            // Fails only for a signal or process that does not exist.
            Action::Kill => {
                let _ = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::KILL,
                );
            }
            Action::Hang => loop {
                std::thread::park();
            },
        }
    }

    fn parse(text: &str) -> HashMap<String, Armed> {
        let entries = text.split(',').filter(|entry| !entry.is_empty());
        entries
            .map(|entry| match parse_one(entry) {
                Some((name, action, turn)) => {
                    (name.to_owned(), Armed { action, turn, passed: AtomicU64::new(0) })
                }
                None => panic!(
                    "{}: `{entry}` is not NAME=kill, NAME=hang, NAME=kill:N or NAME=hang:N; correct or unset it",
                    super::VARIABLE
                ),
            })
            .collect()
    }

    fn parse_one(entry: &str) -> Option<(&str, Action, u64)> {
        let (name, what) = entry.split_once('=')?;
        let (action, turn) = what.split_once(':').unwrap_or((what, "1"));
        let action = match action {
            "kill" => Action::Kill,
            "hang" => Action::Hang,
            _ => return None,
        };
        Some((name, action, turn.parse().ok()?))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn points_are_read_and_other_texts_are_refused() {
            let points = parse("a=kill,b=kill:7,c=hang:2");
            let read = ["a", "b", "c"].map(|name| (points[name].action, points[name].turn));
            assert_eq!(read, [(Action::Kill, 1), (Action::Kill, 7), (Action::Hang, 2)]);
            for wrong in ["a", "a=panic", "a=kill:x", "a=kill:"] {
                assert_eq!(parse_one(wrong), None, "{wrong}");
            }
        }
    }
}
