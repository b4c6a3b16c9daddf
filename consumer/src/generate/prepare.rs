//! The stage before the device: admitted jobs to sequences of tokens, on threads. A job that was tried before takes up
//! what the earlier attempt has written.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use forebay_engine::Tokenizer;
use forebay_fabric::{
    backoff::Backoff, clock::Clock, disposition::Disposition, store::ResultStore,
};
use forebay_schemas::{ErrorCode, JobError, TokenChunk};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use metrics::counter;
use tokio::sync::mpsc;

use crate::{
    generate::{
        prompting::{Prepared, Prompting},
        sequence::Sequence,
    },
    job::{Admitted, is_ours},
    journal::{Sequences, SharedJournal},
    lanes::LaneReceiver,
    memory::MemoryLimit,
};

/// A longer prompt is in the journal while it is tokenized, and is not tokenized without the memory for it, as a text
/// of an encoder's job.
const LONG_BYTES: usize = 64 * 1024;

/// Numbers the attempts of this process.
static ATTEMPTS: AtomicU64 = AtomicU64::new(0);

/// Preparation of admitted jobs.
pub struct Prepare {
    /// The parts of the model.
    pub prompting: Arc<Prompting>,
    /// How many threads prepare at once.
    pub threads: usize,
    /// This worker's id.
    pub worker: String,
    /// The most attempts at a job.
    pub attempts_max: u32,
    /// How much memory this process may use.
    pub memory: MemoryLimit,
    /// The time.
    pub clock: Clock,
    /// The journal that long prompts are in meanwhile.
    pub journal: SharedJournal,
    /// The store of token streams.
    pub store: Arc<dyn ResultStore>,
    /// Where sequences go.
    pub sequences: mpsc::Sender<Box<Sequence>>,
    /// Where jobs go that are not to run.
    pub not_computed: mpsc::Sender<Disposition>,
}

impl Prepare {
    /// Runs until its input ends and all that it took is passed on.
    pub async fn run(self, mut admitted: LaneReceiver<Admitted>) {
        let mut preparing: FuturesUnordered<BoxFuture<'_, bool>> = FuturesUnordered::new();
        let mut is_ended = false;
        loop {
            tokio::select! {
                biased;
                Some(passed_on) = preparing.next() => if !passed_on {
                    return;
                },
                job = admitted.recv(), if !is_ended && preparing.len() < self.threads.max(1) => {
                    match job {
                        Some(job) => preparing.push(self.job(job).boxed()),
                        None => is_ended = true,
                    }
                }
                else => return,
            }
        }
    }

    /// Prepares a job and passes it on. `false` if the stages after this one have ended.
    async fn job(&self, admitted: Admitted) -> bool {
        if !is_ours(&admitted.ticket, "prepare") {
            let give_back = Disposition::GiveBack(admitted.ticket.acker);
            return self.not_computed.send(give_back).await.is_ok();
        }
        let bytes: usize = admitted.job.work.texts().iter().map(|text| text.len()).sum();
        if let Err(error) = self.check_memory(bytes) {
            return self.failed(admitted, error).await;
        }
        let owner = format!("{}/{}", self.worker, ATTEMPTS.fetch_add(1, Relaxed));
        let ticket = &admitted.ticket;
        let was_tried = ticket.returned || ticket.failures > 0 || ticket.deaths > 0;
        let written = if was_tried { self.claim(&admitted, &owner).await } else { Vec::new() };
        let entry = if bytes > LONG_BYTES {
            let run = [(&admitted.job.id, 0..1)];
            self.journal.enter(run.into_iter(), admitted.ticket.deaths > 0).await
        } else {
            Some(Sequences::default())
        };
        // Without an entry the worker ends: its jobs go back to their queue.
        let Some(entry) = entry else { return false };
        let prompting = self.prompting.clone();
        let now_ms = self.clock.now_ms();
        let prepared = tokio::task::spawn_blocking(move || {
            let prepare = || prompting.prepare(admitted, owner, written, now_ms);
            catch_unwind(AssertUnwindSafe(prepare))
        });
        // An error says that the runtime is shutting down, or that a library panicked: the job's delivery went with its
        // memory, and goes back to its queue.
        let prepared = prepared.await;
        self.journal.leave(entry);
        match prepared {
            Ok(Ok(prepared)) => self.pass_on(prepared).await,
            Ok(Err(_)) => {
                tracing::error!("preparing a prompt panicked; its job goes back to its queue");
                true
            }
            Err(_) => false,
        }
    }

    async fn pass_on(&self, prepared: Prepared) -> bool {
        match prepared {
            Prepared::Sequence(prepared) => {
                let (sequence, ended) = *prepared;
                counter!("forebay_tokenize_tokens_total").increment(sequence.prompt_tokens as u64);
                counter!("forebay_generate_resumed_tokens_total")
                    .increment(sequence.output() as u64);
                if let Some(reason) = ended {
                    // The worker that wrote its last token died before it wrote the result.
                    let disposition = Disposition::Answer(Box::new(sequence.succeed(reason)));
                    return self.not_computed.send(disposition).await.is_ok();
                }
                self.sequences.send(Box::new(sequence)).await.is_ok()
            }
            Prepared::Failed(failed) => {
                let (admitted, error) = *failed;
                self.failed(admitted, error).await
            }
            Prepared::Broken(broken) => {
                let (sequence, error) = *broken;
                let disposition = sequence.fail(error, self.attempts_max);
                self.not_computed.send(disposition).await.is_ok()
            }
        }
    }

    async fn failed(&self, admitted: Admitted, error: JobError) -> bool {
        let Admitted { job, ticket, .. } = admitted;
        let disposition = Disposition::failed(&job, ticket, error, self.attempts_max);
        self.not_computed.send(disposition).await.is_ok()
    }

    /// Refuses a long prompt that there is no memory to tokenize.
    fn check_memory(&self, bytes: usize) -> Result<(), JobError> {
        if bytes <= LONG_BYTES {
            return Ok(());
        }
        let needed = Tokenizer::bytes_needed(bytes);
        self.memory.check_bytes(needed as u64).map_err(|left| {
            let message = format!(
                "a prompt of {bytes} bytes needs up to {needed} bytes of memory to be tokenized, and {left} are left: \
                 send a shorter one, or give the worker more memory"
            );
            JobError::new(ErrorCode::OutOfMemory, message)
        })
    }

    /// The output that an earlier attempt has written; from now on it writes no more.
    async fn claim(&self, admitted: &Admitted, owner: &str) -> Vec<TokenChunk> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            match self.store.claim_tokens(&admitted.job.id, owner).await {
                Ok(chunks) => return chunks,
                Err(forebay_fabric::store::StoreError::Tokens(error)) => {
                    // Of another version: its tokens are computed again.
                    tracing::warn!(%error, "the tokens of an earlier attempt can't be read");
                    return Vec::new();
                }
                Err(error) => {
                    tracing::warn!(%error, "can't look an earlier attempt up; waiting for the store");
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }
}
