//! An executor for the simulation: no thread, so that a run depends on nothing but its seed.

use forebay_consumer::{
    encode::compute::{Compute, Ports},
    job::Admitted,
    lanes::LaneReceiver,
    pipeline::Executor,
    tokenize::{Handful, Tokenize},
};
use tokio::time::Duration;

/// Runs the blocking stages on the simulation's own thread. By the paused clock they take a time that depends on their
/// work.
#[derive(Clone, Copy)]
pub struct InPlace {
    /// Of each batch.
    pub batch: Duration,
    /// Of each of its tokens.
    pub token: Duration,
    /// Of each byte that is tokenized.
    pub text_byte: Duration,
}

impl Executor for InPlace {
    fn tokenize(
        &self,
        stage: Tokenize,
        admitted: LaneReceiver<Admitted>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let text_byte = self.text_byte;
        stage.run(admitted, move |handful: Handful| async move {
            tokio::time::sleep(text_byte * handful.bytes() as u32).await;
            handful.tokenize()
        })
    }

    fn compute(&self, stage: Compute, ports: Ports) -> impl Future<Output = ()> + Send + 'static {
        compute(*self, stage, ports)
    }
}

async fn compute(machine: InPlace, mut stage: Compute, ports: Ports) {
    let Ports { mut batches, done, computed } = ports;
    while let Some(batch) = batches.recv().await {
        let took = machine.batch + machine.token * batch.step.packed.tokens() as u32;
        let begun = stage.begin(batch);
        tokio::time::sleep(took).await;
        let batch = stage.finish(begun);
        // As on the worker's own thread.
        let _ = done.send(batch.sequences).await;
        if computed.send(batch).await.is_err() {
            return;
        }
    }
}
