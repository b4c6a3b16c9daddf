//! Jobs that the broker gave up, until it is known that no worker has them.
//!
//! A worker whose link breaks goes on computing, while the broker delivers its messages again. Where that happens until
//! a message reaches its delivery limit, its job is a dead letter in the hands of a worker that lives: that worker's
//! answer is the right one, and the first record stands. So a dead letter is answered once no worker that lives has its
//! job in its journal.

use std::time::Duration;

use forebay_fabric::{
    disposition::Disposition,
    store::{ResultStore, Standing},
    ticket::Ticket,
};
use forebay_schemas::{Job, JobError, JobId};
use tokio::time::Instant;

/// How long each waits for its first look, and between two: a worker that lost its link just now may be about to enter
/// the job into its journal.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a message is held: a third of RabbitMQ's consumer time-out of half an hour. Then it goes back to its queue,
/// comes again, and waits on.
const HOLD_MAX: Duration = Duration::from_secs(10 * 60);

/// A dead letter that is answered with `error` if no worker has its job.
pub struct Waiting {
    /// The job.
    pub job: Job,
    /// The right to answer it.
    pub ticket: Ticket,
    /// Its answer.
    pub error: JobError,
}

/// The dead letters that wait: no more than the window of their subscription.
pub struct GivenUp {
    waiting: Vec<(Instant, Waiting)>,
    look_at: Instant,
}

impl Default for GivenUp {
    fn default() -> Self {
        Self { waiting: Vec::new(), look_at: Instant::now() }
    }
}

impl GivenUp {
    /// Takes one in.
    pub fn push(&mut self, waiting: Waiting) {
        let now = Instant::now();
        if self.waiting.is_empty() {
            self.look_at = now + LOOK_EVERY;
        }
        self.waiting.push((now, waiting));
    }

    /// Waits until it is time to look for the workers that have these jobs; for ever while none waits. Cancel-safe.
    pub async fn due(&self) {
        if self.waiting.is_empty() {
            std::future::pending::<()>().await;
        } else {
            tokio::time::sleep_until(self.look_at).await;
        }
    }

    /// Looks, for the service `id`, and returns what becomes of those whose wait is over; `answer` makes an answer.
    /// While the store can't be asked they wait on: no answer could be written either.
    pub async fn look(
        &mut self,
        store: &dyn ResultStore,
        id: &str,
        answer: impl Fn(Waiting) -> Disposition,
    ) -> Vec<Disposition> {
        let now = Instant::now();
        self.look_at = now + LOOK_EVERY;
        let ripe = |(since, _): &mut (Instant, Waiting)| now - *since >= LOOK_EVERY;
        let looked: Vec<(Instant, Waiting)> = self.waiting.extract_if(.., ripe).collect();
        let ids: Vec<JobId> = looked.iter().map(|(_, waiting)| waiting.job.id.clone()).collect();
        let standings = match store.standings(id, &ids).await {
            Ok(standings) => standings,
            Err(error) => {
                tracing::warn!(%error, jobs = ids.len(), "can't look jobs up that the broker gave up");
                vec![Standing::Held; ids.len()]
            }
        };
        let mut over = Vec::new();
        for ((since, waiting), standing) in looked.into_iter().zip(standings) {
            match standing {
                Standing::Free { .. } => over.push(answer(waiting)),
                Standing::Answered => over.push(Disposition::Acknowledge(waiting.ticket.acker)),
                Standing::Held if now - since >= HOLD_MAX => {
                    over.push(Disposition::GiveBack(waiting.ticket.acker));
                }
                Standing::Held => self.waiting.push((since, waiting)),
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use forebay_schemas::{ErrorCode, Outcome};

    use super::*;
    use crate::testing::{FakeStore, ticket};

    struct Looks {
        store: FakeStore,
        given_up: GivenUp,
    }

    impl Looks {
        /// One dead letter, whose job stands so.
        fn at_one(standing: Standing) -> Self {
            let job = Job::embed("m".parse().unwrap(), vec!["x".into()]);
            let error = JobError::new(ErrorCode::AttemptsExhausted, "given up");
            let mut given_up = GivenUp::default();
            given_up.push(Waiting { ticket: ticket(job.id.clone()), job, error });
            Self { store: FakeStore::new(standing), given_up }
        }

        /// Its end, if there is one within that time.
        async fn within(&mut self, time: Duration) -> Option<Disposition> {
            let answer = |Waiting { job, ticket, error }| {
                Disposition::Answer(Box::new((ticket, Outcome::failed(&job, error))))
            };
            let looking = async {
                loop {
                    self.given_up.due().await;
                    let over = self.given_up.look(&self.store, "autoscaler", answer).await;
                    if let Some(one) = over.into_iter().next() {
                        return one;
                    }
                }
            };
            tokio::time::timeout(time, looking).await.ok()
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_job_that_no_worker_has_is_answered_a_moment_later() {
        let mut looks = Looks::at_one(Standing::Free { deaths: 2 });
        assert!(looks.within(LOOK_EVERY / 2).await.is_none(), "a worker may be about to have it");
        let answer = looks.within(LOOK_EVERY).await;
        assert!(matches!(answer, Some(Disposition::Answer(_))), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_a_worker_has_waits_for_its_answer() {
        let mut looks = Looks::at_one(Standing::Held);
        assert!(looks.within(MINUTE).await.is_none());
        looks.store.stands(Standing::Answered);
        let over = looks.within(MINUTE).await;
        assert!(matches!(over, Some(Disposition::Acknowledge(_))), "{over:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_whose_worker_dies_meanwhile_is_answered() {
        let mut looks = Looks::at_one(Standing::Held);
        assert!(looks.within(MINUTE).await.is_none());
        looks.store.stands(Standing::Free { deaths: 1 });
        let answer = looks.within(MINUTE).await;
        assert!(matches!(answer, Some(Disposition::Answer(_))), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn none_is_held_for_longer_than_the_broker_allows() {
        let mut looks = Looks::at_one(Standing::Held);
        assert!(looks.within(HOLD_MAX.saturating_sub(LOOK_EVERY)).await.is_none());
        let over = looks.within(LOOK_EVERY * 3).await;
        assert!(matches!(over, Some(Disposition::GiveBack(_))), "{over:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_store_is_away_nothing_is_decided() {
        let mut looks = Looks::at_one(Standing::Free { deaths: 0 });
        looks.store.is_away(true);
        assert!(looks.within(MINUTE).await.is_none());
        looks.store.is_away(false);
        let answer = looks.within(MINUTE).await;
        assert!(matches!(answer, Some(Disposition::Answer(_))), "{answer:?}");
    }
}
