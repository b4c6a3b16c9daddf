//! A bounded channel with two lanes: the urgent one goes first, the other is never starved.
//!
//! Each lane has its own bound, so what fills one lane never holds up the other. That is true of a whole stage only if
//! the stage takes an item of a lane when the next stage has room for it: [`LaneReceiver::recv_some_for`] and
//! [`LaneSender::reserve`] are for that.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use forebay_schemas::Lane;
use tokio::sync::mpsc;

/// So many urgent turns in a row, and the next one is the batch lane's, if anything waits there.
pub const URGENT_STREAK_MAX: u32 = 8;

/// One value for each lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lanes<T> {
    /// The interactive lane's.
    pub interactive: T,
    /// The batch lane's.
    pub batch: T,
}

impl<T> Lanes<T> {
    /// The value of each lane.
    pub fn each(value: impl Fn(Lane) -> T) -> Self {
        Self { interactive: value(Lane::Interactive), batch: value(Lane::Batch) }
    }

    /// One lane's value.
    pub fn of(&self, lane: Lane) -> &T {
        match lane {
            Lane::Interactive => &self.interactive,
            Lane::Batch => &self.batch,
        }
    }

    /// One lane's value, to be changed.
    pub fn of_mut(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Batch => &mut self.batch,
        }
    }
}

/// Whose turn it is: the one rule by which everything with two lanes is divided between them.
///
/// Each item that is taken is a turn, and counts whether or not the other lane waits meanwhile. While both lanes wait,
/// the batch lane gets one turn of nine; an item that comes to it after more urgent turns than that is next.
#[derive(Debug, Default)]
pub struct Turns {
    /// Urgent turns since the batch lane's last one.
    urgent_streak: u32,
}

impl Turns {
    /// The lanes in the order in which they are to be asked for the next item.
    pub fn order(&self) -> [Lane; 2] {
        if self.urgent_streak < URGENT_STREAK_MAX {
            [Lane::Interactive, Lane::Batch]
        } else {
            [Lane::Batch, Lane::Interactive]
        }
    }

    /// An item of this lane was taken.
    pub fn taken(&mut self, lane: Lane) {
        self.urgent_streak = match lane {
            Lane::Interactive => self.urgent_streak.saturating_add(1),
            Lane::Batch => 0,
        };
    }
}

/// Makes a channel whose lanes hold at most `capacity` items each.
pub fn channel<T>(capacity: usize) -> (LaneSender<T>, LaneReceiver<T>) {
    let (interactive, from_interactive) = mpsc::channel(capacity);
    let (batch, from_batch) = mpsc::channel(capacity);
    let lanes = Lanes { interactive: from_interactive, batch: from_batch };
    let receiver = LaneReceiver { lanes, turns: Turns::default() };
    (LaneSender { lanes: Lanes { interactive, batch } }, receiver)
}

/// The sending half. The channel ends when all its clones are gone.
#[derive(Debug)]
pub struct LaneSender<T> {
    lanes: Lanes<mpsc::Sender<T>>,
}

impl<T> Clone for LaneSender<T> {
    fn clone(&self) -> Self {
        Self { lanes: Lanes::each(|lane| self.lanes.of(lane).clone()) }
    }
}

/// Room for one item in a lane, held until the item is sent or this is dropped.
pub type Room<T> = mpsc::OwnedPermit<T>;

impl<T> LaneSender<T> {
    /// Waits for room in `lane`. `Err` with the item when the receiver is gone.
    pub async fn send(&self, lane: Lane, item: T) -> Result<(), T> {
        self.lanes.of(lane).send(item).await.map_err(|unsent| unsent.0)
    }

    /// Waits for room in `lane` and holds it. `None` when the receiver is gone.
    pub async fn reserve(&self, lane: Lane) -> Option<Room<T>> {
        self.lanes.of(lane).clone().reserve_owned().await.ok()
    }

    /// How many items there is room for in `lane`: any number when the receiver is gone, since no item will wait.
    pub fn room(&self, lane: Lane) -> usize {
        let sender = self.lanes.of(lane);
        if sender.is_closed() { usize::MAX } else { sender.capacity() }
    }

    /// Waits until there is room in `lane`, or the receiver is gone.
    async fn until_room(&self, lane: Lane) {
        drop(self.lanes.of(lane).reserve().await);
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct LaneReceiver<T> {
    lanes: Lanes<mpsc::Receiver<T>>,
    turns: Turns,
}

impl<T> LaneReceiver<T> {
    /// The next item; `None` when both lanes are empty and all senders are gone. Cancel-safe: dropped while waiting, it
    /// loses no item.
    pub async fn recv(&mut self) -> Option<T> {
        let open = Lanes::each(|_| true);
        poll_fn(|context| self.poll_recv(context, open)).await.map(|(_, item)| item)
    }

    /// The next item on a thread that may block. Needs a runtime's context.
    pub fn blocking_recv(&mut self) -> Option<T> {
        tokio::runtime::Handle::current().block_on(self.recv())
    }

    /// The next item if one waits.
    pub fn try_recv(&mut self) -> Option<T> {
        self.try_recv_from(|_| true).map(|(_, item)| item)
    }

    /// Waits for one item and takes those that wait behind it: `max` at most, and of each lane no more than `next` has
    /// room for. So a stage that alone sends to `next`, one item for each that it takes, never waits for room, and a
    /// full lane holds up nothing but itself. Empty at the end.
    pub async fn recv_some_for<U>(&mut self, next: &LaneSender<U>, max: usize) -> Vec<T> {
        let mut room = Lanes::each(|lane| next.room(lane));
        let first = loop {
            let open = Lanes::each(|lane| *room.of(lane) > 0);
            tokio::select! {
                biased;
                first = poll_fn(|context| self.poll_recv(context, open)) => break first,
                () = next.until_room(Lane::Interactive), if !open.interactive => {}
                () = next.until_room(Lane::Batch), if !open.batch => {}
            }
            room = Lanes::each(|lane| next.room(lane));
        };
        let mut items = Vec::new();
        let mut taken = first;
        while let Some((lane, item)) = taken {
            *room.of_mut(lane) -= 1;
            items.push(item);
            if items.len() >= max {
                break;
            }
            taken = self.try_recv_from(|lane| *room.of(lane) > 0);
        }
        items
    }

    /// The two lanes on their own, for a stage whose own turns divide them.
    pub fn into_lanes(self) -> Lanes<mpsc::Receiver<T>> {
        self.lanes
    }

    fn try_recv_from(&mut self, open: impl Fn(Lane) -> bool) -> Option<(Lane, T)> {
        for lane in self.turns.order() {
            if open(lane)
                && let Ok(item) = self.lanes.of_mut(lane).try_recv()
            {
                self.turns.taken(lane);
                return Some((lane, item));
            }
        }
        None
    }

    fn poll_recv(
        &mut self,
        context: &mut Context<'_>,
        open: Lanes<bool>,
    ) -> Poll<Option<(Lane, T)>> {
        let mut ended = true;
        for lane in self.turns.order() {
            if !open.of(lane) {
                ended = false;
                continue;
            }
            match self.lanes.of_mut(lane).poll_recv(context) {
                Poll::Ready(Some(item)) => {
                    self.turns.taken(lane);
                    return Poll::Ready(Some((lane, item)));
                }
                Poll::Ready(None) => {}
                Poll::Pending => ended = false,
            }
        }
        if ended { Poll::Ready(None) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests;
