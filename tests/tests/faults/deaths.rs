//! Crash attribution: only a worker that is gone counts as dead, and no live one is taken for it.

use std::time::Duration;

use forebay_tests::job::Job;
use forebay_tests::patience::{PATIENT, SOON, holds_within, until, until_true};
use forebay_tests::record::{Record, result};
use forebay_tests::relay::Relay;
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use forebay_tests::workload::Workload;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use redis::AsyncCommands as _;

const TWO_ATTEMPTS: (&str, &str) = ("FOREBAY_WORKER__ATTEMPTS_MAX", "2");

/// A worker with a name and a link to the broker of its own.
struct Linked {
    name: &'static str,
    link: Relay,
    worker: Service,
}

impl Linked {
    async fn start(workload: &Workload, name: &'static str) -> Self {
        let link = Relay::to(workload.stack.vhost.amqp_port());
        let broker = workload.stack.vhost.amqp_url_at(link.port());
        let settings = [TWO_ATTEMPTS, ("FOREBAY_WORKER_NAME", name), ("FOREBAY_AMQP_URL", &broker)];
        let worker = workload.stack.worker(&settings).await;
        Self { name, link, worker }
    }

    /// Tokens that it has computed.
    fn tokens(&self) -> u64 {
        self.count("forebay_compute_tokens_total")
    }

    /// Jobs of the batch lane that were delivered to it, each as often as it came.
    fn deliveries(&self) -> u64 {
        self.count("forebay_decode_jobs_total{lane=\"batch\"}")
    }

    fn count(&self, series: &str) -> u64 {
        let (_, metrics) = self.worker.get("/metrics").expect("its metrics");
        let value = |line: &str| line.strip_prefix(series)?.trim().parse().ok();
        metrics.lines().find_map(value).unwrap_or(0)
    }
}

/// Whether the journal of the worker with this name has the job.
async fn computes(workload: &mut Workload, name: &str, job: &Job) -> bool {
    let key = format!("forebay:computing:{name}");
    let journal: Option<String> = workload.redis.get(key).await.unwrap();
    journal.is_some_and(|journal| journal.contains(job.id()))
}

/// The worker, other than the one with the name `except`, that computes the job by now.
async fn who_computes(
    workload: &mut Workload,
    workers: &[Linked],
    except: Option<&str>,
    job: &Job,
) -> Option<usize> {
    for (n, one) in workers.iter().enumerate() {
        if except != Some(one.name) && computes(workload, one.name, job).await {
            return Some(n);
        }
    }
    None
}

fn is_done_at_the_first_attempt(record: &Record) {
    assert_eq!(record.state(), "succeeded", "{}", record.fields);
    assert_eq!(record.count("/attempts"), 1, "{}", record.fields);
}

#[tokio::test]
async fn a_job_whose_workers_lose_their_links_again_and_again_is_no_killer() {
    let mut workload = Workload::new().await;
    let mut workers = Vec::new();
    for name in ["one", "two", "three"] {
        workers.push(Linked::start(&workload, name).await);
    }
    let job = workload.job("takes its time").faulty("slow:6000");
    workload.submit(&job).await;
    let what = "a worker computes it";
    let first =
        until(what, PATIENT, async || who_computes(&mut workload, &workers, None, &job).await)
            .await;
    workers[first].link.drop_connections();
    // Its message comes to another worker, which is not to compute it while the first one does.
    let mut second = None;
    let name = Some(workers[first].name);
    holds_within(Duration::from_secs(2), async || {
        second = who_computes(&mut workload, &workers, name, &job).await;
        second.is_some()
    })
    .await;
    workers[second.unwrap_or(first)].link.drop_connections();

    let record = result(&mut workload.redis, job.id()).await;
    is_done_at_the_first_attempt(&record);
    assert_eq!(record.fields["worker"], workers[first].name, "the one that began");
    workload.queues_are_empty().await;
    let tokens: u64 = workers.iter().map(Linked::tokens).sum();
    assert_eq!(tokens, record.count("/usage/input_tokens"), "it was computed once");
    workload.comes_to_rest().await;
    assert!(workers.iter_mut().all(|one| one.worker.is_running()));
}

#[tokio::test]
async fn a_worker_that_gets_its_own_job_again_does_not_compute_it_twice() {
    let mut workload = Workload::new().await;
    let mut only = Linked::start(&workload, "only").await;
    let job = workload.job("takes its time").faulty("slow:4000");
    workload.submit(&job).await;
    let at_work = async || computes(&mut workload, "only", &job).await.then_some(());
    until("it computes the job", PATIENT, at_work).await;
    only.link.drop_connections();
    let record = result(&mut workload.redis, job.id()).await;
    is_done_at_the_first_attempt(&record);
    workload.queues_are_empty().await;
    assert_eq!(only.tokens(), record.count("/usage/input_tokens"));
    assert!(only.worker.is_running());
}

#[tokio::test]
async fn workers_that_end_in_good_order_have_died_of_nothing_also_past_their_grace() {
    let mut workload = Workload::new().await;
    let job = workload.job("takes its time").faulty("slow:4000");
    workload.submit(&job).await;
    for name in ["one", "two"] {
        let hurried =
            [TWO_ATTEMPTS, ("FOREBAY_WORKER_NAME", name), ("FOREBAY_WORKER__GRACE_S", "1")];
        let mut worker = workload.stack.worker(&hurried).await;
        let at_work = async || computes(&mut workload, name, &job).await.then_some(());
        until("it computes the job", PATIENT, at_work).await;
        worker.signal("TERM");
        assert_eq!(worker.exit_code(SOON).await, 0);
        assert!(worker.log().contains("the grace period is over"), "{}", worker.log());
        let journals: Vec<String> = workload.redis.keys("forebay:computing*").await.unwrap();
        assert!(journals.is_empty(), "{journals:?}");
    }
    let _patient = workload.stack.worker(&[TWO_ATTEMPTS]).await;
    let record = result(&mut workload.redis, job.id()).await;
    is_done_at_the_first_attempt(&record);
    workload.comes_to_rest().await;
}

#[tokio::test]
async fn a_job_at_its_delivery_limit_has_the_answer_of_the_worker_that_computes_it() {
    let stack = Stack::start().await.tiny();
    let text = std::fs::read_to_string(stack.config()).unwrap();
    stack.write_config(&(text + "\n[queues]\ndelivery_limit = 2\n"));
    let mut workload = Workload::on(stack).await;
    let mut autoscaler = workload.stack.autoscaler(&[]).await;
    let only = Linked::start(&workload, "only").await;
    let job = workload.job("takes its time").faulty("slow:8000");
    workload.submit(&job).await;
    let at_work = async || computes(&mut workload, "only", &job).await.then_some(());
    until("it computes the job", PATIENT, at_work).await;
    let dead = workload.publisher.channel.clone();
    let is_dead = async || {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let counted = dead.queue_declare("forebay.dead".into(), passive, FieldTable::default());
        counted.await.unwrap().message_count() == 1
    };
    let mut came = only.deliveries();
    while !is_dead().await {
        only.link.drop_connections();
        let again = async || only.deliveries() > came || is_dead().await;
        until_true("its message comes again, or is dead", SOON, again).await;
        came = only.deliveries();
    }
    assert!(computes(&mut workload, "only", &job).await, "it was done before its message was dead");

    let record = result(&mut workload.redis, job.id()).await;
    is_done_at_the_first_attempt(&record);
    assert_eq!(record.fields["worker"], "only");
    workload.queues_are_empty().await;
    assert!(autoscaler.is_running());
}
