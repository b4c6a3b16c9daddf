//! The stages and the channels between them.

use std::{sync::Arc, time::Duration};

use forebay_engine::Model;
use forebay_fabric::{Broker, Config, Store, answer::Answerer, fail};
use forebay_schemas::{Lane, ModelId, Task};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admit::Admit, batch::Batching, compute::Compute, decode::Decode, lanes, packer::BatchLimits,
    settle::Settle, stats::Stats, tokenize::Tokenize,
};

/// Jobs that wait between two stages, in each lane.
const JOBS_BETWEEN_STAGES: usize = 64;
/// Batches that are packed ahead of the device.
const BATCHES_AHEAD: usize = 1;
/// Computed batches that wait to be settled.
const BATCHES_BEHIND: usize = 4;

/// What the stages work with.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// The model's name.
    pub name: ModelId,
    /// The model.
    pub model: Model,
    /// This worker's id.
    pub worker: String,
    /// The broker.
    pub broker: Broker,
    /// The store.
    pub store: Arc<Store>,
    /// The worker's counts.
    pub stats: Arc<Stats>,
}

/// The running stages.
pub struct Pipeline {
    stages: JoinSet<&'static str>,
    take_no_more: CancellationToken,
}

impl Pipeline {
    /// Subscribes and starts every stage.
    pub fn start(parts: Parts) -> Self {
        let Parts { config, name, model, worker, broker, store, stats } = parts;
        let Model { tokenizer, encoder, info } = model;
        let take_no_more = CancellationToken::new();
        let (to_admit, from_decode) = lanes::channel(JOBS_BETWEEN_STAGES);
        let (to_tokenize, from_admit) = lanes::channel(JOBS_BETWEEN_STAGES);
        let (to_batch, from_tokenize) = lanes::channel(JOBS_BETWEEN_STAGES);
        let (to_compute, from_batch) = mpsc::channel(BATCHES_AHEAD);
        let (to_settle, from_compute) = mpsc::channel(BATCHES_BEHIND);
        let (ended, from_all) = mpsc::channel(JOBS_BETWEEN_STAGES);

        let mut stages = JoinSet::new();
        for (lane, prefetch) in [
            (Lane::Interactive, config.worker.prefetch_interactive),
            (Lane::Batch, config.worker.prefetch_batch),
        ] {
            let decode = Decode {
                lane,
                limits: config.limits.clone(),
                stats: stats.clone(),
                jobs: to_admit.clone(),
                ended: ended.clone(),
            };
            let subscription = broker.subscribe(&lane.queue(&name), prefetch);
            let stage = decode.run(subscription, take_no_more.clone());
            stages.spawn(named("decode", stage));
        }
        drop(to_admit);
        let tasks = vec![Task::Embed];
        let admit = Admit {
            model: name,
            tasks,
            store: store.clone(),
            jobs: to_tokenize,
            ended: ended.clone(),
        };
        stages.spawn(named("admit", admit.run(from_decode)));
        let threads = config.worker.tokenize_threads;
        let tokenize = Tokenize { tokenizer, dim: info.dim, threads, jobs: to_batch, ended };
        stages.spawn(named("tokenize", tokenize.run(from_admit)));
        let limits = BatchLimits {
            tokens_max: config.worker.batch_tokens_max,
            items_max: config.worker.batch_items_max,
        };
        let linger = Duration::from_millis(config.worker.linger_ms_max);
        let batching = Batching { limits, linger, stats: stats.clone(), batches: to_compute };
        stages.spawn(named("batch", batching.run(from_tokenize)));
        let compute = Compute { encoder, dim: info.dim, stats: stats.clone(), computed: to_settle };
        stages.spawn_blocking(move || {
            compute.run(from_batch);
            "compute"
        });
        let settle = Settle { answerer: Answerer { signature: worker, store, broker }, stats };
        stages.spawn(named("settle", settle.run(from_compute, from_all)));
        Self { stages, take_no_more }
    }

    /// Waits for a stage to end, which none does while work may come. Its name, or its panic.
    pub async fn ended(&mut self) -> Result<&'static str, JoinError> {
        self.stages.join_next().await.unwrap_or(Ok("all"))
    }

    /// Takes no more and finishes what was taken. Abandoned, it leaves the rest to the broker.
    pub async fn drain(&mut self) {
        self.take_no_more.cancel();
        fail::point("during_drain");
        while let Some(stage) = self.stages.join_next().await {
            match stage {
                Ok(stage) => tracing::debug!(stage, "drained"),
                Err(error) => tracing::error!(%error, "a stage failed while draining"),
            }
        }
    }
}

async fn named(name: &'static str, stage: impl Future<Output = ()>) -> &'static str {
    stage.await;
    name
}
