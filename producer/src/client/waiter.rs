//! One task for all who wait: woken by notices, and looking by itself at growing intervals for what
//! was written without one.
//!
//! It tells only *that* a result is there; who waits reads it, at its own pace.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    time::Duration,
};

use forebay_fabric::{Store, backoff::Backoff, store::StoreError};
use forebay_schemas::JobId;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

/// Notices that wait for the task; the connection to Redis holds the rest.
const NOTICES_MAX: usize = 1_024;
/// Requests that wait for the task.
const WATCHES_MAX: usize = 64;
/// Jobs that are looked for in one go.
const LOOK_IDS_MAX: usize = 512;
/// The first pause between two looks; it grows by half each time.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause, unless there are very many to look for.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// All looks together ask Redis about no more jobs than this in a second.
const LOOKED_PER_S_MAX: f64 = 10_000.0;

/// Ids that somebody waits for.
pub(super) struct Watch {
    pub(super) ids: Vec<JobId>,
    /// Gets each id once; has room for all of them.
    pub(super) to: mpsc::Sender<JobId>,
    /// When to look for the first time.
    pub(super) first_look: Duration,
}

/// The way to the task, which ends with it.
pub(super) struct Waiter {
    watches: mpsc::Sender<Watch>,
    trouble: watch::Receiver<Option<String>>,
}

impl Waiter {
    /// Starts the task, and another that listens on `channel`.
    pub(super) fn start(store: &Store, channel: &str) -> Self {
        let (notices, heard) = mpsc::channel(NOTICES_MAX);
        let listener = tokio::spawn(listen(store.clone(), channel.to_owned(), notices));
        Self::with(store.clone(), heard, Some(AbortOnDropHandle::new(listener)))
    }

    fn with(
        shelf: impl Shelf,
        heard: mpsc::Receiver<Heard>,
        listener: Option<AbortOnDropHandle<()>>,
    ) -> Self {
        let (watches, requests) = mpsc::channel(WATCHES_MAX);
        let (tell, trouble) = watch::channel(None);
        let task = Task {
            shelf,
            trouble: tell,
            watched: HashMap::new(),
            looks: BTreeMap::new(),
            looks_made: 0,
            _listener: listener,
        };
        tokio::spawn(task.run(requests, heard));
        Self { watches, trouble }
    }

    /// Hands ids over; `false` if the task has ended.
    pub(super) async fn watch(&self, watch: Watch) -> bool {
        self.watches.send(watch).await.is_ok()
    }

    /// Why the last look failed, if it did.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }
}

/// Where results lie.
pub(super) trait Shelf: Send + Sync + 'static {
    /// For each id, whether its result is there.
    fn present(&self, ids: &[JobId]) -> impl Future<Output = Result<Vec<bool>, StoreError>> + Send;
}

impl Shelf for Store {
    async fn present(&self, ids: &[JobId]) -> Result<Vec<bool>, StoreError> {
        Store::present(self, ids).await
    }
}

/// What comes over the notification channel.
enum Heard {
    /// Listening begins; what was written before was not heard.
    Subscribed,
    /// This job's result was written.
    Written(JobId),
}

/// Listens on `channel` for ever, over lost connections.
async fn listen(store: Store, channel: String, to: mpsc::Sender<Heard>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match store.notices(&channel).await {
            Ok(mut notices) => {
                backoff.reset();
                let mut heard = Some(Heard::Subscribed);
                while let Some(next) = heard {
                    if to.send(next).await.is_err() {
                        return;
                    }
                    heard = notices.next().await.map(Heard::Written);
                }
            }
            Err(error) => tracing::debug!(%error, "can't listen for results; looking for them"),
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

struct Task<S> {
    shelf: S,
    trouble: watch::Sender<Option<String>>,
    watched: HashMap<JobId, Vec<mpsc::Sender<JobId>>>,
    /// By the time they are due; the number tells apart those due at once.
    looks: BTreeMap<(Instant, u64), Look>,
    looks_made: u64,
    _listener: Option<AbortOnDropHandle<()>>,
}

/// Ids that are looked for together.
struct Look {
    ids: Vec<JobId>,
    /// How long it was since the last look.
    pause: Duration,
}

impl<S: Shelf> Task<S> {
    async fn run(mut self, mut requests: mpsc::Receiver<Watch>, mut heard: mpsc::Receiver<Heard>) {
        loop {
            let due = self.looks.first_key_value().map(|((at, _), _)| *at);
            tokio::select! {
                request = requests.recv() => match request {
                    Some(watch) => self.add(watch),
                    None => return,
                },
                Some(heard) = heard.recv() => match heard {
                    Heard::Written(id) => self.written(&id),
                    Heard::Subscribed => self.look_at_once(),
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.look().await;
                }
            }
        }
    }

    fn add(&mut self, watch: Watch) {
        let Watch { ids, to, first_look } = watch;
        for ids in ids.chunks(LOOK_IDS_MAX) {
            for id in ids {
                self.watched.entry(id.clone()).or_default().push(to.clone());
            }
            let look = Look { ids: ids.to_vec(), pause: PAUSE_FIRST };
            self.schedule(Instant::now() + first_look, look);
        }
    }

    fn written(&mut self, id: &JobId) {
        for waiting in self.watched.remove(id).unwrap_or_default() {
            // There is room for every id; an error says that nobody waits any more.
            let _ = waiting.try_send(id.clone());
        }
    }

    fn schedule(&mut self, at: Instant, look: Look) {
        self.looks_made += 1;
        self.looks.insert((at, self.looks_made), look);
    }

    fn look_at_once(&mut self) {
        for (_, look) in std::mem::take(&mut self.looks) {
            self.schedule(Instant::now(), look);
        }
    }

    /// Looks for the ids that are due first, and schedules those that are not there.
    async fn look(&mut self) {
        let Some(mut look) = self.due() else { return };
        look.ids.retain(|id| self.is_awaited(id));
        if look.ids.is_empty() {
            return;
        }
        match self.shelf.present(&look.ids).await {
            Ok(present) => {
                self.trouble.send_replace(None);
                let there = look.ids.iter().zip(present).filter(|(_, present)| *present);
                there.for_each(|(id, _)| self.written(id));
            }
            Err(error) => {
                tracing::debug!(%error, "can't look for results; trying again");
                self.trouble.send_replace(Some(error.to_string()));
            }
        }
        look.ids.retain(|id| self.watched.contains_key(id));
        look.pause = (look.pause * 3 / 2).min(PAUSE_MAX).max(self.pause_min());
        self.schedule(Instant::now() + look.pause, look);
    }

    /// What is due first, together with all else that is due and fits: a thousand waits for one job
    /// each cost as little as one wait for a thousand.
    fn due(&mut self) -> Option<Look> {
        let (_, mut due) = self.looks.pop_first()?;
        let now = Instant::now();
        while let Some(next) = self.looks.first_entry() {
            let fits = due.ids.len() + next.get().ids.len() <= LOOK_IDS_MAX;
            if next.key().0 > now || !fits {
                break;
            }
            let look = next.remove();
            due.ids.extend(look.ids);
            due.pause = due.pause.min(look.pause);
        }
        Some(due)
    }

    fn pause_min(&self) -> Duration {
        Duration::from_secs_f64(self.watched.len() as f64 / LOOKED_PER_S_MAX)
    }

    /// Whether somebody still waits for `id`; forgets it otherwise.
    fn is_awaited(&mut self, id: &JobId) -> bool {
        let Some(waiting) = self.watched.get_mut(id) else { return false };
        waiting.retain(|to| !to.is_closed());
        let awaited = !waiting.is_empty();
        if !awaited {
            self.watched.remove(id);
        }
        awaited
    }
}

#[cfg(test)]
mod tests;
