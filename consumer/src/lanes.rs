//! A bounded channel with two lanes: the urgent one goes first, the other is never starved.

use forebay_schemas::Lane;
use tokio::sync::mpsc;

/// So many urgent turns in a row, and the next one begins with the batch lane.
///
/// A turn is a receive here: one item, or all that [`LaneReceiver::recv_handful`] takes together. It counts whether or
/// not the batch lane waits meanwhile. The packer has the same limit for batches, and counts only those that it packs
/// while both lanes wait.
pub const URGENT_STREAK_MAX: u32 = 8;

/// Makes a channel whose lanes hold at most `capacity` items each.
pub fn channel<T>(capacity: usize) -> (LaneSender<T>, LaneReceiver<T>) {
    let (interactive, from_interactive) = mpsc::channel(capacity);
    let (batch, from_batch) = mpsc::channel(capacity);
    let receiver =
        LaneReceiver { interactive: from_interactive, batch: from_batch, urgent_streak: 0 };
    (LaneSender { interactive, batch }, receiver)
}

/// The sending half. The channel ends when all its clones are gone.
#[derive(Debug)]
pub struct LaneSender<T> {
    interactive: mpsc::Sender<T>,
    batch: mpsc::Sender<T>,
}

impl<T> Clone for LaneSender<T> {
    fn clone(&self) -> Self {
        Self { interactive: self.interactive.clone(), batch: self.batch.clone() }
    }
}

impl<T> LaneSender<T> {
    /// Waits for room in `lane`. `Err` with the item when the receiver is gone.
    pub async fn send(&self, lane: Lane, item: T) -> Result<(), T> {
        let sender = match lane {
            Lane::Interactive => &self.interactive,
            Lane::Batch => &self.batch,
        };
        sender.send(item).await.map_err(|unsent| unsent.0)
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct LaneReceiver<T> {
    interactive: mpsc::Receiver<T>,
    batch: mpsc::Receiver<T>,
    /// Receives in a row that began with the urgent lane.
    urgent_streak: u32,
}

impl<T> LaneReceiver<T> {
    /// The next item; `None` when both lanes are empty and all senders are gone. Cancel-safe: dropped while waiting, it
    /// loses no item.
    pub async fn recv(&mut self) -> Option<T> {
        if self.urgent_streak >= URGENT_STREAK_MAX {
            self.urgent_streak = 0;
            if let Ok(item) = self.batch.try_recv() {
                return Some(item);
            }
        }
        // A lane that is closed yields `None` and is passed over; both closed end the wait.
        tokio::select! {
            biased;
            Some(item) = self.interactive.recv() => {
                self.urgent_streak += 1;
                Some(item)
            }
            Some(item) = self.batch.recv() => {
                self.urgent_streak = 0;
                Some(item)
            }
            else => None,
        }
    }

    /// Waits for one item and takes those that wait behind it, as long as all together weigh less than `weight_max`.
    /// Empty at the end.
    pub async fn recv_handful(
        &mut self,
        weight_max: usize,
        weight: impl Fn(&T) -> usize,
    ) -> Vec<T> {
        let mut items: Vec<T> = self.recv().await.into_iter().collect();
        let mut all: usize = items.iter().map(&weight).sum();
        while !items.is_empty() && all < weight_max {
            let next = self.interactive.try_recv().or_else(|_| self.batch.try_recv());
            let Ok(item) = next else { break };
            all += weight(&item).max(1);
            items.push(item);
        }
        items
    }

    /// Waits for one item and takes those that wait behind it, `max` at most. Empty at the end.
    pub async fn recv_some(&mut self, max: usize) -> Vec<T> {
        self.recv_handful(max, |_| 1).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urgent_items_go_first_and_others_are_not_starved() {
        let (sender, mut receiver) = channel(64);
        for i in 0..32 {
            sender.send(Lane::Batch, ("batch", i)).await.unwrap();
            sender.send(Lane::Interactive, ("interactive", i)).await.unwrap();
        }
        drop(sender);
        let mut order = Vec::new();
        while let Some((lane, _)) = receiver.recv().await {
            order.push(lane);
        }
        assert_eq!(order.len(), 64);
        let streak = URGENT_STREAK_MAX as usize;
        assert!(order[..streak].iter().all(|lane| *lane == "interactive"));
        assert_eq!(order[streak], "batch");
        assert!(order[..36].iter().filter(|lane| **lane == "interactive").count() == 32);
    }

    #[tokio::test]
    async fn one_lane_alone_flows_and_the_end_is_seen() {
        let (sender, mut receiver) = channel(4);
        sender.send(Lane::Batch, 1).await.unwrap();
        sender.send(Lane::Batch, 2).await.unwrap();
        assert_eq!(receiver.recv_some(8).await, [1, 2]);
        drop(sender);
        assert!(receiver.recv_some(8).await.is_empty());
        assert_eq!(receiver.recv().await, None);
    }

    #[tokio::test]
    async fn an_item_comes_back_when_the_receiver_is_gone() {
        let (sender, receiver) = channel(1);
        drop(receiver);
        assert_eq!(sender.send(Lane::Batch, 7).await, Err(7));
    }
}
