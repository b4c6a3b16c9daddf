//! Stage 7: writes results, then acknowledges; nothing else in the worker does either.
//!
//! While the store is away everything waits here, and the stages before fill up and stop taking work: backpressure.
//! Messages that wait for the broker alone (copies, further attempts, dead letters) do not hold up the others.

use std::{pin::pin, sync::Arc};

use forebay_fabric::{
    answer::{Answerer, FollowUp},
    disposition::Disposition,
    ticket::Ticket,
};
use forebay_schemas::Outcome;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;

use crate::in_hand::InHand;

/// Messages settled in one round trip, at most, of those that were not computed.
const NOT_COMPUTED_MAX: usize = 256;

/// Settling of all jobs, computed or not.
pub struct Settle {
    /// Writes the answers.
    pub answerer: Answerer,
    /// Counts what is settled.
    pub in_hand: Arc<InHand>,
}

impl Settle {
    /// Runs until both inputs end and all is settled. `whole` takes what the device's stage sends and returns the jobs
    /// that it made whole, with their outcomes.
    pub async fn run<C>(
        self,
        mut computed: mpsc::Receiver<C>,
        mut not_computed: mpsc::Receiver<Disposition>,
        whole: impl Fn(C) -> Vec<(Ticket, Outcome)>,
    ) {
        // No more than there are unsettled deliveries.
        let mut follow_ups: FuturesUnordered<FollowUp> = FuturesUnordered::new();
        loop {
            let dispositions = tokio::select! {
                biased;
                Some(()) = follow_ups.next() => {
                    self.in_hand.settled(1);
                    continue;
                }
                Some(computed) = computed.recv() => {
                    let attempts_max = self.answerer.attempts_max;
                    let next =
                        |(ticket, outcome)| Disposition::of(ticket, outcome, attempts_max);
                    whole(computed).into_iter().map(next).collect()
                }
                Some(first) = not_computed.recv() => {
                    let mut together = vec![first];
                    while together.len() < NOT_COMPUTED_MAX
                        && let Ok(next) = not_computed.try_recv()
                    {
                        together.push(next);
                    }
                    together
                }
                else => return,
            };
            let jobs = dispositions.len();
            let left = self.beside(self.answerer.settle(dispositions), &mut follow_ups).await;
            self.in_hand.settled((jobs - left.len()) as u64);
            follow_ups.extend(left);
        }
    }

    /// Waits for something else beside the follow-ups: one of them may hold what it needs, such as the last connection
    /// to the store.
    async fn beside<T>(
        &self,
        other: impl Future<Output = T>,
        follow_ups: &mut FuturesUnordered<FollowUp>,
    ) -> T {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return done,
                Some(()) = follow_ups.next() => self.in_hand.settled(1),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forebay_fabric::{
        broker::{Message, PublishError, Publisher},
        clock::Clock,
    };
    use forebay_schemas::{EmbedOutput, ErrorCode, Job, JobError, Output, Timing, Usage};
    use futures_util::{FutureExt, future::BoxFuture};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::testing::{self, FakeStore};

    struct NoPublisher;

    impl Publisher for NoPublisher {
        fn publish<'a>(&'a self, _: &'a Message) -> BoxFuture<'a, Result<(), PublishError>> {
            async { Ok(()) }.boxed()
        }
    }

    fn embedded(values: usize) -> Vec<(Ticket, Outcome)> {
        let job = Job::embed("m".parse().unwrap(), vec!["x".into()]);
        let output = Output::Embed(EmbedOutput { dim: values, data: vec![0.5; values] });
        let outcome = Outcome::succeeded(&job, output, Usage::default(), Timing::default());
        vec![(testing::ticket(job.id), outcome)]
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_result_that_has_the_last_connection_goes_on_beside_a_small_one() {
        let store = FakeStore::default();
        store.kept().connections = Some(Arc::new(Semaphore::new(1)));
        store.kept().write_takes = Duration::from_millis(10);
        let answerer = Answerer {
            worker_id: "w".into(),
            store: Arc::new(store.clone()),
            publisher: Arc::new(NoPublisher),
            attempts_max: 5,
            clock: Clock::default(),
        };
        let settle = Settle { answerer, in_hand: Arc::default() };
        let (computed, from_device) = mpsc::channel(2);
        let (_, not_computed) = mpsc::channel(1);
        let running = tokio::spawn(settle.run(from_device, not_computed, |whole| whole));
        computed.send(embedded(100_000)).await.unwrap();
        let connections = store.kept().connections.clone().unwrap();
        while connections.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        computed.send(embedded(1)).await.unwrap();
        while connections.available_permits() == 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!running.is_finished());
        }
        drop(computed);
        tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
    }

    #[test]
    fn the_deaths_of_workers_count_among_the_attempts_at_a_job_that_fails() {
        let job = Job::embed("m".parse().unwrap(), vec!["x".into()]);
        let failed = |failures, deaths| {
            let ticket = Ticket { failures, deaths, ..testing::ticket(job.id.clone()) };
            let error = JobError::new(ErrorCode::Internal, "passes");
            Disposition::failed(&job, ticket, error, 5)
        };
        for (failures, deaths) in [(0, 0), (3, 0), (0, 3), (1, 2)] {
            let disposition = failed(failures, deaths);
            assert!(matches!(disposition, Disposition::RetryLater { .. }), "{disposition:?}");
        }
        for (failures, deaths) in [(4, 0), (0, 4), (2, 2)] {
            let Disposition::Answer(answer) = failed(failures, deaths) else {
                panic!("a sixth attempt after {failures} failures and {deaths} deaths")
            };
            let code = answer.1.error.map(|error| error.code);
            assert_eq!(code, Some(ErrorCode::AttemptsExhausted));
        }
    }
}
