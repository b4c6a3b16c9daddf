//! Whether a worker of the simulation lives, and the channel on which its death is reported.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::sync::mpsc::UnboundedSender;

/// One worker's life. A dead worker has no effect on anything from that very instant on.
#[derive(Debug, Clone)]
pub struct Life {
    pub name: String,
    dead: Arc<AtomicBool>,
    deaths: UnboundedSender<String>,
}

impl Life {
    pub fn new(name: String, deaths: UnboundedSender<String>) -> Self {
        Self { name, dead: Arc::default(), deaths }
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    /// Dies of what it does, and reports that to the world.
    pub fn die(&self) {
        if !self.dead.swap(true, Relaxed) {
            // The world is gone only when the run is over.
            let _ = self.deaths.send(self.name.clone());
        }
    }

    /// Dies by the world's hand.
    pub fn end(&self) {
        self.dead.store(true, Relaxed);
    }

    /// Goes on only in a living worker.
    pub async fn breathe(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}
