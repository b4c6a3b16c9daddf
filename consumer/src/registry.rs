//! This worker's heartbeat: writes its record to the registry every two seconds, and when work comes or ends.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use forebay_engine::{Gpu, GpuMemory};
use forebay_fabric::{Store, clock, host};
use forebay_schemas::{
    GpuRecord, ModelId, WorkerRecord, WorkerState, worker::HEARTBEAT_INTERVAL_MS,
};
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;

use crate::{in_hand::InHand, stats::Stats};

/// The shortest time between two heartbeats, for work that comes and goes quickly.
const HEARTBEAT_PAUSE: Duration = Duration::from_millis(100);

/// This worker's record, kept fresh in the store.
#[derive(Clone)]
pub struct Registry {
    store: Arc<Store>,
    stats: Arc<Stats>,
    in_hand: Arc<InHand>,
    /// The fields that do not change from heartbeat to heartbeat.
    record: Arc<Mutex<WorkerRecord>>,
    /// 0 until the model is loaded.
    batch_tokens_max: Arc<AtomicU64>,
    gpu: Arc<OnceLock<Gpu>>,
}

impl Registry {
    /// A record for a worker that starts; nothing is written yet.
    pub fn new(
        id: String,
        model: &ModelId,
        store: Arc<Store>,
        stats: Arc<Stats>,
        in_hand: Arc<InHand>,
    ) -> Self {
        let now_ms = clock::now_ms();
        let record = WorkerRecord {
            id,
            model: model.to_string(),
            state: WorkerState::Starting,
            device: String::new(),
            dtype: String::new(),
            host: host::name(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at_ms: now_ms,
            beat_at_ms: now_ms,
            progress_at_ms: now_ms,
            in_flight: 0,
            jobs_done: 0,
            tokens_done: 0,
            busy_ms: 0,
            load_ms: 0,
            slots_free_tokens: 0,
            gpu: None,
            remote: None,
            generate: None,
            revision: None,
        };
        Self {
            store,
            stats,
            in_hand,
            record: Arc::new(Mutex::new(record)),
            batch_tokens_max: Arc::default(),
            gpu: Arc::default(),
        }
    }

    /// From now on free room is reported for batches of this size.
    pub fn set_batch_tokens_max(&self, tokens: usize) {
        self.batch_tokens_max.store(tokens as u64, Relaxed);
    }

    /// From now on this GPU's memory is reported too.
    pub fn set_gpu(&self, gpu: Gpu) {
        self.gpu.get_or_init(|| gpu);
    }

    /// Changes the record and writes it.
    pub async fn update(&self, change: impl FnOnce(&mut WorkerRecord)) {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner));
        self.heartbeat().await;
    }

    /// Sends heartbeats until `stop`: at a fixed interval, and when work comes or ends, so that an autoscaler sees it
    /// at once.
    pub async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_millis(HEARTBEAT_INTERVAL_MS));
        let next = async |tick: &mut Interval| {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.in_hand.idle_changed() => {}
            }
        };
        while stop.run_until_cancelled(next(&mut tick)).await.is_some() {
            self.heartbeat().await;
            stop.run_until_cancelled(tokio::time::sleep(HEARTBEAT_PAUSE)).await;
        }
    }

    /// Removes the record, on a clean exit.
    pub async fn remove(&self) {
        let id = self.snapshot().id;
        if let Err(error) = self.store.remove_worker(&id).await {
            tracing::warn!(%error, "can't remove this worker's record; it expires by itself");
        }
    }

    async fn heartbeat(&self) {
        let record = self.snapshot();
        if let Err(error) = self.store.heartbeat(&record).await {
            // The next one comes anyway, and /readyz names the store's problem.
            tracing::debug!(%error, "a heartbeat was lost");
        }
    }

    fn snapshot(&self) -> WorkerRecord {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = self.stats.snapshot();
        record.beat_at_ms = clock::now_ms();
        record.in_flight = self.in_hand.jobs();
        // While there is nothing to do, the worker is not stuck.
        record.progress_at_ms = match record.in_flight {
            0 => record.beat_at_ms,
            _ => now.computed_at_ms.max(self.in_hand.moved_at_ms()),
        };
        record.jobs_done = self.in_hand.jobs_done();
        record.tokens_done = now.tokens_done;
        record.busy_ms = now.busy_ms;
        record.slots_free_tokens =
            self.batch_tokens_max.load(Relaxed).saturating_sub(now.pending_tokens);
        record.generate = self.stats.generation();
        record.gpu = self.gpu.get().and_then(|gpu| {
            let GpuMemory { used, total } = gpu.memory()?;
            let name = gpu.name().to_owned();
            Some(GpuRecord { name, memory_used_bytes: used, memory_bytes: total })
        });
        record
    }
}
