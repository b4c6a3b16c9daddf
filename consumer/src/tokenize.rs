//! Stage 3: texts to token ids, on tokio's blocking threads, ahead of the device.
//!
//! A large job is cut before it is tokenized: its texts go to the threads in handfuls, so that an urgent job waits for
//! one handful and not for all of them. Each handful has room in the next stage before a thread takes it, so that a
//! lane that is full there holds no thread. Jobs that wait to be cut are those of many tenants, which go in fair order.

mod reading;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    vec,
};

use forebay_engine::Tokenizer;
use forebay_fabric::disposition::Disposition;
use forebay_schemas::{ErrorCode, JobError, JobId, Lane};
use futures_util::{StreamExt, future, stream::FuturesUnordered};
use metrics::counter;
use tokio::{sync::mpsc, time::Instant};

use self::reading::{Input, Reading, check_vectors, encode, inputs_of};
use crate::{
    fair::{Fair, Served, TURN_BYTES, Weights},
    in_flight::{InFlight, Part},
    job::Admitted,
    journal::{Sequences, SharedJournal},
    lanes::{self, LaneReceiver, LaneSender, Room},
    memory::MemoryLimit,
};

/// Bytes of text that go to a thread together: a small job costs less than waking a thread. No more, so that an urgent
/// job that comes next waits for a millisecond and not for seconds.
const HANDFUL_BYTES: usize = 16 * 1024;

/// A longer text is in the journal while it is tokenized, and is not tokenized without the memory for it. Shorter ones
/// need too little to end a process, and no round trip.
const LONG_BYTES: usize = 64 * 1024;

/// Tokenization of admitted jobs, on worker threads.
pub struct Tokenize {
    /// The model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Values in one of the model's vectors.
    pub dim: usize,
    /// The tenants' weights.
    pub weights: Weights,
    /// Token ids that the model has: those below this.
    pub vocabulary: usize,
    /// How many threads tokenize at once.
    pub threads: usize,
    /// The most attempts at a job.
    pub attempts_max: u32,
    /// How much memory this process may use.
    pub memory: MemoryLimit,
    /// The journal that long texts are in while they are tokenized.
    pub journal: SharedJournal,
    /// Where the parts go that a thread has tokenized together.
    pub parts: LaneSender<Vec<Part>>,
    /// Where jobs go that can't be tokenized.
    pub not_computed: mpsc::Sender<Disposition>,
}

impl Tokenize {
    /// Runs until its input ends and all that it took is passed on. `on_thread` calls [`Handful::tokenize`] on a thread
    /// that may block.
    pub async fn run<F: Future<Output = Vec<Disposition>>>(
        self,
        admitted: LaneReceiver<Admitted>,
        on_thread: impl Fn(Handful) -> F,
    ) {
        let admitted = admitted.into_lanes();
        // One of each lane, for the next thread that is free.
        let (cut, handfuls) = lanes::channel(1);
        future::join3(
            self.cut(Lane::Interactive, admitted.interactive, cut.clone()),
            self.cut(Lane::Batch, admitted.batch, cut),
            self.on_threads(handfuls, on_thread),
        )
        .await;
    }

    /// Cuts the jobs of one lane into handfuls, tenants in fair order by the bytes of their texts.
    async fn cut(
        &self,
        lane: Lane,
        mut jobs: mpsc::Receiver<Admitted>,
        handfuls: LaneSender<Handful>,
    ) {
        // All that is admitted: what the worker may hold bounds it, in deliveries and in bytes.
        let mut waiting = Fair::new(self.weights.clone());
        let mut is_ended = false;
        while !(is_ended && waiting.is_empty()) {
            tokio::select! {
                biased;
                job = jobs.recv(), if !is_ended => match job.map(|job| self.open(job)) {
                    Some(Ok(texts)) => {
                        let job = texts.job.clone();
                        waiting.push(job.job.tenant.as_deref(), texts, Instant::now());
                    }
                    Some(Err(refused)) => drop(self.not_computed.send(refused).await),
                    None => is_ended = true,
                },
                room = self.room(lane, &handfuls), if !waiting.is_empty() => {
                    // Without, the next stage has ended: what it can't take goes back to its queue.
                    let Some((room, thread)) = room else { return };
                    thread.send(self.handful(&mut waiting, room));
                }
            }
        }
    }

    /// Waits for room in the next stage and at a thread. `None` when either has ended.
    async fn room(
        &self,
        lane: Lane,
        handfuls: &LaneSender<Handful>,
    ) -> Option<(Room<Vec<Part>>, Room<Handful>)> {
        Some((self.parts.reserve(lane).await?, handfuls.reserve(lane).await?))
    }

    /// The next texts that go to a thread together.
    fn handful(&self, waiting: &mut Fair<Texts>, room: Room<Vec<Part>>) -> Handful {
        let now = Instant::now();
        let mut texts = Vec::new();
        let mut bytes = 0;
        while bytes < HANDFUL_BYTES {
            let turn = if waiting.is_shared() { TURN_BYTES } else { HANDFUL_BYTES };
            let is_served = waiting.turn(now, |rest| {
                let next = rest.take(turn.min(HANDFUL_BYTES - bytes));
                let cost = next.bytes();
                bytes += cost;
                texts.push(next);
                Some(Served { cost, is_done: rest.inputs.len() == 0 })
            });
            if !is_served {
                break;
            }
        }
        Handful {
            tokenizer: self.tokenizer.clone(),
            dim: self.dim,
            attempts_max: self.attempts_max,
            memory: self.memory,
            texts,
            room,
        }
    }

    /// Gives handfuls to the threads, the lanes by their turns.
    async fn on_threads<F: Future<Output = Vec<Disposition>>>(
        &self,
        mut handfuls: LaneReceiver<Handful>,
        on_thread: impl Fn(Handful) -> F,
    ) {
        let mut running = FuturesUnordered::new();
        let mut ended = false;
        loop {
            tokio::select! {
                biased;
                Some(not_computed) = running.next() => for disposition in not_computed {
                    drop(self.not_computed.send(disposition).await);
                },
                handful = handfuls.recv(), if !ended && running.len() < self.threads => {
                    match handful {
                        Some(handful) => running.push(self.journaled(handful, &on_thread)),
                        None => ended = true,
                    }
                }
                else => return,
            }
        }
    }

    /// Tokenizes a handful. A long text is in the journal meanwhile.
    async fn journaled<F: Future<Output = Vec<Disposition>>>(
        &self,
        handful: Handful,
        on_thread: impl Fn(Handful) -> F,
    ) -> Vec<Disposition> {
        let entry = match handful.long() {
            None => Some(Sequences::default()),
            Some((id, alone)) => self.journal.enter([(&id, 0..1)].into_iter(), alone).await,
        };
        // Without an entry the worker ends: its jobs go back to their queue.
        let Some(entry) = entry else { return Vec::new() };
        let ended = on_thread(handful).await;
        self.journal.leave(entry);
        ended
    }

    /// Takes the texts out of a job: from here on only the tokens are needed.
    fn open(&self, mut admitted: Admitted) -> Result<Texts, Disposition> {
        match inputs_of(&mut admitted.job.work, self.dim, self.vocabulary) {
            Ok((reading, inputs)) => {
                let job = Arc::new(InFlight::new(admitted, inputs.len()));
                Ok(Texts { job, reading, first: 0, inputs: inputs.into_iter() })
            }
            Err(error) => {
                let Admitted { job, ticket, .. } = admitted;
                Err(Disposition::failed(&job, ticket, error, self.attempts_max))
            }
        }
    }
}

/// Consecutive texts of a job that are not tokenized yet.
struct Texts {
    job: Arc<InFlight>,
    reading: Reading,
    /// The index of the first one in the job.
    first: usize,
    inputs: vec::IntoIter<Input>,
}

impl Texts {
    /// Takes those of the first `bytes`, but at least one, out of these.
    fn take(&mut self, bytes: usize) -> Self {
        let mut all = 0;
        let fitting = self.inputs.as_slice().iter().take_while(|text| {
            let fits = all == 0 || all + text.weight() <= bytes;
            all += text.weight();
            fits
        });
        let count = fitting.count();
        let inputs = if count == self.inputs.len() {
            std::mem::take(&mut self.inputs)
        } else {
            self.inputs.by_ref().take(count).collect::<Vec<_>>().into_iter()
        };
        let first = self.first;
        self.first += count;
        Self { job: self.job.clone(), reading: self.reading.clone(), first, inputs }
    }

    fn bytes(&self) -> usize {
        self.inputs.as_slice().iter().map(Input::weight).sum()
    }

    /// Bytes of the longest text, the first one of pairs included.
    fn longest(&self) -> usize {
        let texts = self.inputs.as_slice().iter().map(Input::text_bytes).max().unwrap_or(0);
        match &self.reading {
            Reading::Pairs(query) => texts.max(query.text.len()),
            Reading::Cut | Reading::Whole => texts,
        }
    }

    /// Refuses a long text that there is no memory to tokenize.
    fn check_memory(&self, memory: MemoryLimit) -> Result<(), JobError> {
        let bytes = self.longest();
        if bytes <= LONG_BYTES {
            return Ok(());
        }
        let needed = Tokenizer::bytes_needed(bytes);
        memory.check_bytes(needed as u64).map_err(|left| {
            let message = format!(
                "a text of {bytes} bytes needs up to {needed} bytes of memory to be tokenized, and {left} are left: \
                 send shorter texts, or give the worker more memory"
            );
            JobError::new(ErrorCode::OutOfMemory, message)
        })
    }

    /// Tokenizes them on the calling thread. `Err` with the job if it has failed, with one of these or before.
    fn tokenize(
        self,
        tokenizer: &Tokenizer,
        dim: usize,
        memory: MemoryLimit,
    ) -> Result<Part, Arc<InFlight>> {
        if !self.job.is_wanted() {
            return Err(self.job);
        }
        let room = self.check_memory(memory);
        let Self { job, reading, first, inputs } = self;
        if let Err(error) = room {
            job.progress().fail(error);
            return Err(job);
        }
        let tokenizer = tokenizer.of(job.input_type);
        let encode = || encode(tokenizer, &reading, first, inputs);
        let panicked = |_| Err(JobError::new(ErrorCode::Internal, "the tokenizer panicked"));
        let encoded = catch_unwind(AssertUnwindSafe(encode)).unwrap_or_else(panicked);
        let mut progress = job.progress();
        match encoded {
            Ok(inputs) => {
                let tokens = inputs.iter().map(|input| input.ids.len() as u64).sum();
                progress.usage.input_tokens += tokens;
                if let Err(error) = check_vectors(&job, progress.usage.input_tokens, dim) {
                    progress.fail(error);
                    drop(progress);
                    return Err(job);
                }
                progress.usage.truncated +=
                    inputs.iter().filter(|input| input.truncated).count() as u64;
                if job.span().is_some() {
                    let now = Instant::now();
                    let first = progress.tokenized.map_or(now, |(first, _)| first);
                    progress.tokenized = Some((first, now));
                }
                drop(progress);
                counter!("forebay_tokenize_tokens_total").increment(tokens);
                Ok(Part { job, first, inputs })
            }
            Err(error) => {
                progress.fail(error);
                drop(progress);
                Err(job)
            }
        }
    }
}

/// Texts of one lane that go to a thread together.
pub struct Handful {
    tokenizer: Arc<Tokenizer>,
    dim: usize,
    attempts_max: u32,
    memory: MemoryLimit,
    texts: Vec<Texts>,
    room: Room<Vec<Part>>,
}

impl Handful {
    /// Bytes of the texts.
    pub fn bytes(&self) -> usize {
        self.texts.iter().map(Texts::bytes).sum()
    }

    /// The job of a long text among these, of which there is at most one, and whether it must be alone.
    fn long(&self) -> Option<(JobId, bool)> {
        let long = self.texts.iter().find(|texts| texts.longest() > LONG_BYTES)?;
        // No reference to the job: the last one to let go owns it.
        Some((long.job.job.id.clone(), long.job.alone))
    }

    /// Tokenizes the texts on the calling thread and passes the parts on. Returns the jobs that ended here.
    pub fn tokenize(self) -> Vec<Disposition> {
        let Self { tokenizer, dim, attempts_max, memory, texts, room } = self;
        let mut parts = Vec::with_capacity(texts.len());
        let mut ended = Vec::new();
        for texts in texts {
            match texts.tokenize(&tokenizer, dim, memory) {
                Ok(part) => parts.push(part),
                Err(job) => ended.extend(job.let_go(attempts_max)),
            }
        }
        if !parts.is_empty() {
            room.send(parts);
        }
        ended
    }
}

#[cfg(test)]
mod tests;
