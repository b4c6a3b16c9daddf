//! A consumer's channel: the deliveries that came on it, and the acknowledgements that settle them.
//!
//! One acknowledgement with `multiple` settles all deliveries up to a tag, and costs the broker no more than one for a
//! single delivery. So the acknowledgements of a batch are coalesced into one as far as no earlier delivery is
//! unsettled, and written one by one beyond that.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{future::join_all, poll};
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use tokio::sync::{Mutex as AsyncMutex, RwLock};

/// The longest wait for an acknowledgement to be written. That takes no time, unless the connection is lost at that
/// very moment: then its future may never resolve.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// The reply code of a close without an error.
const CLOSED_OK: u16 = 200;
const REQUEUE: BasicNackOptions = BasicNackOptions { multiple: false, requeue: true };

/// A positive or negative acknowledgement on its way to the socket.
type Write<'a> = Pin<Box<dyn Future<Output = lapin::Result<()>> + Send + 'a>>;

/// The channel of one consumer, shared by the deliveries that came on it.
#[derive(Debug)]
pub(super) struct ConsumerChannel {
    /// The AMQP channel. It closes with its last user, and deliveries of a closed channel can't be settled.
    pub(super) channel: Channel,
    /// Read-locked while settling. A write lock stops all settling, and with it new deliveries beyond the prefetch.
    pub(super) settling: Arc<RwLock<()>>,
    /// The tags that are delivered and not settled: no more than the prefetch. Locked while acknowledgements are queued
    /// for the socket, so that the broker receives them in the order of the changes to this set.
    unsettled: AsyncMutex<BTreeSet<u64>>,
    /// When the last delivery came or was settled.
    active_at: Mutex<Instant>,
}

impl ConsumerChannel {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            settling: Arc::default(),
            unsettled: AsyncMutex::default(),
            active_at: Mutex::new(Instant::now()),
        }
    }

    /// Records that the delivery with this tag came.
    pub(super) async fn brought(&self, tag: u64) {
        self.unsettled.lock().await.insert(tag);
        self.touch();
    }

    /// Acknowledges the deliveries with these tags. `false` when the channel is gone.
    pub(super) async fn ack(&self, tags: Vec<u64>) -> bool {
        let write = async {
            let _settling = self.settling.read().await;
            self.touch();
            let mut unsettled = self.unsettled.lock().await;
            let acks = acknowledgements(&mut unsettled, tags);
            let acks = acks.into_iter().map(|(tag, multiple)| -> Write<'_> {
                Box::pin(self.channel.basic_ack(tag, BasicAckOptions { multiple }))
            });
            let queued = queue(acks.collect()).await;
            drop(unsettled);
            written(queued).await
        };
        self.in_time(write).await
    }

    /// Gives a delivery back to its queue. `false` when the channel is gone.
    pub(super) async fn requeue(&self, tag: u64) -> bool {
        let write = async {
            let _settling = self.settling.read().await;
            self.touch();
            let mut unsettled = self.unsettled.lock().await;
            unsettled.remove(&tag);
            let queued = queue(vec![Box::pin(self.channel.basic_nack(tag, REQUEUE))]).await;
            drop(unsettled);
            written(queued).await
        };
        self.in_time(write).await
    }

    /// `false` when it takes too long: then the channel is closed, since it is unknown which of its deliveries are
    /// settled, and the window would be smaller by them for good.
    async fn in_time(&self, write: impl Future<Output = bool>) -> bool {
        let Ok(is_written) = tokio::time::timeout(WRITTEN_WITHIN, write).await else {
            self.close().await;
            return false;
        };
        is_written
    }

    /// Deliveries that are not settled.
    pub(super) async fn unsettled(&self) -> usize {
        self.unsettled.lock().await.len()
    }

    /// Closes the channel: the broker delivers again what is not settled. Without an answer it is left to the
    /// connection's end.
    pub(super) async fn close(&self) {
        let closing = self.channel.close(CLOSED_OK, "bye".into());
        // It fails where the channel or its connection is gone, which is what is wanted.
        let _ = tokio::time::timeout(WRITTEN_WITHIN, closing).await;
    }

    /// Whether deliveries can still be settled.
    pub(super) fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    /// Records that a delivery came or was settled, after which the broker may send more.
    fn touch(&self) {
        *self.active_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago the last delivery came or was settled.
    pub(super) fn idle_for(&self) -> Duration {
        self.active_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// Removes `tags` from the unsettled ones and returns the acknowledgements that cover them: a tag, and whether it
/// acknowledges all earlier ones too (`multiple`).
fn acknowledgements(unsettled: &mut BTreeSet<u64>, mut tags: Vec<u64>) -> Vec<(u64, bool)> {
    for tag in &tags {
        unsettled.remove(tag);
    }
    let first_unsettled = unsettled.first().copied().unwrap_or(u64::MAX);
    tags.sort_unstable();
    let beyond = tags.partition_point(|&tag| tag < first_unsettled);
    let up_to = tags[..beyond].last().map(|&tag| (tag, true));
    up_to.into_iter().chain(tags[beyond..].iter().map(|&tag| (tag, false))).collect()
}

/// Queues acknowledgements for the socket, which is what their first poll does. Returns those that are still to be
/// written, and for the others whether they were.
async fn queue(writes: Vec<Write<'_>>) -> Vec<Result<Write<'_>, bool>> {
    let mut queued = Vec::with_capacity(writes.len());
    for mut write in writes {
        queued.push(match poll!(&mut write) {
            std::task::Poll::Ready(result) => Err(result.is_ok()),
            std::task::Poll::Pending => Ok(write),
        });
    }
    queued
}

/// Waits until all acknowledgements are written, and returns whether all were.
async fn written(queued: Vec<Result<Write<'_>, bool>>) -> bool {
    let each = queued.into_iter().map(async |write| match write {
        Ok(write) => write.await.is_ok(),
        Err(done) => done,
    });
    join_all(each).await.into_iter().all(|done| done)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn acknowledgements_are_coalesced_up_to_the_first_unsettled_delivery() {
        let mut unsettled = BTreeSet::from([3, 4, 5, 7, 9]);
        assert_eq!(acknowledgements(&mut unsettled, vec![4, 3]), [(4, true)]);
        assert_eq!(acknowledgements(&mut unsettled, vec![9, 7]), [(7, false), (9, false)]);
        assert_eq!(acknowledgements(&mut unsettled, vec![5]), [(5, true)]);
        assert!(unsettled.is_empty());
        assert!(acknowledgements(&mut unsettled, Vec::new()).is_empty());
    }

    proptest! {
        /// The broker's side: an acknowledgement of a tag that it does not hold closes the channel.
        #[test]
        fn each_tag_is_acknowledged_once_and_no_other_is(
            order in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(),
            sizes in prop::collection::vec(1..9_usize, 40),
        ) {
            let mut unsettled: BTreeSet<u64> = (1..=40).collect();
            let mut held = unsettled.clone();
            let mut rest = &order[..];
            let mut acknowledged = BTreeSet::new();
            for size in sizes {
                let (now, later) = rest.split_at(size.min(rest.len()));
                rest = later;
                acknowledged.extend(now.iter().copied());
                for (tag, multiple) in acknowledgements(&mut unsettled, now.to_vec()) {
                    prop_assert!(held.remove(&tag), "{tag} was settled before");
                    if multiple {
                        held.retain(|&other| other > tag);
                    }
                }
                prop_assert!(held.iter().all(|tag| !acknowledged.contains(tag)));
                prop_assert_eq!(held.len() + acknowledged.len(), 40);
            }
        }
    }
}
