//! A stack with work to do, and what is asked of it in the end.

use std::time::Duration;

use crate::broker::Node;
use crate::job::{Codec, Job};
use crate::patience::{PATIENT, SOON, holds_within, until_true};
use crate::publisher::Publisher;
use crate::record::{finished, result, result_within};
use crate::service::Service;
use crate::stack::Stack;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Mutex, MutexGuard};

static NODE: Mutex<Option<Node>> = Mutex::const_new(None);

/// The node for tests that disturb all of a node: they take turns with it, and leave it as it was.
#[derive(Debug)]
pub struct Lent(MutexGuard<'static, Option<Node>>);

impl Lent {
    /// Waits for its turn.
    pub async fn node() -> Self {
        let mut node = NODE.lock().await;
        if node.is_none() {
            *node = Some(Node::boot().await);
        }
        Self(node)
    }
}

impl std::ops::Deref for Lent {
    type Target = Node;

    fn deref(&self) -> &Node {
        self.0.as_ref().unwrap()
    }
}

impl std::ops::DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Node {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // After a failure its state is unknown.
        if std::thread::panicking() {
            self.show_log();
            *self.0 = None;
        }
    }
}

/// Settings with which a backlog keeps a worker of the tiny model busy for a while.
pub const SMALL_BATCHES: (&str, &str) = ("FOREBAY_WORKER__BATCH_TOKENS_MAX", "64");

/// A stack of the tiny model with jobs.
#[derive(Debug)]
pub struct Workload {
    /// The servers.
    pub stack: Stack,
    /// Publishes past the relays.
    pub publisher: Publisher,
    /// Looks at results past the relays.
    pub redis: MultiplexedConnection,
    /// The good jobs that were published.
    pub jobs: Vec<Job>,
}

impl Workload {
    /// With the topology declared and nothing running.
    pub async fn on(stack: Stack) -> Self {
        let listed = stack.forebay(&["queues"]).await;
        assert_eq!(listed.code, 0, "{listed:?}");
        let publisher = stack.publisher().await;
        let redis = stack.redis().await;
        Self { stack, publisher, redis, jobs: Vec::new() }
    }

    /// On a new stack.
    pub async fn new() -> Self {
        Self::on(Stack::start().await.tiny()).await
    }

    /// On a new stack with relays before its servers.
    pub async fn relayed() -> Self {
        Self::on(Stack::start().await.tiny().relayed()).await
    }

    /// A good job.
    pub fn job(&self, text: &str) -> Job {
        Job::embed(text).of(self.stack.model())
    }

    /// Publishes this many more good jobs.
    pub async fn publish(&mut self, count: usize) {
        let from = self.jobs.len();
        let text = |n| format!("Passage {n}: the forebay holds the water of the river.");
        let jobs: Vec<Job> = (from..from + count).map(|n| self.job(&text(n))).collect();
        self.publisher.submit_all(self.stack.model(), &jobs, Codec::Msgpack).await;
        self.jobs.extend(jobs);
    }

    /// Publishes this many more jobs that take their worker so many milliseconds each.
    pub async fn publish_slow(&mut self, count: usize, ms: u64) {
        let from = self.jobs.len();
        let job = |n| self.job(&format!("Slow passage {n}.")).faulty(&format!("slow:{ms}"));
        let jobs: Vec<Job> = (from..from + count).map(job).collect();
        self.publisher.submit_all(self.stack.model(), &jobs, Codec::Msgpack).await;
        self.jobs.extend(jobs);
    }

    /// Publishes one job.
    pub async fn submit(&self, job: &Job) {
        self.publisher.submit(self.stack.model(), job, Codec::Json).await;
    }

    /// How many of the good jobs have a record.
    pub async fn finished(&mut self) -> usize {
        let ids: Vec<&str> = self.jobs.iter().map(Job::id).collect();
        finished(&mut self.redis, &ids).await
    }

    /// Waits until some of the good jobs are done, and checks that not all are.
    pub async fn is_at_work(&mut self) {
        until_true("it is at work", PATIENT, async || self.finished().await > 0).await;
        let done = self.finished().await;
        let all = self.jobs.len();
        assert!(done < all, "all {all} were done before anything was disturbed");
    }

    /// Every good job succeeds.
    pub async fn all_succeed(&mut self) {
        let all = self.jobs.len();
        let done = holds_within(PATIENT, async || self.finished().await == all).await;
        let found = self.finished().await;
        let left = self.stack.vhost.depths();
        assert!(done, "{found} of {all} jobs have a result; in the queues: {left:?}");
        for job in &self.jobs {
            let record = result(&mut self.redis, job.id()).await;
            assert_eq!(record.state(), "succeeded", "{}", record.fields);
        }
    }

    /// A new job succeeds within `limit`.
    pub async fn does_new_work(&mut self, limit: Duration) {
        let job = self.job("later");
        self.submit(&job).await;
        let record = result_within(&mut self.redis, job.id(), limit).await;
        assert_eq!(record.state(), "succeeded", "{}", record.fields);
    }

    /// Nothing is left in any queue but the one of dead letters.
    pub async fn queues_are_empty(&self) {
        let empty = async || {
            let depths = self.stack.vhost.depths().expect("the management plug-in answers");
            depths.iter().all(|(name, messages)| *messages == 0 || name == "forebay.dead")
        };
        let is_empty = holds_within(SOON, empty).await;
        assert!(is_empty, "left: {:?}", self.stack.vhost.depths());
    }

    /// Everything is done, new work too, and nothing is left.
    pub async fn comes_to_rest(&mut self) {
        self.all_succeed().await;
        self.does_new_work(PATIENT).await;
        self.queues_are_empty().await;
    }
}

/// Waits until a service's `/readyz` says so.
pub async fn says(service: &Service, status: u16) {
    let what = format!("/readyz says {status}");
    until_true(&what, PATIENT, async || service.readiness() == Some(status)).await;
}
