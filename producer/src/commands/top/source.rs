//! The sources of what is drawn: Redis for the fleet's status and its workers, RabbitMQ for queues.
//!
//! Each is asked in a task of its own, so that one that is unreachable does not delay the others. Its last answer
//! stays, with the error of the present.

use std::time::Duration;

use forebay_client::{Client, ClientError};
use forebay_fabric::Config;
use forebay_schemas::{FleetStatus, WorkerRecord};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::queue_status::{self, QueueStatus};

/// The longest that one request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The last answer of one source.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Latest<T> {
    /// The answer; `None` before the first.
    pub(super) value: Option<T>,
    /// When it was received.
    pub(super) at: Option<Instant>,
    /// The error of the last request, if it failed.
    pub(super) error: Option<String>,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self { value: None, at: None, error: None }
    }
}

impl<T> Latest<T> {
    fn is_answered(&self) -> bool {
        self.at.is_some() || self.error.is_some()
    }
}

/// The queues, and why the management API gave no counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct QueuesSeen {
    pub(super) queues: Vec<QueueStatus>,
    pub(super) management_error: Option<String>,
}

/// The last answers of all sources.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Seen {
    /// The leader's status; `Some(None)` when there is none.
    pub(super) status: Latest<Option<FleetStatus>>,
    pub(super) workers: Latest<Vec<WorkerRecord>>,
    pub(super) queues: Latest<QueuesSeen>,
}

/// The tasks that ask the sources, until they are stopped or this is dropped.
pub(super) struct Sources {
    status: watch::Receiver<Latest<Option<FleetStatus>>>,
    workers: watch::Receiver<Latest<Vec<WorkerRecord>>>,
    queues: watch::Receiver<Latest<QueuesSeen>>,
}

impl Sources {
    /// Asks each source at the interval `every`.
    pub(super) fn ask(
        client: &Client,
        config: &Config,
        every: Duration,
        stop: &CancellationToken,
    ) -> Self {
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
        let one = (client.clone(), config.clone());
        let queues = repeat(every, stop, move || {
            let (client, config) = one.clone();
            async move {
                let found = queue_status::queues(&client, &config).await?;
                let management_error = found.management_error.map(|error| error.to_string());
                Ok(QueuesSeen { queues: found.queues, management_error })
            }
        });
        Self { status, workers, queues }
    }

    /// Waits until each source has answered or failed.
    pub(super) async fn all_answered(&mut self) {
        // A task ends only when it is stopped, and then this wait is stopped too.
        let _ = self.status.wait_for(Latest::is_answered).await;
        let _ = self.workers.wait_for(Latest::is_answered).await;
        let _ = self.queues.wait_for(Latest::is_answered).await;
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
) -> watch::Receiver<Latest<T>>
where
    T: Send + Sync + 'static,
    A: Future<Output = Result<T, ClientError>> + Send,
{
    let (sender, latest) = watch::channel(Latest::default());
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            let answer = timeout(ANSWER_WITHIN, ask()).await;
            sender.send_modify(|latest| match answer {
                Ok(Ok(value)) => {
                    *latest = Latest { value: Some(value), at: Some(Instant::now()), error: None };
                }
                Ok(Err(error)) => latest.error = Some(error.to_string()),
                Err(_) => latest.error = Some(format!("no answer within {ANSWER_WITHIN:?}")),
            });
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = sender.closed() => return,
            }
        }
    }));
    latest
}
