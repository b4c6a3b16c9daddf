//! Stage 3: texts to token ids, on tokio's blocking threads, ahead of the device.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use forebay_engine::{EngineError, Tokenizer, Tokens};
use forebay_fabric::disposition::Disposition;
use forebay_schemas::{ErrorCode, JobError, Usage, Work};
use metrics::counter;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    job::{Admitted, Tokenized},
    lanes::{LaneReceiver, LaneSender},
};

/// Bytes of text that go to a thread together: a small job costs less than waking a thread. No more, so that an urgent
/// job that comes next waits for a millisecond and not for seconds.
const HANDFUL_BYTES: usize = 16 * 1024;

/// Tokenization of admitted jobs, on worker threads.
pub struct Tokenize {
    /// The model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Values in one of the model's vectors.
    pub dim: usize,
    /// How many threads tokenize at once.
    pub threads: usize,
    /// The most attempts at a job.
    pub attempts_max: u32,
    /// Where tokenized jobs go.
    pub jobs: LaneSender<Tokenized>,
    /// Where jobs go that can't be tokenized.
    pub not_computed: mpsc::Sender<Disposition>,
}

impl Tokenize {
    /// Runs until its input ends and all that it took is passed on.
    pub async fn run(self, mut admitted: LaneReceiver<Admitted>) {
        let this = Arc::new(self);
        let threads = Arc::new(Semaphore::new(this.threads));
        loop {
            let jobs = admitted.recv_handful(HANDFUL_BYTES, |job| bytes(&job.job.work)).await;
            if jobs.is_empty() {
                break;
            }
            // The semaphore is never closed.
            let Ok(thread) = threads.clone().acquire_owned().await else { return };
            let this = this.clone();
            tokio::spawn(async move {
                let stage = this.clone();
                let all =
                    move || jobs.into_iter().map(|job| stage.tokenize(job)).collect::<Vec<_>>();
                match tokio::task::spawn_blocking(all).await {
                    Ok(tokenized) => {
                        for job in tokenized {
                            this.pass_on(job).await;
                        }
                    }
                    // The runtime is shutting down; the delivery goes back to its queue.
                    Err(error) => tracing::debug!(%error, "not tokenized"),
                }
                drop(thread);
            });
        }
        // The threads end before the stage does.
        let _ = threads.acquire_many(this.threads as u32).await;
    }

    /// Sends a job on.
    pub async fn pass_on(&self, tokenized: Result<Tokenized, Disposition>) {
        // An error says that the next stage has ended: what it can't take goes back to its queue.
        match tokenized {
            Ok(job) => drop(self.jobs.send(job.admitted.lane, job).await),
            Err(disposition) => drop(self.not_computed.send(disposition).await),
        }
    }

    /// Tokenizes one job, on the calling thread. The texts are taken out of it.
    pub fn tokenize(&self, mut admitted: Admitted) -> Result<Tokenized, Disposition> {
        let encoded = catch_unwind(AssertUnwindSafe(|| self.encode(&mut admitted.job.work)));
        let panicked = |_| Err(JobError::new(ErrorCode::Internal, "the tokenizer panicked"));
        match encoded.unwrap_or_else(panicked) {
            Ok(inputs) => {
                let usage = Usage {
                    input_tokens: inputs.iter().map(|input| input.ids.len() as u64).sum(),
                    truncated: inputs.iter().map(|input| u64::from(input.truncated)).sum(),
                    ..Usage::default()
                };
                counter!("forebay_tokenize_tokens_total").increment(usage.input_tokens);
                Ok(Tokenized { admitted, usage, inputs })
            }
            Err(error) => {
                let Admitted { job, ticket, .. } = admitted;
                Err(Disposition::failed(&job, ticket, error, self.attempts_max))
            }
        }
    }

    /// Takes the texts out of the job: from here on only the tokens are needed.
    fn encode(&self, work: &mut Work) -> Result<Vec<Tokens>, JobError> {
        let tokenizer = &self.tokenizer;
        match work {
            Work::Embed { input, params } => {
                if let Some(dimensions) = params.dimensions.filter(|&d| d as usize > self.dim) {
                    let message =
                        format!("`dimensions` is {dimensions}, the model has {}", self.dim);
                    return Err(JobError::invalid(message));
                }
                each(&std::mem::take(input), |text| {
                    if params.truncate {
                        tokenizer.encode(text)
                    } else {
                        tokenizer.encode_untruncated(text)
                    }
                })
            }
            Work::Classify { input } => each(&std::mem::take(input), |text| tokenizer.encode(text)),
            Work::Rerank { query, documents, .. } => {
                let query = tokenizer
                    .first_of_pairs(&std::mem::take(query))
                    .map_err(|error| not_tokenized(&error))?;
                let pair = |document: &str| tokenizer.encode_pair(&query, document);
                each(&std::mem::take(documents), pair)
            }
            // Admission lets only the model's task through, and no encoder generates.
            Work::Generate { .. } => {
                Err(JobError::new(ErrorCode::TaskNotSupported, "this model does not generate"))
            }
        }
    }
}

/// Bytes of the texts that a job has to tokenize.
fn bytes(work: &Work) -> usize {
    let texts = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
    match work {
        Work::Embed { input, .. } | Work::Classify { input } => texts(input),
        Work::Rerank { query, documents, .. } => query.len() + texts(documents),
        // It is refused, whatever its prompt.
        Work::Generate { .. } => 0,
    }
}

/// Tokenizes each text; an error names its index.
fn each(
    texts: &[String],
    encode: impl Fn(&str) -> Result<Tokens, EngineError>,
) -> Result<Vec<Tokens>, JobError> {
    let encoded = texts
        .iter()
        .enumerate()
        .map(|(index, text)| encode(text).map_err(|error| not_tokenized(&error).at(index)));
    encoded.collect()
}

fn not_tokenized(error: &EngineError) -> JobError {
    let code = match error {
        EngineError::InputTooLong { .. } | EngineError::TextTooLarge { .. } => {
            ErrorCode::InputTooLong
        }
        _ => ErrorCode::Internal,
    };
    JobError::new(code, error.to_string())
}
