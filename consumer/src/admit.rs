//! Stage 2: which jobs are computed at all: those of this model and a task it does, in time, not cancelled,
//! not answered already, and not known to crash workers (crash attribution).
//!
//! A job that came back while a worker has it on its device (its own link was lost, say, or the broker's patience was
//! over) is parked: kept aside until it is answered, or no worker that lives has it in its journal. Until then it is
//! neither computed a second time nor given up.

use std::{sync::Arc, time::Duration};

use forebay_fabric::{
    backoff::Backoff,
    clock::Clock,
    disposition::Disposition,
    store::{Asked, ResultStore, Standing},
    ticket::Ticket,
};
use forebay_schemas::{
    ErrorCode, Job, JobError, JobId, ModelId, Task, limits::SUBMITTED_AHEAD_MS_MAX,
};
use metrics::counter;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    job::{Admitted, Decoded, is_ours},
    lanes::{LaneReceiver, LaneSender, Lanes},
};

/// Jobs whose cancellation is looked up in one round trip.
const LOOKUP_MAX: usize = 64;
/// How long parked jobs wait until they are looked up again.
const PARKED: Duration = Duration::from_millis(500);

/// Admission of the jobs of both lanes.
pub struct Admit {
    /// The model that this worker runs.
    pub model: ModelId,
    /// The task that the model does.
    pub task: Task,
    /// This worker's id.
    pub worker: String,
    /// The most attempts at a job.
    pub attempts_max: u32,
    /// The store of cancel requests, records and the journals of all workers.
    pub store: Arc<dyn ResultStore>,
    /// The time that deadlines are compared with.
    pub clock: Clock,
    /// Where admitted jobs go.
    pub jobs: LaneSender<Admitted>,
    /// Where jobs go that are not computed.
    pub not_computed: mpsc::Sender<Disposition>,
}

impl Admit {
    /// Runs until its input ends. Jobs that are parked by then are given back to their queue.
    pub async fn run(self, mut decoded: LaneReceiver<Decoded>) {
        // No more than the deliveries that this worker may hold, in number and in bytes: each keeps its share of the
        // window. Those that are no longer this worker's, and would be joined by their next delivery, leave it.
        let mut parked: Vec<Decoded> = Vec::new();
        let mut look_at = Instant::now();
        loop {
            metrics::gauge!("forebay_admit_parked_jobs").set(parked.len() as f64);
            // Both waits are cancel-safe.
            let jobs = tokio::select! {
                biased;
                () = tokio::time::sleep_until(look_at), if !parked.is_empty() => {
                    look_at = Instant::now() + PARKED;
                    if !self.give_back(parked.extract_if(.., is_lost).collect()).await {
                        return;
                    }
                    self.with_room(&mut parked)
                }
                jobs = decoded.recv_some_for(&self.jobs, LOOKUP_MAX) => {
                    if jobs.is_empty() {
                        self.give_back(parked).await;
                        return;
                    }
                    jobs
                }
            };
            if parked.is_empty() {
                look_at = Instant::now() + PARKED;
            }
            if !self.decide(jobs, &mut parked).await {
                return;
            }
        }
    }

    /// Gives jobs back to their queue. `false` if the stages after this one have ended.
    async fn give_back(&self, jobs: Vec<Decoded>) -> bool {
        for decoded in jobs {
            let give_back = Disposition::GiveBack(decoded.ticket.acker);
            if self.not_computed.send(give_back).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Takes out of the parked jobs as many as the next stage has room for, so that none waits for room there.
    fn with_room(&self, parked: &mut Vec<Decoded>) -> Vec<Decoded> {
        let mut room = Lanes::each(|lane| self.jobs.room(lane));
        let fits = |decoded: &mut Decoded| {
            let left = room.of_mut(decoded.lane);
            let fits = *left > 0;
            *left = left.saturating_sub(1);
            fits
        };
        parked.extract_if(.., fits).collect()
    }

    /// Passes jobs on, or parks them. `false` if the stages after this one have ended.
    async fn decide(&self, jobs: Vec<Decoded>, parked: &mut Vec<Decoded>) -> bool {
        let standings = self.standings(&jobs).await;
        let mut free = Vec::with_capacity(jobs.len());
        for (mut decoded, standing) in jobs.into_iter().zip(standings) {
            match standing {
                Standing::Answered => {
                    let acknowledge = Disposition::Acknowledge(decoded.ticket.acker);
                    if self.not_computed.send(acknowledge).await.is_err() {
                        return false;
                    }
                }
                Standing::Held => parked.push(decoded),
                Standing::Free { deaths } => {
                    decoded.ticket.deaths = deaths;
                    free.push(decoded);
                }
            }
        }
        if free.is_empty() {
            return true;
        }
        let ids: Vec<JobId> = free.iter().map(|decoded| decoded.job.id.clone()).collect();
        let cancelled = self.ask(|| self.store.cancelled(&ids)).await;
        for (decoded, cancelled) in free.into_iter().zip(cancelled) {
            if !self.pass_on(decoded, cancelled).await {
                return false;
            }
        }
        true
    }

    /// The standing of each job. Only one that was delivered or tried before has to be looked up.
    async fn standings(&self, jobs: &[Decoded]) -> Vec<Standing> {
        let was_tried = |decoded: &&Decoded| decoded.ticket.returned || decoded.ticket.failures > 0;
        let tried = jobs.iter().filter(was_tried);
        let ids: Vec<JobId> = tried.map(|decoded| decoded.job.id.clone()).collect();
        let mut found = Vec::new();
        if !ids.is_empty() {
            found = self.ask(|| self.store.standings(&self.worker, &ids)).await;
        }
        let mut found = found.into_iter();
        let standing = |decoded| was_tried(&decoded).then(|| found.next()).flatten();
        jobs.iter().map(standing).map(|one| one.unwrap_or(Standing::Free { deaths: 0 })).collect()
    }

    /// Asks the store until it answers: without it no result could be written either.
    async fn ask<'a, T>(&self, request: impl Fn() -> Asked<'a, T>) -> T {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            match request().await {
                Ok(answer) => return answer,
                Err(error) => {
                    tracing::warn!(%error, "can't look jobs up; waiting for the store");
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    async fn pass_on(&self, decoded: Decoded, cancelled: bool) -> bool {
        let Decoded { job, mut ticket, lane, received_at_ms } = decoded;
        if !is_ours(&ticket, "admit") {
            return self.not_computed.send(Disposition::GiveBack(ticket.acker)).await.is_ok();
        }
        let now_ms = self.clock.now_ms();
        let checked = check(&job, &self.model, self.task, cancelled, now_ms)
            .and_then(|()| check_attempts(&ticket, self.attempts_max));
        if let Err(error) = checked {
            if error.code == ErrorCode::AttemptsExhausted {
                // The last crash ended the last attempt: this delivery is not an attempt.
                ticket.deaths -= 1;
            }
            counter!("forebay_admit_refused_total", "code" => error.code.as_str()).increment(1);
            let disposition = Disposition::failed(&job, ticket, error, self.attempts_max);
            return self.not_computed.send(disposition).await.is_ok();
        }
        counter!("forebay_admit_jobs_total", "lane" => lane.as_str()).increment(1);
        let since_ms = job.submitted_at_ms.unwrap_or(received_at_ms);
        let queued_ms = now_ms.saturating_sub(since_ms);
        metrics::histogram!("forebay_admit_queued_ms", "lane" => lane.as_str())
            .record(queued_ms as f64);
        let admitted = Admitted { job, ticket, lane, queued_ms, at: Instant::now() };
        self.jobs.send(lane, admitted).await.is_ok()
    }
}

/// Whether a parked job is no longer this worker's: its message is in its queue again, or with another.
fn is_lost(parked: &mut Decoded) -> bool {
    !is_ours(&parked.ticket, "admit")
}

/// Refuses a job whose attempts are used up and of which a crash was attributed to at least one: another attempt could
/// cost another worker.
fn check_attempts(ticket: &Ticket, attempts_max: u32) -> Result<(), JobError> {
    if ticket.deaths == 0 || ticket.attempts() <= attempts_max {
        return Ok(());
    }
    let message = format!(
        "its worker died in {} of {} attempts; giving up",
        ticket.deaths,
        ticket.attempts() - 1
    );
    Err(JobError::new(ErrorCode::AttemptsExhausted, message))
}

/// Refuses a job of another model or task, one that was cancelled, and one that has expired.
fn check(
    job: &Job,
    model: &ModelId,
    supported: Task,
    cancelled: bool,
    now_ms: u64,
) -> Result<(), JobError> {
    if job.model != *model {
        return Err(JobError::invalid(format!(
            "the job names model `{}` but was sent to the queue of `{model}`: use the routing key `{}`",
            job.model, job.model
        )));
    }
    let task = job.work.task();
    if task != supported {
        return Err(JobError::new(
            ErrorCode::TaskNotSupported,
            format!("model `{model}` does not do `{task}`; it does: {supported}"),
        ));
    }
    if cancelled {
        return Err(JobError::new(ErrorCode::Cancelled, "cancelled before it was computed"));
    }
    // A deadline that counts from a time that never comes would never come either.
    if let Some(ms) =
        job.submitted_at_ms.filter(|&ms| ms > now_ms.saturating_add(SUBMITTED_AHEAD_MS_MAX))
    {
        return Err(JobError::invalid(format!(
            "`submitted_at_ms` is {ms}, {} hours ahead of this worker's clock: send the Unix time in milliseconds",
            (ms - now_ms) / 3_600_000
        )));
    }
    if let Some(late_ms) =
        job.expires_at_ms().and_then(|at| now_ms.checked_sub(at)).filter(|&late| late > 0)
    {
        return Err(JobError::new(
            ErrorCode::DeadlineExceeded,
            format!("expired {late_ms} ms before a worker could take it"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
