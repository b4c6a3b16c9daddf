//! Fail points: named points at which a test can kill a program, as a machine that loses its power would.
//!
//! `FOREBAY_FAIL_POINTS=after_compute=kill:3,before_ack=kill` ends the process by SIGKILL when it passes
//! `after_compute` the third time, or `before_ack` the first time. Without the cargo feature
//! `fail-points`, which no released program has, a point compiles to nothing.

/// The variable that arms points.
pub const VARIABLE: &str = "FOREBAY_FAIL_POINTS";

/// Dies here if this point is armed and its turn has come.
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

    /// By name: the passage at which to die, and the number of passages so far.
    static POINTS: LazyLock<HashMap<String, (u64, AtomicU64)>> =
        LazyLock::new(|| parse(&std::env::var(super::VARIABLE).unwrap_or_default()));

    /// Dies here if this point is armed and its turn has come.
    pub fn point(name: &str) {
        let Some((turn, passed)) = POINTS.get(name) else { return };
        if passed.fetch_add(1, Relaxed) + 1 == *turn {
            tracing::error!(point = name, turn, "fail point: killed");
            // Fails only for a signal or process that does not exist.
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
    }

    fn parse(text: &str) -> HashMap<String, (u64, AtomicU64)> {
        let entries = text.split(',').filter(|entry| !entry.is_empty());
        entries
            .map(|entry| match parse_one(entry) {
                Some((name, turn)) => (name.to_owned(), (turn, AtomicU64::new(0))),
                None => panic!(
                    "{}: `{entry}` is not NAME=kill or NAME=kill:N; correct or unset it",
                    super::VARIABLE
                ),
            })
            .collect()
    }

    fn parse_one(entry: &str) -> Option<(&str, u64)> {
        let (name, action) = entry.split_once('=')?;
        match action.split_once(':') {
            None if action == "kill" => Some((name, 1)),
            Some(("kill", turn)) => Some((name, turn.parse().ok()?)),
            _ => None,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn points_are_read_and_other_texts_are_refused() {
            let points = parse("a=kill,b=kill:7");
            assert_eq!((points["a"].0, points["b"].0), (1, 7));
            for wrong in ["a", "a=panic", "a=kill:x", "a=kill:"] {
                assert_eq!(parse_one(wrong), None, "{wrong}");
            }
        }
    }
}
