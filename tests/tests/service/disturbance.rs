//! Cut connections and stores that stop: everything is done all the same.

use forebay_tests::job::{Codec, Job, passages};
use forebay_tests::patience::{PATIENT, SOON, until_true};
use forebay_tests::publisher::BATCH;
use forebay_tests::record::{finished, result};
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use redis::aio::MultiplexedConnection;

const JOBS: usize = 600;

/// A worker in the middle of its work.
struct Busy {
    stack: Stack,
    worker: Service,
    jobs: Vec<Job>,
}

impl Busy {
    async fn start() -> Self {
        let stack = Stack::start().await;
        let worker = stack.worker(&[]).await;
        // Before there is work, so that a cut comes in the middle of it.
        stack.vhost.connected(1).await;
        let busy = Self { stack, worker, jobs: passages(JOBS) };
        let publisher = busy.stack.publisher().await;
        publisher.submit_all(BATCH, &busy.jobs, Codec::Msgpack).await;
        let mut redis = busy.stack.redis().await;
        until_true("it is at work", PATIENT, async || busy.finished(&mut redis).await >= JOBS / 10)
            .await;
        busy
    }

    async fn finished(&self, redis: &mut MultiplexedConnection) -> usize {
        let ids: Vec<&str> = self.jobs.iter().map(Job::id).collect();
        finished(redis, &ids).await
    }

    /// Everything is done by the worker that was disturbed, which then is as ready as before.
    async fn goes_on(&mut self) {
        let mut redis = self.stack.redis().await;
        until_true("all are done", PATIENT, async || self.finished(&mut redis).await == JOBS).await;
        for job in &self.jobs {
            assert_eq!(result(&mut redis, job.id()).await.state(), "succeeded");
        }
        assert!(self.worker.is_running());
        until_true("it is ready again", SOON, async || self.worker.readiness() == Some(200)).await;
        let later = Job::embed("later");
        self.stack.publisher().await.submit(BATCH, &later, Codec::Json).await;
        assert_eq!(result(&mut redis, later.id()).await.state(), "succeeded");
        let empty = async || self.stack.vhost.depth("forebay.jobs.all-minilm-l6-v2.batch") == 0;
        until_true("nothing is left in the queue", SOON, empty).await;
    }
}

#[tokio::test]
async fn cut_connections_to_the_broker_lose_nothing() {
    let mut busy = Busy::start().await;
    assert!(busy.stack.vhost.cut_connections() > 0);
    let done = busy.finished(&mut busy.stack.redis().await).await;
    assert!(done < JOBS, "it had finished all before the cut");
    busy.goes_on().await;
}

#[tokio::test]
async fn a_store_that_hangs_makes_the_worker_wait_and_loses_nothing() {
    let mut busy = Busy::start().await;
    busy.stack.store.freeze();
    until_true("it says that it can't serve", PATIENT, async || {
        busy.worker.readiness() == Some(503)
    })
    .await;
    assert_eq!(
        busy.worker.get("/healthz").map(|(status, _)| status),
        Some(200),
        "waiting is not being dead"
    );
    busy.stack.store.thaw();
    busy.goes_on().await;
}

#[tokio::test]
async fn a_store_that_restarts_loses_nothing() {
    let mut busy = Busy::start().await;
    busy.stack.store.kill();
    until_true("it says that it can't serve", PATIENT, async || {
        busy.worker.readiness() == Some(503)
    })
    .await;
    busy.stack.store.restart().await;
    busy.goes_on().await;
}
