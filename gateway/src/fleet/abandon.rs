//! Cancels the jobs that no caller waits for any more: the client left, another part failed, or time ran out.

use forebay_client::{Client, JobId};
use metrics::counter;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Cancellations that wait to be sent. One more is dropped: its job is computed, or expires, for no caller.
const WAITING_MAX: usize = 4_096;

/// Sends cancellations from a task of its own, since a future that is dropped can't wait for one. Clones share it.
#[derive(Debug, Clone)]
pub struct Canceller {
    ids: mpsc::Sender<JobId>,
}

impl Canceller {
    /// Starts the task. It ends once `stop` is cancelled and what was asked for before has been sent.
    pub fn start(client: Client, stop: CancellationToken) -> (Self, JoinHandle<()>) {
        let (ids, mut asked) = mpsc::channel(WAITING_MAX);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    id = asked.recv() => match id {
                        Some(id) => cancel(&client, &id).await,
                        None => return,
                    },
                    // From here on nothing more is taken, and the loop ends with the last that was.
                    () = stop.cancelled(), if !asked.is_closed() => asked.close(),
                }
            }
        });
        (Self { ids }, task)
    }

    /// A guard for one job: dropped before [`Pending::settled`], it cancels the job.
    pub(super) fn guard(&self, id: JobId) -> Pending {
        Pending { id: Some(id), canceller: self.clone() }
    }
}

async fn cancel(client: &Client, id: &JobId) {
    counter!("forebay_gateway_cancels_total").increment(1);
    if let Err(error) = client.cancel(id).await {
        tracing::debug!(%id, %error, "can't cancel a job that no caller waits for; it will expire");
    }
}

/// A job whose result is waited for.
#[derive(Debug)]
pub(super) struct Pending {
    id: Option<JobId>,
    canceller: Canceller,
}

impl Pending {
    /// The job needs no cancelling: it has ended, or never was in its queue.
    pub(super) fn settled(mut self) {
        self.id = None;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            // Full or closed: the job expires at its deadline.
            let _ = self.canceller.ids.try_send(id);
        }
    }
}
