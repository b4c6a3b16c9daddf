//! Queues that are led by another node than the one that a worker is connected to, and the loss of a node.

use forebay_tests::broker::Cluster;
use forebay_tests::patience::{PATIENT, SOON, until_true};
use forebay_tests::publisher::Publisher;
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use serde_json::Value;

use forebay_tests::workload::{SMALL_BATCHES, Workload, says};

#[tokio::test]
async fn a_cluster_that_loses_a_node_goes_on_and_takes_it_back() {
    let mut cluster = Cluster::boot().await;
    let stack = Stack::on(cluster.vhost()).await.tiny().relayed();
    // Through the second node, so that queues are led there, and the first is left to be asked about them.
    let second = cluster.nodes[1].amqp_port();
    stack.relays().broker.point_at(second);
    let mut workload = Workload::on(stack).await;
    let mut worker = workload.stack.worker(&[SMALL_BATCHES]).await;
    workload.publish(1_500).await;
    // By then its window has its size. What RabbitMQ 3.10 delivered to a consumer that is cancelled since, as by a
    // window that shrinks, may come back with the node alone.
    until_true("half of the jobs are done", PATIENT, async || workload.finished().await > 750)
        .await;
    cluster.nodes[1].kill();
    workload.stack.relays().broker.point_at(cluster.nodes[2].amqp_port());
    workload.publisher = Publisher::connect(&workload.stack.amqp_url()).await;
    workload.comes_to_rest().await;

    cluster.nodes[1].start().await;
    cluster.is_whole().await;
    workload.stack.relays().broker.point_at(second);
    says(&worker, 200).await;
    workload.publisher = Publisher::connect(&workload.stack.amqp_url()).await;
    workload.publish(100).await;
    workload.comes_to_rest().await;
    assert!(worker.is_running());
}

/// The largest window of its batch lane.
const MOST: u64 = 256;

/// A workload on a cluster, whose queues are led by the second node while its worker is connected to the first.
struct Remote {
    cluster: Cluster,
    workload: Workload,
    worker: Service,
}

impl Remote {
    async fn start() -> Self {
        let mut cluster = Cluster::boot().await;
        let stack = Stack::on(cluster.vhost()).await.tiny().relayed();
        stack.relays().broker.point_at(cluster.nodes[1].amqp_port());
        let workload = Workload::on(stack).await;
        workload.stack.relays().broker.point_at(cluster.nodes[0].amqp_port());
        let worker = workload.stack.worker(&[]).await;
        let remote = Self { cluster, workload, worker };
        let leader = async || remote.queue()["leader"].as_str().map(str::to_owned);
        let is_second = async || leader().await.is_some_and(|leader| leader.contains("-two@"));
        until_true("the second node leads the queue", SOON, is_second).await;
        remote
    }

    /// The queue of its batch lane, as the first node sees it.
    fn queue(&self) -> Value {
        let found = self.workload.stack.vhost.queue(&self.workload.stack.batch_queue());
        found.expect("a queue that is declared")
    }

    /// The messages that the broker has delivered to the worker and has no acknowledgement of.
    fn held(&self) -> u64 {
        self.queue()["messages_unacknowledged"].as_u64().unwrap_or(0)
    }

    /// With a store that answers nothing, a worker settles nothing: it holds all that its window allows.
    async fn holds_while_the_store_stands_still(&self, count: u64) {
        let what = format!("the broker counts {count} deliveries");
        self.workload.stack.store.freeze();
        until_true(&what, SOON, async || self.held() == count).await;
        self.workload.stack.store.thaw();
    }

    async fn has_a_window_of(&self, is_right: impl Fn(u64) -> bool) {
        let prefetch = async || self.worker.metric("forebay_worker_prefetch{lane=\"batch\"}");
        until_true("its window is of that size", PATIENT, async || is_right(prefetch().await))
            .await;
    }
}

#[tokio::test]
async fn a_window_grows_and_shrinks_while_another_node_leads_its_queue() {
    let mut remote = Remote::start().await;
    remote.workload.publish(3_000).await;
    remote.has_a_window_of(|prefetch| prefetch == MOST).await;
    remote.holds_while_the_store_stands_still(MOST).await;
    let consumers = remote.queue()["consumers"].as_u64();
    assert!(consumers > Some(1), "it grew by other consumers beside the first: {consumers:?}");
    remote.workload.all_succeed().await;

    // Some seconds of them are far fewer than it may hold.
    remote.workload.publish_slow(500, 40).await;
    remote.has_a_window_of(|prefetch| prefetch <= MOST / 2).await;
    let few = async || {
        let queue = remote.queue();
        let is_left = queue["messages_ready"].as_u64() > Some(0);
        is_left && queue["messages_unacknowledged"].as_u64() <= Some(MOST * 3 / 4)
    };
    until_true("it leaves jobs to others", PATIENT, few).await;
    let consumers = async || remote.queue()["consumers"].as_u64();
    until_true("one consumer is left", PATIENT, async || consumers().await == Some(1)).await;

    remote.workload.publish(3_000).await;
    remote.has_a_window_of(|prefetch| prefetch == MOST).await;
    remote.holds_while_the_store_stands_still(MOST).await;
    remote.workload.comes_to_rest().await;
    let needed = remote.workload.tokens_needed().await;
    let computed = remote.worker.metric("forebay_compute_tokens_total");
    assert!(
        computed >= needed && computed * 100 <= needed * 101,
        "{computed} tokens were computed for jobs of {needed}"
    );
    assert!(remote.worker.is_running());
    drop(remote.cluster);
}
