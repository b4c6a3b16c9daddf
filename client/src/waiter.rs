//! One task for all waits of a client: woken by notifications, and polling at growing intervals for results whose
//! notification was lost.
//!
//! It reports only *that* a result exists; the wait reads the record, at its own pace.

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

/// Notifications that wait for the task; the connection to Redis holds the rest.
const NOTIFICATIONS_MAX: usize = 1_024;
/// Requests that wait for the task.
const WATCHES_MAX: usize = 64;
/// Jobs in one poll of Redis.
const POLL_IDS_MAX: usize = 512;
/// The first pause between two polls for the same ids; it grows by half each time.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause, unless very many ids are waited for.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// All polls together ask Redis about no more jobs than this in a second.
const POLLED_PER_S_MAX: f64 = 10_000.0;

/// A request to watch for the results of some ids.
pub(crate) struct Watch {
    pub(crate) ids: Vec<JobId>,
    /// Receives each id once, when its result exists; has capacity for all of them.
    pub(crate) to: mpsc::Sender<JobId>,
    /// The pause before the first poll.
    pub(crate) first_poll: Duration,
}

/// The handle of the task, which ends when this is dropped.
pub(crate) struct Waiter {
    watches: mpsc::Sender<Watch>,
    trouble: watch::Receiver<Option<String>>,
}

impl Waiter {
    /// Starts the task, and another that subscribes to `channel`.
    pub(crate) fn start(store: &Store, channel: &str) -> Self {
        let (to, notifications) = mpsc::channel(NOTIFICATIONS_MAX);
        let listener = tokio::spawn(subscribe(store.clone(), channel.to_owned(), to));
        Self::with(store.clone(), notifications, Some(AbortOnDropHandle::new(listener)))
    }

    fn with(
        results: impl Results,
        notifications: mpsc::Receiver<Notification>,
        listener: Option<AbortOnDropHandle<()>>,
    ) -> Self {
        let (watches, requests) = mpsc::channel(WATCHES_MAX);
        let (report, trouble) = watch::channel(None);
        let task = Task {
            results,
            trouble: report,
            watched: HashMap::new(),
            polls: BTreeMap::new(),
            polls_made: 0,
            _listener: listener,
        };
        tokio::spawn(task.run(requests, notifications));
        Self { watches, trouble }
    }

    /// Passes a request to the task; `false` if it has ended.
    pub(crate) async fn watch(&self, watch: Watch) -> bool {
        self.watches.send(watch).await.is_ok()
    }

    /// Why the last poll failed, if it did.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }
}

/// The store in which the existence of results can be checked. Tests keep one in memory.
pub(crate) trait Results: Send + Sync + 'static {
    /// For each id, in order, whether its result exists.
    fn present(&self, ids: &[JobId]) -> impl Future<Output = Result<Vec<bool>, StoreError>> + Send;
}

impl Results for Store {
    async fn present(&self, ids: &[JobId]) -> Result<Vec<bool>, StoreError> {
        Store::present(self, ids).await
    }
}

/// An event of the subscription to the notification channel.
enum Notification {
    /// The subscription begins; results written before were not notified.
    Subscribed,
    /// This job's result was written.
    Written(JobId),
}

/// Stays subscribed to `channel`, across lost connections, until the receiver is dropped.
async fn subscribe(store: Store, channel: String, to: mpsc::Sender<Notification>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match store.notices(&channel).await {
            Ok(mut notices) => {
                backoff.reset();
                let mut next = Some(Notification::Subscribed);
                while let Some(notification) = next {
                    if to.send(notification).await.is_err() {
                        return;
                    }
                    next = notices.next().await.map(Notification::Written);
                }
            }
            Err(error) => tracing::debug!(%error, "can't subscribe to results; polling for them"),
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

struct Task<R> {
    results: R,
    trouble: watch::Sender<Option<String>>,
    watched: HashMap<JobId, Vec<mpsc::Sender<JobId>>>,
    /// By the time they are due; the number distinguishes those due at the same time.
    polls: BTreeMap<(Instant, u64), Poll>,
    polls_made: u64,
    _listener: Option<AbortOnDropHandle<()>>,
}

/// Ids that are polled together.
struct Poll {
    ids: Vec<JobId>,
    /// The pause since the last poll.
    pause: Duration,
}

impl<R: Results> Task<R> {
    async fn run(
        mut self,
        mut requests: mpsc::Receiver<Watch>,
        mut notifications: mpsc::Receiver<Notification>,
    ) {
        loop {
            let due = self.polls.first_key_value().map(|((at, _), _)| *at);
            tokio::select! {
                request = requests.recv() => match request {
                    Some(watch) => self.add(watch),
                    None => return,
                },
                Some(notification) = notifications.recv() => match notification {
                    Notification::Written(id) => self.written(&id),
                    Notification::Subscribed => self.poll_all_now(),
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.poll().await;
                }
            }
        }
    }

    fn add(&mut self, watch: Watch) {
        let Watch { ids, to, first_poll } = watch;
        for ids in ids.chunks(POLL_IDS_MAX) {
            for id in ids {
                self.watched.entry(id.clone()).or_default().push(to.clone());
            }
            let poll = Poll { ids: ids.to_vec(), pause: PAUSE_FIRST };
            self.schedule(Instant::now() + first_poll, poll);
        }
    }

    fn written(&mut self, id: &JobId) {
        for waiting in self.watched.remove(id).unwrap_or_default() {
            // There is capacity for every id; an error means that the wait was dropped.
            let _ = waiting.try_send(id.clone());
        }
    }

    fn schedule(&mut self, at: Instant, poll: Poll) {
        self.polls_made += 1;
        self.polls.insert((at, self.polls_made), poll);
    }

    fn poll_all_now(&mut self) {
        for (_, poll) in std::mem::take(&mut self.polls) {
            self.schedule(Instant::now(), poll);
        }
    }

    /// Polls for the ids that are due first, and schedules those without a result again.
    async fn poll(&mut self) {
        let Some(mut poll) = self.due() else { return };
        poll.ids.retain(|id| self.is_awaited(id));
        if poll.ids.is_empty() {
            return;
        }
        match self.results.present(&poll.ids).await {
            Ok(present) => {
                self.trouble.send_replace(None);
                let there = poll.ids.iter().zip(present).filter(|(_, present)| *present);
                there.for_each(|(id, _)| self.written(id));
            }
            Err(error) => {
                tracing::debug!(%error, "can't poll for results; trying again");
                self.trouble.send_replace(Some(error.to_string()));
            }
        }
        poll.ids.retain(|id| self.watched.contains_key(id));
        poll.pause = (poll.pause * 3 / 2).min(PAUSE_MAX).max(self.pause_min());
        self.schedule(Instant::now() + poll.pause, poll);
    }

    /// The poll that is due first, coalesced with all others that are due and fit: a thousand waits for one job each
    /// cost as little as one wait for a thousand.
    fn due(&mut self) -> Option<Poll> {
        let (_, mut due) = self.polls.pop_first()?;
        let now = Instant::now();
        while let Some(next) = self.polls.first_entry() {
            let fits = due.ids.len() + next.get().ids.len() <= POLL_IDS_MAX;
            if next.key().0 > now || !fits {
                break;
            }
            let poll = next.remove();
            due.ids.extend(poll.ids);
            due.pause = due.pause.min(poll.pause);
        }
        Some(due)
    }

    fn pause_min(&self) -> Duration {
        Duration::from_secs_f64(self.watched.len() as f64 / POLLED_PER_S_MAX)
    }

    /// Whether a wait for `id` still exists; forgets the id otherwise.
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
