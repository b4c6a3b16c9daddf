//! The loss of one node of three.

use forebay_tests::broker::Cluster;
use forebay_tests::patience::{PATIENT, until_true};
use forebay_tests::publisher::Publisher;
use forebay_tests::stack::Stack;

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
    // By then its window has grown. What RabbitMQ 3.10 delivered to a consumer that is cancelled since, as by a window
    // that grows, may come back with the node alone.
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
