//! An executor for the simulation: no thread, so that a run depends on nothing but its seed.

use forebay_consumer::{
    encode::compute::{Compute, Ports},
    job::Admitted,
    lanes::LaneReceiver,
    pipeline::Executor,
    tokenize::Tokenize,
};
use tokio::time::Duration;

/// Runs the blocking stages on the simulation's own thread. A batch takes a time that depends on its tokens, by the
/// paused clock.
pub struct InPlace;

impl Executor for InPlace {
    fn tokenize(
        &self,
        stage: Tokenize,
        admitted: LaneReceiver<Admitted>,
    ) -> impl Future<Output = ()> + Send + 'static {
        tokenize(stage, admitted)
    }

    fn compute(&self, stage: Compute, ports: Ports) -> impl Future<Output = ()> + Send + 'static {
        compute(stage, ports)
    }
}

async fn tokenize(stage: Tokenize, mut admitted: LaneReceiver<Admitted>) {
    while let Some(job) = admitted.recv().await {
        stage.pass_on(stage.tokenize(job)).await;
    }
}

async fn compute(mut stage: Compute, ports: Ports) {
    let Ports { mut batches, done, computed } = ports;
    while let Some(batch) = batches.recv().await {
        tokio::time::sleep(duration(batch.step.packed.tokens())).await;
        let begun = stage.begin(batch);
        let batch = stage.finish(begun);
        // As on the worker's own thread.
        let _ = done.send(batch.sequences).await;
        if computed.send(batch).await.is_err() {
            return;
        }
    }
}

fn duration(tokens: usize) -> Duration {
    Duration::from_micros(500 + 200 * tokens as u64)
}
