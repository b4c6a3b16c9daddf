//! Stage 3: texts to token ids, on threads of its own, ahead of the device.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use forebay_engine::{EngineError, Finish, Tokenizer, Tokens};
use forebay_fabric::intake::Ended;
use forebay_schemas::{ErrorCode, JobError, Lane, Usage, Work};
use metrics::counter;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    job::{Admitted, InFlight},
    lanes::{LaneReceiver, LaneSender},
};

/// Texts that go to a thread together: small jobs cost less than waking it. No more, so that an urgent job that comes next
/// waits for a millisecond and not for seconds.
const HANDFUL_BYTES: usize = 16 * 1024;

/// A job as token ids.
#[derive(Debug)]
pub struct Tokenized {
    /// The job.
    pub job: Arc<InFlight>,
    /// The lane it came by.
    pub lane: Lane,
    /// Its inputs, special tokens included.
    pub inputs: Vec<Tokens>,
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
        let encoded = catch_unwind(AssertUnwindSafe(|| self.encode(&mut admitted.job.work)));
        let panicked = |_| Err(JobError::new(ErrorCode::Internal, "the tokenizer panicked"));
        match encoded.unwrap_or_else(panicked) {
            Ok(Encoded { inputs, finish }) => {
                let usage = Usage {
                    input_tokens: inputs.iter().map(|input| input.ids.len() as u64).sum(),
                    truncated: inputs.iter().map(|input| u64::from(input.truncated)).sum(),
                    ..Usage::default()
                };
                counter!("forebay_tokenize_tokens_total").increment(usage.input_tokens);
                let lane = admitted.lane;
                let job = Arc::new(InFlight::new(admitted, inputs.len(), usage, finish));
                Ok(Tokenized { job, lane, inputs })
            }
            Err(error) => Err(Ended::failed(&admitted.job, admitted.ticket, error)),
        }
    }

    /// Takes the texts out of the job: from here on only the tokens are needed.
    fn encode(&self, work: &mut Work) -> Result<Encoded, JobError> {
        let tokenizer = &self.tokenizer;
        match work {
            Work::Embed { input, params } => {
                if let Some(dimensions) = params.dimensions.filter(|&d| d as usize > self.dim) {
                    let message =
                        format!("`dimensions` is {dimensions}, the model has {}", self.dim);
                    return Err(JobError::invalid(message));
                }
                let finish = Finish {
                    normalize: params.normalize,
                    dimensions: params.dimensions.map(|dimensions| dimensions as usize),
                };
                let inputs = each(&std::mem::take(input), |text| {
                    if params.truncate {
                        tokenizer.encode(text)
                    } else {
                        tokenizer.encode_untruncated(text)
                    }
                })?;
                Ok(Encoded { inputs, finish })
            }
            Work::Classify { input } => {
                let inputs = each(&std::mem::take(input), |text| tokenizer.encode(text))?;
                Ok(Encoded { inputs, finish: Finish::default() })
            }
            Work::Rerank { query, documents, .. } => {
                let query = tokenizer
                    .first_of_pairs(&std::mem::take(query))
                    .map_err(|error| not_tokenized(&error))?;
                let pair = |document: &str| tokenizer.encode_pair(&query, document);
                let inputs = each(&std::mem::take(documents), pair)?;
                Ok(Encoded { inputs, finish: Finish::default() })
            }
            // Admission lets only the model's task through, and no encoder generates.
            Work::Generate { .. } => {
                Err(JobError::new(ErrorCode::TaskNotSupported, "this model does not generate"))
            }
        }
    }
}

/// How much text a job has.
fn bytes(work: &Work) -> usize {
    let texts = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
    match work {
        Work::Embed { input, .. } | Work::Classify { input } => texts(input),
        Work::Rerank { query, documents, .. } => query.len() + texts(documents),
        Work::Generate { .. } => 0,
    }
}

/// A job's inputs as tokens.
struct Encoded {
    inputs: Vec<Tokens>,
    finish: Finish,
}

/// Tokenises each text; an error names which one it is.
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
        EngineError::InputTooLong { .. } => ErrorCode::InputTooLong,
        _ => ErrorCode::Internal,
    };
    JobError::new(code, error.to_string())
}
