//! [`TokenNotices`]: one subscription for all generations that a client follows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use forebay_fabric::{Store, backoff::Backoff};
use forebay_schemas::JobId;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

type Watched = Arc<Mutex<HashMap<JobId, watch::Sender<()>>>>;

fn lock(watched: &Watched) -> MutexGuard<'_, HashMap<JobId, watch::Sender<()>>> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one subscription of a client to notices of token streams.
#[derive(Debug)]
pub(crate) struct TokenNotices {
    watched: Watched,
    _listener: AbortOnDropHandle<()>,
}

impl TokenNotices {
    /// Subscribes to the notices of jobs with this `notify` channel.
    pub(crate) fn start(store: &Store, notify: &str) -> Self {
        let watched = Watched::default();
        let listener = tokio::spawn(listen(store.clone(), notify.to_owned(), watched.clone()));
        Self { watched, _listener: AbortOnDropHandle::new(listener) }
    }

    pub(crate) fn watch(&self, id: &JobId) -> Noticed {
        let mut watched = lock(&self.watched);
        let sender = watched.entry(id.clone()).or_insert_with(|| watch::Sender::new(()));
        let receiver = sender.subscribe();
        Noticed { id: id.clone(), watched: self.watched.clone(), receiver, ever: false }
    }
}

async fn listen(store: Store, notify: String, watched: Watched) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match store.token_notices(&notify).await {
            Ok(mut notices) => {
                backoff.reset();
                while let Some(id) = notices.next().await {
                    if let Some(sender) = lock(&watched).get(&id) {
                        sender.send_replace(());
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "can't subscribe to tokens; looking for them"),
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// Notices of one job.
#[derive(Debug)]
pub(crate) struct Noticed {
    id: JobId,
    watched: Watched,
    receiver: watch::Receiver<()>,
    /// Whether any came.
    pub(crate) ever: bool,
}

impl Noticed {
    /// Returns when there is a new one.
    pub(crate) async fn changed(&mut self) {
        match self.receiver.changed().await {
            Ok(()) => self.ever = true,
            // Its sender is there as long as this is.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Noticed {
    fn drop(&mut self) {
        let mut watched = lock(&self.watched);
        // The receiver of this one is still there.
        if watched.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            watched.remove(&self.id);
        }
    }
}
