//! Stage 2: which jobs are computed at all: those of this model and a task it does, in time, not cancelled,
//! not answered already, and not known to crash workers (crash attribution).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use forebay_fabric::{
    backoff::Backoff,
    clock::Clock,
    disposition::Disposition,
    store::{Asked, ResultStore},
    ticket::Ticket,
};
use forebay_schemas::{ErrorCode, Job, JobError, JobId, ModelId, Task};
use metrics::counter;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    job::{Admitted, Decoded, is_ours},
    lanes::{LaneReceiver, LaneSender},
};

/// Jobs whose cancellation is looked up in one round trip.
const LOOKUP_MAX: usize = 64;

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
    /// The store of cancel requests, records and the journals of other workers.
    pub store: Arc<dyn ResultStore>,
    /// The time that deadlines are compared with.
    pub clock: Clock,
    /// Where admitted jobs go.
    pub jobs: LaneSender<Admitted>,
    /// Where jobs go that are not computed.
    pub not_computed: mpsc::Sender<Disposition>,
}

impl Admit {
    /// Runs until its input ends.
    pub async fn run(self, mut decoded: LaneReceiver<Decoded>) {
        loop {
            let mut jobs = decoded.recv_some(LOOKUP_MAX).await;
            if jobs.is_empty() {
                return;
            }
            let answered = self.look_up_returned(&mut jobs).await;
            let ids: Vec<JobId> = jobs.iter().map(|decoded| decoded.job.id.clone()).collect();
            let cancelled = self.ask(|| self.store.cancelled(&ids)).await;
            for (decoded, cancelled) in jobs.into_iter().zip(cancelled) {
                let is_answered = answered.contains(&decoded.job.id);
                if !self.pass_on(decoded, cancelled, is_answered).await {
                    return;
                }
            }
        }
    }

    /// Looks up the jobs that were delivered or tried before. Returns those that have their answer already, and sets
    /// in the tickets of all how many crashes are attributed to them: the other workers whose journals name the job.
    async fn look_up_returned(&self, jobs: &mut [Decoded]) -> BTreeSet<JobId> {
        let was_tried =
            |decoded: &&mut Decoded| decoded.ticket.returned || decoded.ticket.failures > 0;
        let mut tried: Vec<&mut Decoded> = jobs.iter_mut().filter(was_tried).collect();
        if tried.is_empty() {
            return BTreeSet::new();
        }
        let ids: Vec<JobId> = tried.iter().map(|decoded| decoded.job.id.clone()).collect();
        let deaths = self.ask(|| self.store.deaths(&self.worker, &ids)).await;
        for (decoded, deaths) in tried.iter_mut().zip(deaths) {
            decoded.ticket.deaths = deaths;
        }
        let present = self.ask(|| self.store.present(&ids)).await;
        ids.into_iter().zip(present).filter_map(|(id, present)| present.then_some(id)).collect()
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

    async fn pass_on(&self, decoded: Decoded, cancelled: bool, answered: bool) -> bool {
        let Decoded { job, mut ticket, lane, received_at_ms } = decoded;
        if !is_ours(&ticket, "admit") {
            return self.not_computed.send(Disposition::GiveBack(ticket.acker)).await.is_ok();
        }
        if answered {
            return self.not_computed.send(Disposition::Acknowledge(ticket.acker)).await.is_ok();
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

/// Refuses a job whose attempts are used up and of which a crash was attributed to at least one: another attempt could
/// cost another worker.
fn check_attempts(ticket: &Ticket, attempts_max: u32) -> Result<(), JobError> {
    if ticket.deaths == 0 || ticket.attempts() <= attempts_max {
        return Ok(());
    }
    let message = format!(
        "its worker crashed or was cut off in {} of {} attempts; giving up",
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
mod tests {
    use super::*;
    use crate::testing;

    fn code(change: impl FnOnce(&mut Job), cancelled: bool) -> Option<ErrorCode> {
        let model: ModelId = "m".parse().unwrap();
        let mut job = Job::embed(model.clone(), vec!["x".into()]);
        job.submitted_at_ms = Some(1_000);
        job.expires_in_ms = Some(500);
        change(&mut job);
        check(&job, &model, Task::Embed, cancelled, 1_500).err().map(|error| error.code)
    }

    #[test]
    fn a_job_is_admitted_up_to_its_last_millisecond() {
        assert_eq!(code(|_| {}, false), None);
        assert_eq!(
            code(|job| job.expires_in_ms = Some(499), false),
            Some(ErrorCode::DeadlineExceeded)
        );
        assert_eq!(code(|job| job.expires_in_ms = None, false), None);
    }

    #[test]
    fn a_job_that_killed_as_many_workers_as_it_may_is_not_tried_again() {
        let code = |failures, deaths| {
            let ticket = Ticket { failures, deaths, ..testing::ticket(JobId::random()) };
            check_attempts(&ticket, 5).err().map(|error| error.code)
        };
        assert_eq!(code(0, 4), None);
        assert_eq!(code(0, 5), Some(ErrorCode::AttemptsExhausted));
        assert_eq!(code(2, 3), Some(ErrorCode::AttemptsExhausted));
        assert_eq!(code(9, 0), None, "failures alone are counted where jobs are settled");
    }

    #[test]
    fn a_job_of_another_model_or_task_or_a_cancelled_one_is_refused() {
        let other = |job: &mut Job| job.model = "other".parse().unwrap();
        assert_eq!(code(other, false), Some(ErrorCode::InvalidRequest));
        let classify = |job: &mut Job| {
            job.work = forebay_schemas::Work::Classify { input: vec!["x".into()] };
        };
        assert_eq!(code(classify, false), Some(ErrorCode::TaskNotSupported));
        assert_eq!(code(|_| {}, true), Some(ErrorCode::Cancelled));
    }
}
