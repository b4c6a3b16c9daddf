//! The loss of one node of three.

use forebay_tests::broker::Cluster;
use forebay_tests::publisher::Publisher;
use forebay_tests::stack::Stack;

use forebay_tests::fleet::{Fleet, SMALL_BATCHES, says};

#[tokio::test]
async fn a_cluster_that_loses_a_node_goes_on_and_takes_it_back() {
    let mut cluster = Cluster::boot().await;
    let stack = Stack::on(cluster.vhost()).await.tiny().relayed();
    // Through the second node, so that queues are led there, and the first is left to be asked about them.
    let second = cluster.nodes[1].amqp_port();
    stack.relays().broker.point_at(second);
    let mut fleet = Fleet::on(stack).await;
    let mut worker = fleet.stack.worker(&[SMALL_BATCHES]).await;
    fleet.publish(1_500).await;
    fleet.is_at_work().await;
    cluster.nodes[1].kill();
    fleet.stack.relays().broker.point_at(cluster.nodes[2].amqp_port());
    fleet.publisher = Publisher::connect(&fleet.stack.amqp_url()).await;
    fleet.comes_to_rest().await;

    cluster.nodes[1].start().await;
    cluster.is_whole().await;
    fleet.stack.relays().broker.point_at(second);
    says(&worker, 200).await;
    fleet.publisher = Publisher::connect(&fleet.stack.amqp_url()).await;
    fleet.publish(100).await;
    fleet.comes_to_rest().await;
    assert!(worker.is_running());
}
