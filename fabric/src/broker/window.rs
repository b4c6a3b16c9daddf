//! The window of a subscription: how many deliveries it may hold, and how many bytes.
//!
//! The broker counts messages and memory is bytes, so both are bounded here, from the socket to the acknowledgement. A
//! [`Window`] is shared by a subscription, which keeps to it, by the [`Acker`](super::Acker) of each delivery, which
//! holds a part of it, and by the service, which looks at the [`Load`] and asks for more or less.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

/// Bytes that a delivery takes for each byte of its body: the body itself, which is kept for another attempt until the
/// job is settled, and twice as much for what is made of it. Those are first its texts and then, without them, its
/// tokens: a token has four bytes and stands for about as many of a text, and the vectors that hold both have room to
/// grow.
const PER_BODY_BYTE: u64 = 3;
/// Bytes that a delivery takes whatever its body: properties, ticket and job, rounded up.
const PER_DELIVERY: u64 = 4 * 1024;

/// Bytes that a delivery with a body of so many bytes takes, without its results.
pub fn bytes_held(body_bytes: usize) -> u64 {
    (body_bytes as u64).saturating_mul(PER_BODY_BYTE).saturating_add(PER_DELIVERY)
}

/// How much a subscription may hold.
#[derive(Debug)]
pub struct Window {
    bytes_max: u64,
    wanted: watch::Sender<u16>,
    load: Mutex<Load>,
    freed: Notify,
    used: Notify,
}

/// The deliveries of a subscription at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Deliveries whose bodies are held: not settled yet.
    pub deliveries: u64,
    /// The most of those since the last look.
    pub deliveries_peak: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// The mean of those bytes over the deliveries that came last; 0 before the first.
    pub bytes_mean: u64,
    /// Deliveries whose bodies did not fit: they wait to be given back.
    pub refused: u64,
    /// Deliveries that were acknowledged so far.
    pub settled: u64,
    /// The prefetch that the broker was asked for last; 0 before the first time.
    pub prefetch: u16,
}

/// The share of a [`Window`] that one delivery takes, until it is dropped.
#[derive(Debug)]
pub struct Held {
    window: Arc<Window>,
    bytes: u64,
}

impl Window {
    /// A window of `prefetch` deliveries at first, which together take `bytes_max` bytes at most. One delivery is taken
    /// whatever its size: otherwise it would never be done.
    pub fn new(prefetch: u16, bytes_max: u64) -> Arc<Self> {
        let wanted = watch::Sender::new(prefetch);
        Arc::new(Self {
            bytes_max,
            wanted,
            load: Mutex::default(),
            freed: Notify::new(),
            used: Notify::new(),
        })
    }

    /// The most bytes that its deliveries may take together.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Asks for another prefetch. The subscription follows when it can do so without harm.
    pub fn want(&self, prefetch: u16) {
        self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, prefetch) != prefetch);
    }

    /// The prefetch that was asked for last.
    pub fn wanted(&self) -> u16 {
        *self.wanted.borrow()
    }

    /// The load now.
    pub fn look(&self) -> Load {
        let mut load = self.load();
        let looked = *load;
        load.deliveries_peak = load.deliveries;
        looked
    }

    /// Takes a share for a delivery with a body of so many bytes; `None` when it does not fit beside the others.
    pub fn hold(self: &Arc<Self>, body_bytes: usize) -> Option<Held> {
        let bytes = bytes_held(body_bytes);
        let mut load = self.load();
        // In eighths: some large deliveries among many small ones change the mean soon, a single one does not.
        load.bytes_mean = match load.bytes_mean {
            0 => bytes,
            mean => mean.saturating_mul(7).saturating_add(bytes) / 8,
        };
        if load.deliveries > 0 && load.bytes.saturating_add(bytes) > self.bytes_max {
            return None;
        }
        if load.deliveries == 0 {
            self.used.notify_one();
        }
        load.deliveries += 1;
        load.deliveries_peak = load.deliveries_peak.max(load.deliveries);
        load.bytes = load.bytes.saturating_add(bytes);
        Some(Held { window: self.clone(), bytes })
    }

    /// Waits until the first delivery comes, while none is held; for one waiter.
    pub async fn used(&self) {
        self.used.notified().await;
    }

    /// Waits until a delivery is settled or another prefetch is asked for; for one waiter, who may be woken without
    /// either.
    pub async fn changed(&self) {
        let mut wanted = self.wanted.subscribe();
        tokio::select! {
            () = self.freed.notified() => {}
            // The sender lives in `self`.
            _ = wanted.changed() => {}
        }
    }

    /// Waits until a delivery is settled; for one waiter.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// The wanted prefetch, to be watched.
    pub(super) fn watch_wanted(&self) -> watch::Receiver<u16> {
        self.wanted.subscribe()
    }

    /// Deliveries that are held now.
    pub fn deliveries(&self) -> u64 {
        self.load().deliveries
    }

    /// How many bytes are free; all of them while nothing is held.
    pub(super) fn bytes_free(&self) -> u64 {
        let load = self.load();
        if load.deliveries == 0 { u64::MAX } else { self.bytes_max.saturating_sub(load.bytes) }
    }

    /// Records the prefetch that the broker was asked for.
    pub fn opened(&self, prefetch: u16) {
        self.load().prefetch = prefetch;
    }

    /// Records how many deliveries wait to be given back.
    pub(super) fn set_refused(&self, refused: usize) {
        self.load().refused = refused as u64;
    }

    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Takes so many bytes more, also where they are over the limit: the next deliveries wait for it.
    pub fn grow(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        let mut load = self.window.load();
        load.bytes = load.bytes.saturating_add(bytes);
        load.bytes_mean = load.bytes_mean.saturating_add(bytes / 8);
    }

    /// Returns the share of a delivery that is acknowledged.
    pub fn settled(self) {
        self.window.load().settled += 1;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut load = self.window.load();
        load.deliveries = load.deliveries.saturating_sub(1);
        load.bytes = load.bytes.saturating_sub(self.bytes);
        drop(load);
        self.window.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_delivery_is_taken_whatever_its_size_and_a_second_only_if_it_fits() {
        let window = Window::new(16, 30_000);
        let large = window.hold(100_000).unwrap();
        assert!(window.hold(0).is_none(), "the first is over the limit alone");
        drop(large);
        let first = window.hold(4_000).unwrap();
        assert!(window.hold(4_000).is_none());
        let small = window.hold(1_000).unwrap();
        assert_eq!(window.look().bytes, bytes_held(4_000) + bytes_held(1_000));
        first.settled();
        drop(small);
        let load = window.look();
        assert_eq!((load.deliveries, load.bytes, load.settled), (0, 0, 1));
    }

    #[test]
    fn the_peak_is_of_the_time_since_the_last_look() {
        let window = Window::new(16, u64::MAX);
        drop([window.hold(1), window.hold(1), window.hold(1)]);
        assert_eq!(window.look().deliveries_peak, 3);
        assert_eq!(window.look().deliveries_peak, 0);
    }

    #[test]
    fn results_that_are_expected_leave_less_for_the_next() {
        let window = Window::new(16, 100_000);
        let mut first = window.hold(100).unwrap();
        first.grow(90_000);
        assert!(window.hold(10_000).is_none());
        drop(first);
        assert_eq!(window.look().bytes, 0);
    }

    proptest! {
        #[test]
        fn no_more_is_held_than_the_limit_or_one_delivery(
            bodies in prop::collection::vec((0_usize..50_000, any::<bool>()), 1..100),
        ) {
            let window = Window::new(16, 200_000);
            let mut held = Vec::new();
            for (body, settles) in bodies {
                if settles && !held.is_empty() {
                    held.remove(0);
                }
                held.extend(window.hold(body));
                let load = window.look();
                prop_assert_eq!(load.deliveries, held.len() as u64);
                prop_assert!(load.bytes <= 200_000 || load.deliveries == 1);
            }
            drop(held);
            prop_assert_eq!(window.look().bytes, 0);
        }
    }
}
