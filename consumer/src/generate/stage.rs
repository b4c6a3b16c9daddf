//! The device's stage: sequences to outputs, a step at a time, on the engine's thread.
//!
//! The schedule decides; this carries out what it decides, and asks the tasks of `checkpoint` for all that needs the
//! store. A worker that drains writes what there is of each output and gives the jobs back: another goes on with them.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use forebay_engine::{EngineError, Generator, Keep, PickError, Picks, SequenceId, Step};
use forebay_fabric::{clock::Clock, disposition::Disposition, fail, store::TokenAppend};
use forebay_schemas::{
    ErrorCode, FinishReason, JobError,
    tokens::{TOKENS_AFTER_RESULT_TTL_S, TOKENS_TTL_S},
};
use metrics::{counter, gauge, histogram};
use tokio::{runtime::Handle, sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    encode::device_time::{self, DeviceTime},
    generate::{
        answer::Words,
        checkpoint::{Entering, Order, Reply},
        prompting::hash,
        schedule::{Key, Next, Schedule},
        sequence::{Open, Sequence},
    },
    job::is_ours,
    journal::{Sequences, SharedJournal},
    stats::Stats,
    watchdog::EngineCalls,
};

/// Tokens of output after which an entry of the token stream is due.
const STREAM_TOKENS: usize = 16;
/// The time after which one is due: what a worker that dies loses.
const STREAM_PAUSE: Duration = Duration::from_millis(250);
/// That time for a job that somebody follows.
const FOLLOWED_PAUSE: Duration = Duration::from_millis(50);
/// How often running jobs are looked at: whether they are cancelled, expired, or no longer this worker's.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Generation with one generator.
pub struct Generate {
    /// The model.
    pub generator: Box<dyn Generator>,
    /// What runs, and when.
    pub schedule: Schedule,
    /// The texts of tokens.
    pub words: Words,
    /// The journal that sequences leave when the device is done with them.
    pub journal: SharedJournal,
    /// The most attempts at a job.
    pub attempts_max: u32,
    /// The time.
    pub clock: Clock,
    /// Counts what is computed.
    pub stats: Arc<Stats>,
    /// The engine's calls, which the watchdog watches.
    pub calls: Arc<EngineCalls>,
}

/// The stage's channels.
pub struct Ports {
    /// Jobs that come.
    pub sequences: mpsc::Receiver<Box<Sequence>>,
    /// Answers to what was asked.
    pub replies: mpsc::Receiver<Reply>,
    /// What is asked of the store, and jobs that are done.
    pub orders: mpsc::Sender<Order>,
    /// Sequences that are to enter the journal.
    pub entering: mpsc::Sender<Entering>,
    /// From then on all jobs go back to their queue.
    pub drain: CancellationToken,
}

/// A running stage.
struct Run {
    stage: Generate,
    ports: Ports,
    jobs: HashMap<Key, Box<Sequence>>,
    keys: HashMap<SequenceId, Key>,
    last_key: Key,
    time: DeviceTime,
    looked_at: Instant,
    is_draining: bool,
    input_ended: bool,
    /// Whether nothing can be computed or passed on any more.
    is_lost: bool,
}

/// A thing that comes.
enum Came {
    Job(Option<Box<Sequence>>),
    Reply(Reply),
    Drain,
}

impl Generate {
    /// Runs until its input ends and all is done, or its device is lost. Blocks its thread, which needs a runtime's
    /// context.
    pub fn run(self, ports: Ports) {
        let run = Run {
            stage: self,
            ports,
            jobs: HashMap::new(),
            keys: HashMap::new(),
            last_key: 0,
            time: DeviceTime::default(),
            looked_at: Instant::now(),
            is_draining: false,
            input_ended: false,
            is_lost: false,
        };
        run.run(&Handle::current());
    }
}

impl Run {
    fn run(mut self, runtime: &Handle) {
        while !self.is_lost && !(self.input_ended && self.jobs.is_empty()) {
            self.take_all();
            self.admit();
            self.look();
            if !self.step() && !self.is_lost {
                let came = runtime.block_on(self.ports.next(self.is_draining, self.input_ended));
                self.take(came);
            }
            self.report();
        }
    }

    /// Takes all that has come.
    fn take_all(&mut self) {
        while let Ok(reply) = self.ports.replies.try_recv() {
            self.replied(reply);
        }
        while let Ok(job) = self.ports.sequences.try_recv() {
            self.push(job);
        }
        if !self.is_draining && self.ports.drain.is_cancelled() {
            self.drain();
        }
    }

    fn take(&mut self, came: Option<Came>) {
        match came {
            Some(Came::Job(Some(job))) => self.push(job),
            Some(Came::Job(None)) => self.input_ended = true,
            Some(Came::Reply(reply)) => self.replied(reply),
            Some(Came::Drain) => self.drain(),
            None => {}
        }
    }

    fn push(&mut self, sequence: Box<Sequence>) {
        if self.is_draining {
            return self.give_back(sequence);
        }
        self.last_key += 1;
        let key = self.last_key;
        let waiting = sequence.waiting(key);
        let (lane, tenant) = (sequence.lane, sequence.job.tenant.clone());
        self.stage.schedule.push(lane, tenant.as_deref(), waiting, Instant::now());
        self.jobs.insert(key, sequence);
    }

    /// Asks for the journal's entry of all that can run.
    fn admit(&mut self) {
        while !self.is_draining
            && let Some(admission) = self.stage.schedule.admit(Instant::now())
        {
            for key in admission.give_way {
                self.gave_way(key);
            }
            let Some(sequence) = self.jobs.get(&admission.key) else { continue };
            let entering = Entering {
                key: admission.key,
                id: sequence.job.id.clone(),
                alone: sequence.alone(),
            };
            if self.ports.entering.blocking_send(entering).is_err() {
                self.is_lost = true;
                return;
            }
        }
    }

    fn replied(&mut self, reply: Reply) {
        match reply {
            Reply::Entered(key, entry) => self.entered(key, entry),
            Reply::Cancelled(key) => {
                let error = JobError::new(ErrorCode::Cancelled, "cancelled by its publisher");
                self.fail(key, error, Keep::Prefix);
            }
            Reply::Ends(key, at) => {
                if let Some(sequence) = self.jobs.get_mut(&key) {
                    let streamed = sequence.streamed.map(|streamed| streamed.min(at));
                    sequence.streamed = streamed;
                }
            }
            Reply::Fenced(key) => {
                if let Some(sequence) = self.jobs.get_mut(&key) {
                    tracing::warn!(job = %sequence.job.id, "another attempt writes this job's tokens");
                    sequence.streamed = None;
                }
            }
        }
    }

    /// The journal has the sequence: the device may have it.
    fn entered(&mut self, key: Key, entry: Sequences) {
        let Some(sequence) = self.jobs.get_mut(&key) else {
            return self.stage.journal.leave(entry);
        };
        if !is_ours(&sequence.ticket, "generate") {
            self.stage.journal.leave(entry);
            return self.lose(key);
        }
        let salt = hash(sequence.job.tenant.as_deref().unwrap_or_default());
        let tokens = &sequence.tokens;
        let generator = &mut self.stage.generator;
        match called(&self.stage.calls, || generator.open(tokens, salt)) {
            Ok(opened) => {
                sequence.open = Some(Open { id: opened.id, done: opened.cached, entry });
                let cached = opened.cached.min(sequence.prompt_tokens);
                sequence.figures.cached.get_or_insert(cached);
                counter!("forebay_generate_cached_tokens_total").increment(opened.cached as u64);
                self.keys.insert(opened.id, key);
                self.stage.schedule.opened(key, opened.cached);
            }
            Err(failure) => {
                self.stage.journal.leave(entry);
                self.engine_failed(key, failure);
            }
        }
    }

    /// Every half second: ends what is cancelled, has expired, or is another worker's by now.
    fn look(&mut self) {
        if self.looked_at.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked_at = Instant::now();
        let now_ms = self.stage.clock.now_ms();
        let mut looked = Vec::new();
        let mut lost = Vec::new();
        let mut expired = Vec::new();
        for (key, sequence) in &mut self.jobs {
            if !is_ours(&sequence.ticket, "generate") {
                lost.push(*key);
            } else if sequence.job.expires_at_ms().is_some_and(|at| at < now_ms) {
                expired.push(*key);
            } else if sequence.open.is_some() {
                looked.push((*key, sequence.job.id.clone()));
            }
        }
        lost.into_iter().for_each(|key| self.lose(key));
        for key in expired {
            let error =
                JobError::new(ErrorCode::DeadlineExceeded, "expired before its output was whole");
            self.fail(key, error, Keep::Prefix);
        }
        if !looked.is_empty() {
            self.order(Order::Look(looked));
        }
    }

    /// Computes a step. `false` if there was nothing to compute.
    fn step(&mut self) -> bool {
        let rows = loop {
            match self.stage.schedule.next(self.stage.generator.room().pages_left()) {
                Next::Step(rows) => break rows,
                Next::GiveWay(key) => {
                    self.stage.schedule.give_way(key);
                    self.gave_way(key);
                }
            }
        };
        let rows = self.with_masks(rows);
        if rows.is_empty() {
            return false;
        }
        self.rows(&rows);
        true
    }

    /// Makes the masks of the rows that pick a token by a guide. Rows without their mask are left out: their jobs have
    /// failed.
    fn with_masks(&mut self, rows: Vec<(Key, usize)>) -> Vec<(Key, usize)> {
        let mut good = Vec::with_capacity(rows.len());
        for (key, tokens) in rows {
            let Some(sequence) = self.jobs.get_mut(&key) else { continue };
            match sequence.make_mask(tokens) {
                Ok(()) => good.push((key, tokens)),
                Err(error) => self.fail(key, error, Keep::Prefix),
            }
        }
        good
    }

    /// Computes rows; if that fails, in halves, until the failing sequence is alone.
    fn rows(&mut self, rows: &[(Key, usize)]) {
        let began = Instant::now();
        let result = {
            let Self { stage, jobs, .. } = self;
            let chunks = rows.iter().filter_map(|(key, tokens)| jobs.get(key)?.row(*tokens));
            let step = Step { rows: chunks.collect() };
            called(&stage.calls, || stage.generator.begin(&step)?.wait())
        };
        match result {
            Ok(picks) => self.computed(rows, picks, began),
            Err(Failure::Engine(EngineError::NoPages { .. })) if rows.len() > 1 => {
                // Pages are counted otherwise there: the youngest waits.
                if let Some((key, _)) = rows.last().copied() {
                    self.stage.schedule.give_way(key);
                    self.gave_way(key);
                }
            }
            Err(failure) if failure.is_lost() => self.lost(&failure),
            Err(failure) => {
                if let [(key, _)] = rows {
                    return self.engine_failed(*key, failure);
                }
                tracing::warn!(sequences = rows.len(), error = %failure, "a step failed; halving it");
                let (first, second) = rows.split_at(rows.len() / 2);
                self.rows(first);
                if !self.is_lost {
                    self.rows(second);
                }
            }
        }
    }

    fn computed(&mut self, rows: &[(Key, usize)], picks: Picks, began: Instant) {
        let ended = Instant::now();
        let tokens: Vec<usize> = rows.iter().map(|(_, tokens)| *tokens).collect();
        let all: usize = tokens.iter().sum();
        let busy_us = self.time.add(ended - began);
        self.stage.stats.computed(all as u64, busy_us);
        counter!("forebay_compute_tokens_total").increment(all as u64);
        counter!("forebay_compute_busy_us_total").increment(busy_us);
        counter!("forebay_generate_tokens_total").increment(picks.picked.len() as u64);
        histogram!("forebay_generate_step_ms").record((ended - began).as_secs_f64() * 1_000.0);
        histogram!("forebay_generate_step_tokens").record(all as f64);
        histogram!("forebay_generate_step_sequences").record(rows.len() as f64);
        let shares = device_time::share(busy_us, &tokens);
        for (&(key, tokens), device_us) in rows.iter().zip(shares) {
            self.stage.schedule.computed(key, tokens);
            if let Some(sequence) = self.jobs.get_mut(&key) {
                sequence.computed(tokens, device_us, (began, ended), (rows.len(), all));
            }
        }
        fail::point("after_step");
        for (id, picked) in picks.picked {
            let Some(key) = self.keys.get(&id).copied() else { continue };
            let Some(sequence) = self.jobs.get_mut(&key) else { continue };
            match sequence.picked(&picked, &self.stage.words) {
                Ok(Some(reason)) => self.finish(key, reason),
                Ok(None) => {
                    self.stage.schedule.picked(key);
                    self.stream_if_due(key, ended);
                }
                Err(error) => self.fail(key, error, Keep::Prefix),
            }
        }
        for (id, error) in picks.failed {
            if let Some(key) = self.keys.get(&id).copied() {
                let code = match error {
                    PickError::NotANumber { .. } => ErrorCode::NumericalError,
                    PickError::NothingAllowed { .. } => ErrorCode::InvalidRequest,
                };
                self.fail(key, JobError::new(code, error.to_string()), Keep::Nothing);
            }
        }
    }

    fn stream_if_due(&mut self, key: Key, now: Instant) {
        let Some(sequence) = self.jobs.get(&key) else { return };
        let pause = if sequence.is_followed() { FOLLOWED_PAUSE } else { STREAM_PAUSE };
        let Some(streamed) = sequence.streamed else { return };
        let tokens = sequence.output() - streamed;
        let is_first = streamed == 0 && sequence.is_followed();
        let is_late = now.saturating_duration_since(sequence.streamed_at) >= pause;
        if tokens >= STREAM_TOKENS || is_late || is_first {
            self.stream(key, TOKENS_TTL_S);
        }
    }

    /// Writes what the token stream does not have yet.
    fn stream(&mut self, key: Key, ttl_s: u64) {
        let Some(sequence) = self.jobs.get_mut(&key) else { return };
        if let Some(append) = sequence.append(ttl_s) {
            self.order(Order::Append(key, Box::new(append)));
        }
    }

    fn finish(&mut self, key: Key, reason: FinishReason) {
        self.stream(key, TOKENS_AFTER_RESULT_TTL_S);
        let Some(sequence) = self.jobs.remove(&key) else { return };
        self.stage.schedule.ended(key, sequence.output());
        self.close(&sequence, Keep::Prefix);
        fail::point("after_compute");
        let disposition = Disposition::Answer(Box::new(sequence.succeed(reason)));
        self.order(Order::Settle(disposition));
    }

    fn fail(&mut self, key: Key, error: JobError, keep: Keep) {
        let Some(sequence) = self.jobs.remove(&key) else { return };
        self.stage.schedule.drop(key);
        self.close(&sequence, keep);
        let disposition = sequence.fail(error, self.stage.attempts_max);
        self.order(Order::Settle(disposition));
    }

    fn engine_failed(&mut self, key: Key, failure: Failure) {
        if failure.is_lost() {
            return self.lost(&failure);
        }
        let code = match &failure {
            Failure::Engine(EngineError::Item { .. }) => ErrorCode::InvalidRequest,
            Failure::Engine(error) if error.is_out_of_memory() => ErrorCode::OutOfMemory,
            _ => ErrorCode::Internal,
        };
        self.fail(key, JobError::new(code, failure.to_string()), Keep::Nothing);
    }

    fn lost(&mut self, error: &Failure) {
        tracing::error!(%error, "this worker ends, and what it holds goes back to its queue");
        self.is_lost = true;
    }

    /// A job whose delivery is another worker's by now.
    fn lose(&mut self, key: Key) {
        let Some(sequence) = self.jobs.remove(&key) else { return };
        self.stage.schedule.drop(key);
        self.close(&sequence, Keep::Prefix);
        self.order(Order::Settle(Disposition::GiveBack(sequence.ticket.acker)));
    }

    /// The schedule let a sequence give way: its tokens are kept here, and its pages as long as there is room.
    fn gave_way(&mut self, key: Key) {
        let Some(sequence) = self.jobs.get_mut(&key) else { return };
        counter!("forebay_generate_preempted_total").increment(1);
        if let Some(open) = sequence.open.take() {
            self.keys.remove(&open.id);
            self.stage.generator.close(open.id, Keep::Prefix);
            self.stage.journal.leave(open.entry);
        }
    }

    fn close(&mut self, sequence: &Sequence, keep: Keep) {
        if let Some(open) = sequence.open {
            self.keys.remove(&open.id);
            self.stage.generator.close(open.id, keep);
            self.stage.journal.leave(open.entry);
        }
    }

    /// Writes what there is of all outputs, and gives the jobs back.
    fn drain(&mut self) {
        self.is_draining = true;
        let keys: Vec<Key> = self.jobs.keys().copied().collect();
        for key in keys {
            self.stream(key, TOKENS_TTL_S);
            if let Some(sequence) = self.jobs.remove(&key) {
                self.stage.schedule.drop(key);
                self.close(&sequence, Keep::Nothing);
                self.give_back(sequence);
            }
        }
    }

    fn give_back(&mut self, sequence: Box<Sequence>) {
        self.order(Order::Settle(Disposition::GiveBack(sequence.ticket.acker)));
    }

    fn order(&mut self, order: Order) {
        if self.ports.orders.blocking_send(order).is_err() {
            self.is_lost = true;
        }
    }

    fn report(&self) {
        let room = self.stage.generator.room();
        gauge!("forebay_generate_pages_free").set(room.pages_left() as f64);
        gauge!("forebay_generate_pages_cached").set(room.pages_cached as f64);
        let running = self.stage.schedule.running();
        gauge!("forebay_generate_running").set(running as f64);
        gauge!("forebay_generate_waiting").set(self.jobs.len().saturating_sub(running) as f64);
    }
}

impl Ports {
    /// The next thing that comes; `None` when it is time to look at running jobs again.
    async fn next(&mut self, is_draining: bool, input_ended: bool) -> Option<Came> {
        tokio::select! {
            biased;
            Some(reply) = self.replies.recv() => Some(Came::Reply(reply)),
            job = self.sequences.recv(), if !input_ended => Some(Came::Job(job)),
            () = self.drain.cancelled(), if !is_draining => Some(Came::Drain),
            () = tokio::time::sleep(LOOK_EVERY) => None,
        }
    }
}

/// Why a call of the engine failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Engine(EngineError),
    #[error("the engine panicked")]
    Panic,
}

impl Failure {
    /// Whether nothing can be computed any more.
    fn is_lost(&self) -> bool {
        matches!(self, Self::Engine(error) if error.is_device_lost())
    }
}

/// One call of the engine. The watchdog sees it, and a panic in it is an error like any other.
fn called<R>(
    calls: &EngineCalls,
    work: impl FnOnce() -> Result<R, EngineError>,
) -> Result<R, Failure> {
    calls.begin();
    let result = catch_unwind(AssertUnwindSafe(work));
    calls.end();
    match result {
        Ok(done) => done.map_err(Failure::Engine),
        Err(_) => Err(Failure::Panic),
    }
}
