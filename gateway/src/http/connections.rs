//! The open connections: how many there are, which of them make room, and which have taken too long.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use metrics::gauge;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Waits};

/// The open connections of a listener. Clones share them.
#[derive(Debug, Clone)]
pub struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    open: Mutex<Open>,
    freed: Notify,
    max: usize,
    waits: Waits,
}

#[derive(Debug, Default)]
struct Open {
    by_number: HashMap<u64, Connection>,
    opened: u64,
}

#[derive(Debug)]
struct Connection {
    activity: Arc<Activity>,
    ended: CancellationToken,
}

/// One connection's entry; it leaves when this is dropped.
#[derive(Debug)]
pub struct Entry {
    number: u64,
    /// Its phase.
    pub activity: Arc<Activity>,
    /// Cancelled when it has to end.
    pub ended: CancellationToken,
    connections: Connections,
}

impl Connections {
    /// No connections yet, and at most `max`.
    pub fn new(max: usize, waits: Waits) -> Self {
        let shared =
            Shared { open: Mutex::default(), freed: Notify::new(), max: max.max(1), waits };
        Self { shared: Arc::new(shared) }
    }

    /// Enters one more connection. When there are too many, the one that has been idle for longest is ended; while
    /// none is idle this waits.
    pub async fn enter(&self) -> Entry {
        loop {
            let freed = self.shared.freed.notified();
            if let Some(entry) = self.try_enter() {
                return entry;
            }
            self.end_idlest();
            freed.await;
        }
    }

    /// Ends the connections that have taken too long.
    pub fn sweep(&self) {
        let open = self.lock();
        let overdue = open.by_number.values().filter(|c| c.activity.is_overdue(&self.shared.waits));
        overdue.for_each(|connection| connection.ended.cancel());
        drop(open);
        // One that waits for room looks again: another may have become idle since.
        self.shared.freed.notify_one();
    }

    fn try_enter(&self) -> Option<Entry> {
        let mut open = self.lock();
        if open.by_number.len() >= self.shared.max {
            return None;
        }
        open.opened += 1;
        let number = open.opened;
        let activity = Arc::new(Activity::new());
        let ended = CancellationToken::new();
        let connection = Connection { activity: activity.clone(), ended: ended.clone() };
        open.by_number.insert(number, connection);
        gauge!("forebay_gateway_connections").set(open.by_number.len() as f64);
        Some(Entry { number, activity, ended, connections: self.clone() })
    }

    fn end_idlest(&self) {
        let open = self.lock();
        let idle = open.by_number.values().filter(|connection| !connection.ended.is_cancelled());
        let idle = idle.filter_map(|c| c.activity.idle_since().map(|since| (since, c)));
        if let Some((_, idlest)) = idle.min_by_key(|(since, _)| *since) {
            idlest.ended.cancel();
        }
    }

    fn leave(&self, number: u64) {
        let mut open = self.lock();
        open.by_number.remove(&number);
        gauge!("forebay_gateway_connections").set(open.by_number.len() as f64);
        drop(open);
        self.shared.freed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WAITS: Waits = Waits {
        header: Duration::from_secs(10),
        answer: Duration::from_secs(10),
        idle: Duration::from_secs(75),
    };

    /// Makes a connection idle as its stream does.
    async fn make_idle(entry: &Entry) {
        use tokio::io::AsyncWriteExt;
        entry.activity.began();
        entry.activity.answered();
        let mut stream =
            super::super::activity::Watched::new(tokio::io::sink(), entry.activity.clone());
        stream.flush().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_idlest_makes_room_and_a_busy_one_does_not() {
        let connections = Connections::new(3, WAITS);
        let busy = connections.enter().await;
        busy.activity.began();
        let idlest = connections.enter().await;
        make_idle(&idlest).await;
        tokio::time::advance(Duration::from_secs(1)).await;
        let idle = connections.enter().await;
        make_idle(&idle).await;
        let next = tokio::spawn({
            let connections = connections.clone();
            async move { connections.enter().await }
        });
        idlest.ended.cancelled().await;
        assert!(!busy.ended.is_cancelled() && !idle.ended.is_cancelled());
        assert!(!next.is_finished(), "there is room only once it has left");
        drop(idlest);
        next.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_take_too_long_are_ended() {
        let connections = Connections::new(3, WAITS);
        let slow = connections.enter().await;
        tokio::time::advance(Duration::from_secs(11)).await;
        let fresh = connections.enter().await;
        connections.sweep();
        assert!(slow.ended.is_cancelled() && !fresh.ended.is_cancelled());
    }
}
