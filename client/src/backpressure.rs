//! Backpressure towards the publisher: a submit fails or is retried while the queue is full or the broker takes no
//! publishes.

use std::{fmt, time::Duration};

use forebay_fabric::{backoff::Backoff, broker::PublishError};
use tokio::{sync::watch, time::Instant};

/// The behaviour of a submit when the queue is full or the broker takes no publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Fail at once.
    #[default]
    Fail,
    /// Retry until there is room, for at most this long; then fail.
    Wait(Duration),
}

/// The cause for which a submit waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldUp {
    /// The queue is full: workers make room.
    QueueFull,
    /// The broker takes no publishes: it wants memory or disk space.
    Blocked {
        /// The reason that the broker gave.
        reason: String,
    },
}

impl fmt::Display for HeldUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueueFull => f.write_str("queue full, waiting for room"),
            Self::Blocked { reason } => {
                write!(f, "RabbitMQ takes no publishes: {reason}, waiting")
            }
        }
    }
}

/// The outcome of one attempt to publish that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It may be taken later.
    Backpressure(HeldUp),
    /// No queue takes it.
    NoRoute,
    /// This user may not publish there.
    Forbidden { reason: String },
    /// It is larger than the broker takes.
    TooLarge { bytes: usize, bytes_max: usize },
    /// No confirmation came in time.
    Unconfirmed { after_ms: u64, last: String },
}

impl Refused {
    /// Classifies an error of the publisher; `blocked` returns the broker's reason for taking no publishes, if there
    /// is one.
    pub(crate) fn of(error: PublishError, blocked: impl FnOnce() -> Option<String>) -> Self {
        match error {
            PublishError::Full { .. } => Self::Backpressure(HeldUp::QueueFull),
            PublishError::Unroutable { .. } => Self::NoRoute,
            PublishError::Forbidden { reason, .. } => Self::Forbidden { reason },
            PublishError::TooLarge { bytes, bytes_max } => Self::TooLarge { bytes, bytes_max },
            PublishError::Unconfirmed { after_ms, last } => match blocked() {
                Some(reason) => Self::Backpressure(HeldUp::Blocked { reason }),
                None => Self::Unconfirmed { after_ms, last },
            },
        }
    }
}

/// Pauses between two attempts: short enough that a queue that was full does not run empty meanwhile, and with
/// jitter, so that many publishers do not come as one wave.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Makes attempts until one finds room, for as long as `when_full` allows, and keeps `held_up` at the present cause.
/// An error holds the last refusal and how long the attempts went on.
pub(crate) async fn with_backpressure<F: Future<Output = Result<(), Refused>>>(
    when_full: WhenFull,
    held_up: &watch::Sender<Option<HeldUp>>,
    attempt: impl Fn() -> F,
) -> Result<(), (Refused, Duration)> {
    let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    let mut since = None;
    loop {
        let refused = match attempt().await {
            Ok(()) => {
                publish(held_up, None);
                return Ok(());
            }
            Err(refused) => refused,
        };
        let waited = since.map_or(Duration::ZERO, |since: Instant| since.elapsed());
        let (Refused::Backpressure(cause), WhenFull::Wait(limit)) = (&refused, when_full) else {
            return Err((refused, waited));
        };
        if waited >= limit {
            return Err((refused, waited));
        }
        publish(held_up, Some(cause));
        since.get_or_insert_with(Instant::now);
        tokio::time::sleep(backoff.next_pause().min(limit.saturating_sub(waited))).await;
    }
}

fn publish(held_up: &watch::Sender<Option<HeldUp>>, now: Option<&HeldUp>) {
    held_up.send_if_modified(|before| {
        let changed = before.as_ref() != now;
        if changed {
            *before = now.cloned();
        }
        changed
    });
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn full() -> Refused {
        Refused::Backpressure(HeldUp::QueueFull)
    }

    fn blocked() -> Refused {
        Refused::Backpressure(HeldUp::Blocked { reason: "low on disk".into() })
    }

    /// Attempts that end like these, and like the last of them from then on; `made` counts them.
    fn attempts<'a>(
        ends: &'a [Result<(), Refused>],
        made: &'a Cell<usize>,
    ) -> impl Fn() -> std::future::Ready<Result<(), Refused>> + 'a {
        move || {
            let end = ends[made.get().min(ends.len() - 1)].clone();
            made.set(made.get() + 1);
            ready(end)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_waiting_the_first_refusal_is_returned() {
        let held_up = watch::Sender::new(None);
        let made = Cell::new(0);
        for refused in [full(), blocked()] {
            let ends = [Err(refused.clone())];
            let ended = with_backpressure(WhenFull::Fail, &held_up, attempts(&ends, &made)).await;
            assert_eq!(ended, Err((refused, Duration::ZERO)));
        }
        assert_eq!((made.get(), held_up.borrow().clone()), (2, None));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_goes_on_until_there_is_room() {
        let held_up = watch::Sender::new(None);
        let made = Cell::new(0);
        let ends = [Err(full()), Err(blocked()), Err(full()), Ok(())];
        let ended =
            with_backpressure(WhenFull::Wait(LIMIT), &held_up, attempts(&ends, &made)).await;
        assert_eq!((ended, made.get()), (Ok(()), 4));
        assert_eq!(*held_up.borrow(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_its_time_and_says_how_long_it_was() {
        let held_up = watch::Sender::new(None);
        let made = Cell::new(0);
        let ends = [Err(full()), Err(blocked())];
        let began = Instant::now();
        let ended =
            with_backpressure(WhenFull::Wait(LIMIT), &held_up, attempts(&ends, &made)).await;
        assert_eq!(ended, Err((blocked(), LIMIT)));
        assert_eq!(began.elapsed(), LIMIT);
        // Between half of the longest pause and all of it, after the first short ones.
        assert!((30..=70).contains(&made.get()), "{} attempts in a minute", made.get());
    }

    #[tokio::test(start_paused = true)]
    async fn the_cause_of_waiting_is_published_as_it_changes() {
        let held_up = watch::Sender::new(None);
        let made = Cell::new(0);
        let mut seen = held_up.subscribe();
        let ends = [Err(full()), Err(full()), Err(blocked()), Ok(())];
        let watched = async {
            let mut all = Vec::new();
            while all.last() != Some(&None) {
                seen.changed().await.unwrap();
                all.push(seen.borrow_and_update().clone());
            }
            all
        };
        let attempts = attempts(&ends, &made);
        let (ended, all) =
            tokio::join!(with_backpressure(WhenFull::Wait(LIMIT), &held_up, attempts), watched);
        assert_eq!(ended, Ok(()));
        let reason = "low on disk".to_owned();
        assert_eq!(all, [Some(HeldUp::QueueFull), Some(HeldUp::Blocked { reason }), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_waiting_does_not_resolve_ends_it() {
        let held_up = watch::Sender::new(None);
        let made = Cell::new(0);
        let ends = [Err(full()), Err(Refused::NoRoute)];
        let ended =
            with_backpressure(WhenFull::Wait(LIMIT), &held_up, attempts(&ends, &made)).await;
        assert!(matches!(ended, Err((Refused::NoRoute, _))));
        assert_eq!(made.get(), 2);
    }

    #[test]
    fn a_silent_broker_that_says_it_is_blocked_is_blocked() {
        let error = PublishError::Unconfirmed { after_ms: 5, last: "nothing".into() };
        assert_eq!(Refused::of(error.clone(), || Some("low on disk".into())), blocked());
        let last = "nothing".to_owned();
        assert_eq!(Refused::of(error, || None), Refused::Unconfirmed { after_ms: 5, last });
    }
}
