//! Whether another worker of the model has nothing to do while this one holds jobs that wait.
//!
//! A worker whose jobs take long holds many of them, to choose the order in which they run. The others say in their
//! records what they have: where one lacks work, what is held here beyond a fair share goes back to the queue.

use std::{sync::Arc, time::Duration};

use forebay_fabric::Store;
use forebay_schemas::{ModelId, WorkerRecord, WorkerState, worker::HEARTBEAT_INTERVAL_MS};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::stats::Stats;

/// How often the records are read while jobs wait here.
const LOOK_EVERY: Duration = Duration::from_millis(HEARTBEAT_INTERVAL_MS);
/// Looks in a row at which a worker lacks work before that counts: one that has just begun has not been given any yet.
const LOOKS: u32 = 2;
/// A worker lacks work if none of its jobs waits and it has less than this part of what this one has.
const LACKS_PART: u64 = 4;

/// The other workers of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// Their records were not read, or can't be.
    Unknown,
    /// None lacks work.
    Served,
    /// One lacks work.
    Lack {
        /// Jobs that each would have if all had as many.
        share: u64,
    },
}

/// Watches over the other workers of a model that generates text, until `stop`.
pub fn start(
    own: &str,
    model: &ModelId,
    stats: &Arc<Stats>,
    store: &Arc<Store>,
    stop: &CancellationToken,
) -> watch::Receiver<Peers> {
    let (publish, peers) = watch::channel(Peers::Unknown);
    let stats = stats.clone();
    let waits = move || stats.generation().is_some_and(|generation| generation.waiting > 0);
    let store = store.clone();
    let records = async move || match store.workers().await {
        Ok(records) => Some(records),
        Err(error) => {
            tracing::debug!(%error, "the records of other workers can't be read");
            None
        }
    };
    let watching = watch(own.to_owned(), model.clone(), publish, waits, records);
    let stop = stop.clone();
    tokio::spawn(async move { stop.run_until_cancelled(watching).await });
    peers
}

/// Looks at the records of the model's workers for ever, while `waits` says that jobs wait here, and publishes what
/// they say. `records` reads them; `None` if they can't be read.
async fn watch(
    own: String,
    model: ModelId,
    publish: watch::Sender<Peers>,
    waits: impl Fn() -> bool,
    records: impl AsyncFn() -> Option<Vec<WorkerRecord>>,
) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lacking = 0;
    loop {
        look.tick().await;
        if !waits() {
            // What was known grows old, and a share of few jobs would keep this worker at few.
            lacking = 0;
            publish.send_replace(Peers::Unknown);
            continue;
        }
        let peers = match records().await {
            Some(records) => peers(&records, &own, &model),
            None => Peers::Unknown,
        };
        lacking = if matches!(peers, Peers::Lack { .. }) { lacking + 1 } else { 0 };
        if lacking == 0 || lacking >= LOOKS {
            publish.send_replace(peers);
        }
    }
}

/// The others, by their records. Workers that start or drain take no jobs.
fn peers(records: &[WorkerRecord], own: &str, model: &ModelId) -> Peers {
    let is_ready =
        |it: &&WorkerRecord| it.model == model.as_str() && it.state == WorkerState::Ready;
    let of_model: Vec<&WorkerRecord> = records.iter().filter(is_ready).collect();
    let Some(this) = of_model.iter().find(|it| it.id == own) else { return Peers::Unknown };
    let lacks = |it: &WorkerRecord| {
        let waiting = it.generate.map_or(0, |generate| generate.waiting);
        waiting == 0 && it.in_flight.saturating_mul(LACKS_PART) <= this.in_flight
    };
    if of_model.iter().any(|it| it.id != own && lacks(it)) {
        let jobs: u64 = of_model.iter().map(|it| it.in_flight).sum();
        Peers::Lack { share: jobs.div_ceil(of_model.len() as u64) }
    } else {
        Peers::Served
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    };

    use forebay_schemas::GenerateRecord;
    use serde_json::json;

    use super::*;

    fn model() -> ModelId {
        "m".parse().unwrap()
    }

    fn record(id: &str, in_flight: u64, waiting: u64) -> WorkerRecord {
        let record = json!({
            "id": id, "model": "m", "state": "ready", "device": "cpu", "dtype": "f32", "host": "h", "pid": 1,
            "version": "1", "started_at_ms": 0, "beat_at_ms": 0, "progress_at_ms": 0, "in_flight": in_flight,
            "jobs_done": 0, "tokens_done": 0, "busy_ms": 0, "load_ms": 0, "slots_free_tokens": 0,
        });
        let generate =
            GenerateRecord { waiting, running: in_flight - waiting, ..Default::default() };
        let record: WorkerRecord = serde_json::from_value(record).unwrap();
        WorkerRecord { generate: Some(generate), ..record }
    }

    #[test]
    fn a_worker_that_is_ready_and_has_nothing_lacks_work_and_all_others_do_not() {
        let own = record("own", 200, 136);
        let other = |record: WorkerRecord| peers(&[own.clone(), record], "own", &model());
        assert_eq!(other(record("idle", 0, 0)), Peers::Lack { share: 100 });
        assert_eq!(other(record("few", 20, 0)), Peers::Lack { share: 110 });
        assert_eq!(other(record("some", 64, 0)), Peers::Served);
        assert_eq!(other(record("full", 20, 1)), Peers::Served, "its jobs are large");
        let state = WorkerState::Starting;
        assert_eq!(other(WorkerRecord { state, ..record("new", 0, 0) }), Peers::Served);
        let another = WorkerRecord { model: "n".to_owned(), ..record("else", 0, 0) };
        assert_eq!(other(another), Peers::Served);
        assert_eq!(peers(&[record("idle", 0, 0)], "own", &model()), Peers::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn records_are_read_while_jobs_wait_and_a_lack_counts_when_it_lasts() {
        let (publish, mut seen) = watch::channel(Peers::Unknown);
        let waiting = Arc::new(AtomicU64::new(0));
        let reads = Arc::new(AtomicU64::new(0));
        let waits = {
            let waiting = waiting.clone();
            move || waiting.load(Relaxed) > 0
        };
        let records = {
            let reads = reads.clone();
            async move || {
                reads.fetch_add(1, Relaxed);
                Some(vec![record("own", 100, 36), record("idle", 0, 0)])
            }
        };
        tokio::spawn(watch("own".to_owned(), model(), publish, waits, records));
        tokio::time::sleep(5 * LOOK_EVERY).await;
        assert_eq!(reads.load(Relaxed), 0);
        waiting.store(1, Relaxed);
        seen.wait_for(|peers| *peers == Peers::Lack { share: 50 }).await.unwrap();
        assert_eq!(reads.load(Relaxed), u64::from(LOOKS));
        waiting.store(0, Relaxed);
        seen.wait_for(|peers| *peers == Peers::Unknown).await.unwrap();
    }
}
