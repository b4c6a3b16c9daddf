//! Stage 3: texts to token ids, on threads of its own, ahead of the device.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

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
    /// How many jobs are tokenised at once; 0 tokenises in place, for tests of whole schedules.
    pub threads: usize,
    /// Where tokenised jobs go.
    pub jobs: LaneSender<Tokenized>,
    /// Where jobs that can't be tokenised go.
    pub ended: mpsc::Sender<Ended>,
}

impl Tokenize {
    /// Runs until its input ends and all that it took is passed on.
    pub async fn run(self, mut admitted: LaneReceiver<Admitted>) {
        if self.threads == 0 {
            while let Some(job) = admitted.recv().await {
                self.pass_on(self.tokenize(job)).await;
            }
            return;
        }
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
                    Ok(tokenized) => this.pass_on(tokenized).await,
                    // The runtime is shutting down; the delivery goes back to its queue.
                    Err(error) => tracing::debug!(%error, "not tokenised"),
                }
                drop(thread);
            });
        }
        // The threads end before the stage does.
        let _ = threads.acquire_many(this.threads as u32).await;
    }

    async fn pass_on(&self, tokenized: Result<Tokenized, Ended>) {
        // An error says that the next stage has ended: what it can't take goes back to its queue.
        match tokenized {
            Ok(job) => drop(self.jobs.send(job.lane, job).await),
            Err(ended) => drop(self.ended.send(ended).await),
        }
    }

    fn tokenize(&self, mut admitted: Admitted) -> Result<Tokenized, Ended> {
        let Work::Embed { input, params } = &mut admitted.job.work else {
            // Admission lets only tasks of the model through, and encoders embed.
            let error = JobError::new(ErrorCode::TaskNotSupported, "this model embeds");
            return Err(Ended::failed(&admitted.job, admitted.ticket, error));
        };
        // From here on only the tokens are needed.
        let (texts, params) = (std::mem::take(input), params.clone());
        let encoded = catch_unwind(AssertUnwindSafe(|| self.encode(&texts, &params)));
        let panicked = |_| Err(JobError::new(ErrorCode::Internal, "the tokenizer panicked"));
        match encoded.unwrap_or_else(panicked) {
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
