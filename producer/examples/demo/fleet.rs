//! Watches the size of the fleet: when the first worker was ready, how many there were, when the last one was gone.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use forebay_client::{Client, ModelId};
use forebay_schemas::{WorkerRecord, WorkerState};
use tokio::sync::watch;

/// The interval of reading the registry.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// The limit for scaling to zero once all jobs are done.
const TO_ZERO_MAX: Duration = Duration::from_secs(60);

/// The history of the fleet, as observed.
#[derive(Default, Clone)]
pub(crate) struct Life {
    /// When the first worker was ready.
    pub(crate) first_ready: Option<Instant>,
    /// The most workers that were ready at once, and when that was reached.
    pub(crate) most: Option<(usize, Instant)>,
    /// When no worker was left, after there had been some.
    pub(crate) gone: Option<Instant>,
    /// All workers that were seen, by id.
    pub(crate) workers: BTreeMap<String, WorkerRecord>,
    /// When the first job was submitted and the last result was read.
    pub(crate) worked: Option<(Instant, Instant)>,
}

impl Life {
    /// A fleet that did not scale to zero in time is a problem.
    pub(crate) fn problem(&self) -> Option<String> {
        let at_zero = self.gone.is_some();
        (!at_zero)
            .then(|| format!("workers still run {} s after the last result", TO_ZERO_MAX.as_secs()))
    }
}

/// The watch on the workers of one model.
pub(crate) struct Fleet {
    life: watch::Receiver<Life>,
}

impl Fleet {
    /// Starts a task that watches until the program ends.
    pub(crate) fn watch(client: Client, model: ModelId) -> Self {
        let (sender, life) = watch::channel(Life::default());
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(POLL_EVERY);
            loop {
                tick.tick().await;
                // A failed read is skipped; the next one may succeed.
                if let Ok(workers) = client.workers().await {
                    sender.send_modify(|life| update(life, &model, workers));
                }
            }
        });
        Self { life }
    }

    /// Waits until no worker is left. Returns the whole history.
    pub(crate) async fn scaled_to_zero(mut self, began: Instant, ended: Instant) -> Life {
        let at_zero = self.life.wait_for(|life| life.gone.is_some_and(|gone| gone > ended));
        let _ = tokio::time::timeout(TO_ZERO_MAX, at_zero).await;
        let mut life = self.life.borrow().clone();
        life.worked = Some((began, ended));
        life
    }
}

fn update(life: &mut Life, model: &ModelId, workers: Vec<WorkerRecord>) {
    let now = Instant::now();
    let mine: Vec<WorkerRecord> =
        workers.into_iter().filter(|worker| worker.model == model.as_str()).collect();
    let ready = mine.iter().filter(|worker| worker.state == WorkerState::Ready).count();
    if ready > 0 {
        life.first_ready.get_or_insert(now);
    }
    if ready > life.most.map_or(0, |(most, _)| most) {
        life.most = Some((ready, now));
    }
    life.gone = match life.gone {
        _ if !mine.is_empty() => None,
        None if !life.workers.is_empty() => Some(now),
        gone => gone,
    };
    life.workers.extend(mine.into_iter().map(|worker| (worker.id.clone(), worker)));
}
