//! What the deliveries of one consumer have in common: the channel that they came on, and which of them are unsettled.
//!
//! The broker takes one acknowledgement for all deliveries up to a tag, which costs it no more than one for a single
//! delivery. So a batch of them is told in one word as far as nothing before is unsettled, and one by one beyond.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{future::join_all, poll};
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use tokio::sync::{Mutex as AsyncMutex, RwLock};

/// The longest that telling a verdict is waited for. It is written to the socket at once, unless the
/// connection was lost at that very moment: then nobody may ever say what became of it.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
const HAND_BACK: BasicNackOptions = BasicNackOptions { multiple: false, requeue: true };

/// A verdict on its way to the socket.
type Telling<'a> = Pin<Box<dyn Future<Output = lapin::Result<()>> + Send + 'a>>;

/// What the deliveries of one consumer have in common.
#[derive(Debug)]
pub(super) struct Feed {
    /// The channel on which they came.
    pub(super) channel: Channel,
    /// Shared by those who settle; whoever has it alone stops that for a moment, and with it the flow.
    pub(super) settling: RwLock<()>,
    /// Tags that came and were not settled yet: no more than the prefetch. Held while verdicts are queued for the socket,
    /// so that the broker hears them in the order in which this changes.
    unsettled: AsyncMutex<BTreeSet<u64>>,
    moved_at: Mutex<Instant>,
}

impl Feed {
    pub(super) fn new(channel: Channel) -> Self {
        let (settling, unsettled) = (RwLock::new(()), AsyncMutex::default());
        Self { channel, settling, unsettled, moved_at: Mutex::new(Instant::now()) }
    }

    /// A delivery came.
    pub(super) async fn brought(&self, tag: u64) {
        self.unsettled.lock().await.insert(tag);
        self.moved();
    }

    /// Acknowledges these. `false` when the channel is gone.
    pub(super) async fn ack(&self, tags: Vec<u64>) -> bool {
        let telling = async {
            let _open = self.settling.read().await;
            self.moved();
            let mut unsettled = self.unsettled.lock().await;
            let acks =
                words(&mut unsettled, tags).into_iter().map(|(tag, multiple)| -> Telling<'_> {
                    Box::pin(self.channel.basic_ack(tag, BasicAckOptions { multiple }))
                });
            let queued = queue(acks.collect()).await;
            drop(unsettled);
            written(queued).await
        };
        tokio::time::timeout(TOLD_WITHIN, telling).await.unwrap_or(false)
    }

    /// Gives a delivery back to its queue. `false` when the channel is gone.
    pub(super) async fn hand_back(&self, tag: u64) -> bool {
        let telling = async {
            let _open = self.settling.read().await;
            self.moved();
            let mut unsettled = self.unsettled.lock().await;
            unsettled.remove(&tag);
            let queued = queue(vec![Box::pin(self.channel.basic_nack(tag, HAND_BACK))]).await;
            drop(unsettled);
            written(queued).await
        };
        tokio::time::timeout(TOLD_WITHIN, telling).await.unwrap_or(false)
    }

    /// Whether the broker can still be told.
    pub(super) fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    /// Something came or was settled: more may come for it.
    fn moved(&self) {
        *self.moved_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago that was.
    pub(super) fn still_for(&self) -> Duration {
        self.moved_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// Takes `tags` out of the unsettled ones and says which acknowledgements tell of them: a tag, and whether it stands for
/// all before it.
fn words(unsettled: &mut BTreeSet<u64>, mut tags: Vec<u64>) -> Vec<(u64, bool)> {
    for tag in &tags {
        unsettled.remove(tag);
    }
    let first_unsettled = unsettled.first().copied().unwrap_or(u64::MAX);
    tags.sort_unstable();
    let beyond = tags.partition_point(|&tag| tag < first_unsettled);
    let up_to = tags[..beyond].last().map(|&tag| (tag, true));
    up_to.into_iter().chain(tags[beyond..].iter().map(|&tag| (tag, false))).collect()
}

/// Puts verdicts in line for the socket, which is what their first step does. What comes back is still to be written, or
/// could not be.
async fn queue(tellings: Vec<Telling<'_>>) -> Vec<Result<Telling<'_>, bool>> {
    let mut queued = Vec::with_capacity(tellings.len());
    for mut telling in tellings {
        queued.push(match poll!(&mut telling) {
            std::task::Poll::Ready(result) => Err(result.is_ok()),
            std::task::Poll::Pending => Ok(telling),
        });
    }
    queued
}

/// Waits until all are written; whether all were.
async fn written(queued: Vec<Result<Telling<'_>, bool>>) -> bool {
    let each = queued.into_iter().map(async |telling| match telling {
        Ok(telling) => telling.await.is_ok(),
        Err(done) => done,
    });
    join_all(each).await.into_iter().all(|done| done)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_nothing_unsettled_precedes_is_told_in_one_word() {
        let mut unsettled = BTreeSet::from([3, 4, 5, 7, 9]);
        assert_eq!(words(&mut unsettled, vec![4, 3]), [(4, true)]);
        assert_eq!(words(&mut unsettled, vec![9, 7]), [(7, false), (9, false)]);
        assert_eq!(words(&mut unsettled, vec![5]), [(5, true)]);
        assert!(unsettled.is_empty());
        assert!(words(&mut unsettled, Vec::new()).is_empty());
    }

    proptest! {
        /// The broker's side: a word for a tag that it does not hold closes the channel.
        #[test]
        fn the_broker_hears_of_each_tag_once_and_of_no_other(
            order in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(),
            sizes in prop::collection::vec(1..9_usize, 40),
        ) {
            let mut unsettled: BTreeSet<u64> = (1..=40).collect();
            let mut held = unsettled.clone();
            let (mut rest, mut told) = (&order[..], BTreeSet::new());
            for size in sizes {
                let (now, later) = rest.split_at(size.min(rest.len()));
                rest = later;
                told.extend(now.iter().copied());
                for (tag, multiple) in words(&mut unsettled, now.to_vec()) {
                    prop_assert!(held.remove(&tag), "{tag} was settled before");
                    if multiple {
                        held.retain(|&other| other > tag);
                    }
                }
                prop_assert!(held.iter().all(|tag| !told.contains(tag)));
                prop_assert_eq!(held.len() + told.len(), 40);
            }
        }
    }
}
