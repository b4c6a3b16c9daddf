//! Who is asked for what is drawn: Redis for the fleet's status and its workers, RabbitMQ for queues.
//!
//! Each is asked in a task of its own, so that one that is away holds up nobody. What it said last
//! stays, with the reason why it says nothing now.

use std::time::Duration;

use forebay_producer::{Client, ClientError, QueueInfo};
use forebay_schemas::{FleetStatus, WorkerRecord};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// The longest that one question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What one source said last.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Heard<T> {
    /// Its last answer; `None` before the first.
    pub(super) value: Option<T>,
    /// When it gave it.
    pub(super) at: Option<Instant>,
    /// Why it gives none now.
    pub(super) error: Option<String>,
}

impl<T> Default for Heard<T> {
    fn default() -> Self {
        Self { value: None, at: None, error: None }
    }
}

impl<T> Heard<T> {
    fn is_answered(&self) -> bool {
        self.at.is_some() || self.error.is_some()
    }
}

/// The queues, and why the management API told nothing of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct QueuesSeen {
    pub(super) queues: Vec<QueueInfo>,
    pub(super) management_error: Option<String>,
}

/// What all of them said last.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Seen {
    /// The leader's status; `Some(None)` when nobody leads.
    pub(super) status: Heard<Option<FleetStatus>>,
    pub(super) workers: Heard<Vec<WorkerRecord>>,
    pub(super) queues: Heard<QueuesSeen>,
}

/// The tasks that ask, until they are stopped or this is dropped.
pub(super) struct Sources {
    status: watch::Receiver<Heard<Option<FleetStatus>>>,
    workers: watch::Receiver<Heard<Vec<WorkerRecord>>>,
    queues: watch::Receiver<Heard<QueuesSeen>>,
}

impl Sources {
    /// Asks each of them, `every` so often.
    pub(super) fn ask(client: &Client, every: Duration, stop: &CancellationToken) -> Self {
        let one = client.clone();
        let status = repeat(every, stop, move || {
            let client = one.clone();
            async move { client.status().await }
        });
        let one = client.clone();
        let workers = repeat(every, stop, move || {
            let client = one.clone();
            async move { client.workers().await }
        });
        let one = client.clone();
        let queues = repeat(every, stop, move || {
            let client = one.clone();
            async move {
                let found = client.queues().await?;
                let management_error = found.management_error.map(|error| error.to_string());
                Ok(QueuesSeen { queues: found.queues, management_error })
            }
        });
        Self { status, workers, queues }
    }

    /// Waits until each has answered, if only that it can't.
    pub(super) async fn all_answered(&mut self) {
        // A task ends only when it is stopped: then nobody waits here any more.
        let _ = self.status.wait_for(Heard::is_answered).await;
        let _ = self.workers.wait_for(Heard::is_answered).await;
        let _ = self.queues.wait_for(Heard::is_answered).await;
    }

    pub(super) fn seen(&self) -> Seen {
        Seen {
            status: self.status.borrow().clone(),
            workers: self.workers.borrow().clone(),
            queues: self.queues.borrow().clone(),
        }
    }
}

fn repeat<T, A>(
    every: Duration,
    stop: &CancellationToken,
    ask: impl Fn() -> A + Send + 'static,
) -> watch::Receiver<Heard<T>>
where
    T: Send + Sync + 'static,
    A: Future<Output = Result<T, ClientError>> + Send,
{
    let (tell, heard) = watch::channel(Heard::default());
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            let answer = timeout(ANSWER_WITHIN, ask()).await;
            tell.send_modify(|heard| match answer {
                Ok(Ok(value)) => {
                    *heard = Heard { value: Some(value), at: Some(Instant::now()), error: None };
                }
                Ok(Err(error)) => heard.error = Some(error.to_string()),
                Err(_) => heard.error = Some(format!("no answer within {ANSWER_WITHIN:?}")),
            });
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = tell.closed() => return,
            }
        }
    }));
    heard
}
