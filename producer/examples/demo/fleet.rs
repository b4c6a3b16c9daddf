//! The life of the fleet: when the first worker was ready, how many there were, when the last one was gone.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use forebay_producer::{Client, ModelId};
use forebay_schemas::{WorkerRecord, WorkerState};
use tokio::sync::watch;

/// How often the registry is read.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the fleet may take to come to rest once all is done.
const REST_MAX: Duration = Duration::from_secs(60);

/// What was seen.
#[derive(Default, Clone)]
pub(crate) struct Life {
    /// When the first worker was ready.
    pub(crate) first_ready: Option<Instant>,
    /// The most that were ready at once, and when that was first so.
    pub(crate) most: Option<(usize, Instant)>,
    /// When none was left, after there had been some.
    pub(crate) gone: Option<Instant>,
    /// All that were seen.
    pub(crate) workers: BTreeMap<String, WorkerRecord>,
    /// When work began and ended.
    pub(crate) worked: Option<(Instant, Instant)>,
}

impl Life {
    /// What is wrong with it.
    pub(crate) fn problem(&self) -> Option<String> {
        let rested = self.gone.is_some();
        (!rested)
            .then(|| format!("workers still run {} s after the last result", REST_MAX.as_secs()))
    }
}

/// Watches the workers of one model.
pub(crate) struct Fleet {
    life: watch::Receiver<Life>,
}

impl Fleet {
    /// Begins to watch; ends with the program.
    pub(crate) fn watch(client: Client, model: ModelId) -> Self {
        let (sender, life) = watch::channel(Life::default());
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(LOOK_EVERY);
            loop {
                tick.tick().await;
                // A look that fails shows nothing; the next one may.
                if let Ok(workers) = client.workers().await {
                    sender.send_modify(|life| look(life, &model, workers));
                }
            }
        });
        Self { life }
    }

    /// Waits until no worker is left, and tells how all of it went.
    pub(crate) async fn comes_to_rest(mut self, began: Instant, ended: Instant) -> Life {
        let at_rest = self.life.wait_for(|life| life.gone.is_some_and(|gone| gone > ended));
        let _ = tokio::time::timeout(REST_MAX, at_rest).await;
        let mut life = self.life.borrow().clone();
        life.worked = Some((began, ended));
        life
    }
}

fn look(life: &mut Life, model: &ModelId, workers: Vec<WorkerRecord>) {
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
