//! Stage 3: texts to token ids, on threads of its own, ahead of the device.

use std::sync::Arc;

use forebay_engine::{EngineError, Finish, Tokenizer};
use forebay_fabric::intake::Ended;
use forebay_schemas::{EmbedParams, ErrorCode, JobError, Lane, Usage, Work};
use metrics::counter;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    job::{Admitted, InFlight},
    lanes::{LaneReceiver, LaneSender},
};

/// A job as token ids.
#[derive(Debug)]
pub struct Tokenized {
    /// The job.
    pub job: Arc<InFlight>,
    /// The lane it came by.
    pub lane: Lane,
    /// Each input's token ids, special tokens included.
    pub inputs: Vec<Vec<u32>>,
}

/// The stage.
pub struct Tokenize {
    /// The model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Values in one of the model's vectors.
    pub dim: usize,
    /// How many jobs are tokenised at once.
    pub threads: usize,
    /// Where tokenised jobs go.
    pub jobs: LaneSender<Tokenized>,
    /// Where jobs that can't be tokenised go.
    pub ended: mpsc::Sender<Ended>,
}

impl Tokenize {
    /// Runs until its input ends and all that it took is passed on.
    pub async fn run(self, mut admitted: LaneReceiver<Admitted>) {
        let this = Arc::new(self);
        let threads = Arc::new(Semaphore::new(this.threads));
        while let Some(job) = admitted.recv().await {
            // The semaphore is never closed.
            let Ok(thread) = threads.clone().acquire_owned().await else { return };
            let this = this.clone();
            tokio::spawn(async move {
                let stage = this.clone();
                let tokenized = tokio::task::spawn_blocking(move || stage.tokenize(job)).await;
                match tokenized {
                    Ok(Ok(job)) => drop(this.jobs.send(job.lane, job).await),
                    Ok(Err(ended)) => drop(this.ended.send(ended).await),
                    // The job was lost in the panic; its delivery goes back to the queue.
                    Err(panic) => tracing::error!(%panic, "tokenising panicked"),
                }
                drop(thread);
            });
        }
        // The threads end before the stage does.
        let _ = threads.acquire_many(this.threads as u32).await;
    }

    fn tokenize(&self, mut admitted: Admitted) -> Result<Tokenized, Ended> {
        let Work::Embed { input, params } = &mut admitted.job.work else {
            // Admission lets only tasks of the model through, and encoders embed.
            let error = JobError::new(ErrorCode::TaskNotSupported, "this model embeds");
            return Err(Ended::failed(&admitted.job, admitted.ticket, error));
        };
        // From here on only the tokens are needed.
        let (texts, params) = (std::mem::take(input), params.clone());
        match self.encode(&texts, &params) {
            Ok((inputs, usage)) => {
                counter!("forebay_tokenize_tokens_total").increment(usage.input_tokens);
                let lane = admitted.lane;
                let finish = Finish {
                    normalize: params.normalize,
                    dimensions: params.dimensions.map(|dimensions| dimensions as usize),
                };
                let job = Arc::new(InFlight::new(admitted, inputs.len(), usage, finish));
                Ok(Tokenized { job, lane, inputs })
            }
            Err(error) => Err(Ended::failed(&admitted.job, admitted.ticket, error)),
        }
    }

    fn encode(
        &self,
        texts: &[String],
        params: &EmbedParams,
    ) -> Result<(Vec<Vec<u32>>, Usage), JobError> {
        if let Some(dimensions) = params.dimensions.filter(|&d| d as usize > self.dim) {
            let message = format!("`dimensions` is {dimensions}, the model has {}", self.dim);
            return Err(JobError::invalid(message));
        }
        let mut usage = Usage::default();
        let mut inputs = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let tokens = if params.truncate {
                self.tokenizer.encode(text)
            } else {
                self.tokenizer.encode_untruncated(text)
            };
            let tokens = tokens.map_err(|error| not_tokenized(&error).at(index))?;
            usage.input_tokens += tokens.ids.len() as u64;
            usage.truncated += u64::from(tokens.truncated);
            inputs.push(tokens.ids);
        }
        Ok((inputs, usage))
    }
}

fn not_tokenized(error: &EngineError) -> JobError {
    let code = match error {
        EngineError::InputTooLong { .. } => ErrorCode::InputTooLong,
        _ => ErrorCode::Internal,
    };
    JobError::new(code, error.to_string())
}
