//! The device's stage: sequences to outputs, a step at a time, on the engine's thread.
//!
//! The schedule decides; this carries out what it decides, and asks the tasks of `checkpoint` for all that needs the
//! store. A worker that drains writes what there is of each output and gives the jobs back: another goes on with them.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use forebay_engine::Keep;
use forebay_schemas::{ErrorCode, JobError, Lane};
use metrics::counter;
use tokio::{runtime::Handle, time::Instant};

use crate::{
    encode::device_time::DeviceTime,
    generate::{
        checkpoint::{Entering, Order, Reply},
        device::{Generate, Ports, Run, called},
        measure::Measure,
        schedule::Key,
        sequence::{Open, Sequence},
    },
    job::is_ours,
    journal::Sequences,
};

/// How often running jobs are looked at: whether they are cancelled, expired, or no longer this worker's.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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
            tokens: 0,
            cached: 0,
            measure: Measure::default(),
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
        self.report();
        while !self.is_lost && (!self.input_ended || !self.jobs.is_empty()) {
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
        let page_tokens = self.stage.schedule.bounds().page_tokens;
        let waiting = sequence.waiting(key, page_tokens, self.stage.clock.now_ms());
        let tenant = sequence.job.tenant.as_deref();
        self.stage.schedule.push(sequence.lane, tenant, waiting, Instant::now());
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
            let Some(sequence) = self.jobs.get(&admission.key) else {
                self.stage.schedule.drop(Lane::Batch, None, admission.key);
                continue;
            };
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

    /// The journal has the sequence: the device may have it when its turn comes.
    fn entered(&mut self, key: Key, entry: Sequences) {
        let Some(sequence) = self.jobs.get_mut(&key) else {
            return self.stage.journal.leave(entry);
        };
        if !is_ours(&sequence.ticket, "generate") {
            self.stage.journal.leave(entry);
            return self.lose(key);
        }
        sequence.entry = Some(entry);
        self.stage.schedule.entered(key);
    }

    /// Opens a sequence: from now on the device has it.
    pub(super) fn open(&mut self, key: Key) {
        let Some(sequence) = self.jobs.get_mut(&key) else {
            return self.stage.schedule.drop(Lane::Batch, None, key);
        };
        let tokens = &sequence.tokens;
        let salt = sequence.salt;
        let generator = &mut self.stage.generator;
        match called(&self.stage.calls, || generator.open(tokens, salt)) {
            Ok(opened) => {
                sequence.open = Some(Open { id: opened.id, done: opened.cached });
                let cached = opened.cached.min(sequence.prompt_tokens);
                if sequence.figures.cached.is_none() {
                    sequence.figures.cached = Some(cached);
                    self.measure.opened(cached, sequence.prompt_tokens);
                }
                counter!("forebay_generate_cached_tokens_total").increment(opened.cached as u64);
                self.keys.insert(opened.id, key);
                self.cached += opened.cached;
                self.stage.schedule.opened(key, opened.cached);
            }
            Err(failure) => self.engine_failed(key, &failure),
        }
    }

    /// Every half second: ends what is cancelled, has expired, or is another worker's by now, and gives back what is
    /// held too long, or too much.
    fn look(&mut self) {
        if self.looked_at.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked_at = Instant::now();
        let now_ms = self.stage.clock.now_ms();
        let mut looked = Vec::new();
        let mut lost = Vec::new();
        let mut expired = Vec::new();
        let mut held = Vec::new();
        for (key, sequence) in &mut self.jobs {
            if !is_ours(&sequence.ticket, "generate") {
                lost.push(*key);
            } else if sequence.job.expires_at_ms().is_some_and(|at| at < now_ms) {
                expired.push(*key);
            } else if self.stage.held_max.is_over(sequence) {
                held.push(*key);
            } else if sequence.open.is_some() {
                looked.push((*key, sequence.job.id.clone()));
            }
        }
        for key in lost {
            self.lose(key);
        }
        for key in expired {
            let error =
                JobError::new(ErrorCode::DeadlineExceeded, "expired before its output was whole");
            self.fail(key, error, Keep::Prefix);
        }
        for key in held {
            counter!("forebay_generate_given_back_total", "why" => "held_long").increment(1);
            self.hand_back(key);
        }
        if !looked.is_empty() {
            self.order(Order::Look(looked));
        }
        self.give_back_surplus();
    }

    /// Gives back what another worker has nothing of: jobs of the batch lane that came last and have not run.
    fn give_back_surplus(&mut self) {
        let is_batch = |sequence: &Sequence| sequence.lane == Lane::Batch;
        let deliveries = self.jobs.values().filter(|sequence| is_batch(sequence)).count();
        let surplus = self.stage.holding.look(&self.stage.schedule, deliveries, Instant::now());
        if surplus == 0 {
            return;
        }
        let schedule = &self.stage.schedule;
        let waits = self.jobs.iter().filter(|(key, sequence)| {
            is_batch(sequence) && sequence.figures.computed.is_none() && !schedule.runs(**key)
        });
        let mut keys: Vec<Key> = waits.map(|(key, _)| *key).collect();
        keys.sort_unstable_by_key(|key| Reverse(*key));
        for key in keys.into_iter().take(surplus) {
            counter!("forebay_generate_given_back_total", "why" => "another_idles").increment(1);
            self.hand_back(key);
        }
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

#[cfg(test)]
mod tests;
