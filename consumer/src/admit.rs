//! Stage 2: which jobs are done at all: those of this model and a task it does, in time, not taken
//! back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use forebay_fabric::{Store, backoff::Backoff, clock, intake::Ended};
use forebay_schemas::{ErrorCode, Job, JobError, JobId, ModelId, Task};
use metrics::counter;
use tokio::sync::mpsc;

use crate::{
    job::{Admitted, Decoded},
    lanes::{LaneReceiver, LaneSender},
};

/// Jobs whose cancellation is looked up in one round trip.
const LOOKUP_MAX: usize = 64;

/// The stage.
pub struct Admit {
    /// The model that this worker runs.
    pub model: ModelId,
    /// The tasks that the model does.
    pub tasks: Vec<Task>,
    /// Where cancel requests lie.
    pub store: Arc<Store>,
    /// Where admitted jobs go.
    pub jobs: LaneSender<Admitted>,
    /// Where the rest goes.
    pub ended: mpsc::Sender<Ended>,
}

impl Admit {
    /// Runs until its input ends.
    pub async fn run(self, mut decoded: LaneReceiver<Decoded>) {
        loop {
            let jobs = decoded.recv_some(LOOKUP_MAX).await;
            if jobs.is_empty() {
                return;
            }
            let cancelled = self.cancelled(&jobs).await;
            for (decoded, cancelled) in jobs.into_iter().zip(cancelled) {
                if !self.pass_on(decoded, cancelled).await {
                    return;
                }
            }
        }
    }

    /// Without a store no result could be written either: this waits until it is back.
    async fn cancelled(&self, jobs: &[Decoded]) -> Vec<bool> {
        let ids: Vec<JobId> = jobs.iter().map(|decoded| decoded.job.id.clone()).collect();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            match self.store.cancelled(&ids).await {
                Ok(cancelled) => return cancelled,
                Err(error) => {
                    tracing::warn!(%error, "can't look for cancel requests; waiting for the store");
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    async fn pass_on(&self, decoded: Decoded, cancelled: bool) -> bool {
        let Decoded { job, ticket, lane, received_at_ms } = decoded;
        let now_ms = clock::now_ms();
        if let Err(error) = check(&job, &self.model, &self.tasks, cancelled, now_ms) {
            counter!("forebay_admit_refused_total", "code" => error.code.as_str()).increment(1);
            return self.ended.send(Ended::failed(&job, ticket, error)).await.is_ok();
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

fn check(
    job: &Job,
    model: &ModelId,
    tasks: &[Task],
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
    if !tasks.contains(&task) {
        let known: Vec<&str> = tasks.iter().map(|task| task.as_str()).collect();
        return Err(JobError::new(
            ErrorCode::TaskNotSupported,
            format!("model `{model}` does not do `{task}`; it does: {}", known.join(", ")),
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

    fn code(change: impl FnOnce(&mut Job), cancelled: bool) -> Option<ErrorCode> {
        let model: ModelId = "m".parse().unwrap();
        let mut job = Job::embed(model.clone(), vec!["x".into()]);
        job.submitted_at_ms = Some(1_000);
        job.expires_in_ms = Some(500);
        change(&mut job);
        check(&job, &model, &[Task::Embed], cancelled, 1_500).err().map(|error| error.code)
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
    fn a_job_of_another_model_or_task_or_taken_back_is_refused() {
        let other = |job: &mut Job| job.model = "other".parse().unwrap();
        assert_eq!(code(other, false), Some(ErrorCode::InvalidRequest));
        let classify = |job: &mut Job| {
            job.work = forebay_schemas::Work::Classify { input: vec!["x".into()] };
        };
        assert_eq!(code(classify, false), Some(ErrorCode::TaskNotSupported));
        assert_eq!(code(|_| {}, true), Some(ErrorCode::Cancelled));
    }
}
