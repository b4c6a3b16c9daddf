//! The private servers themselves: what the other tests stand on.

use std::time::Duration;

use forebay_tests::broker::Node;
use forebay_tests::job::{Codec, Job, properties};
use forebay_tests::patience::{SOON, until_true};
use forebay_tests::publisher::Publisher;
use forebay_tests::stack::Stack;
use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use redis::AsyncCommands as _;

#[tokio::test]
async fn a_message_goes_through_the_private_broker_and_a_cut_is_noticed() {
    let stack = Stack::start().await;
    let publisher = stack.publisher().await;
    let channel = &publisher.channel;
    let none = FieldTable::default();
    let exchange = channel.exchange_declare(
        "forebay.jobs".into(),
        lapin::ExchangeKind::Direct,
        ExchangeDeclareOptions::default(),
        none.clone(),
    );
    exchange.await.unwrap();
    channel.queue_declare("q".into(), QueueDeclareOptions::default(), none.clone()).await.unwrap();
    channel
        .queue_bind(
            "q".into(),
            "forebay.jobs".into(),
            "key".into(),
            QueueBindOptions::default(),
            none,
        )
        .await
        .unwrap();
    let job = Job::embed("text");
    publisher.publish("key", b"body", properties(job.id(), Codec::Json)).await;
    until_true("the queue's depth shows", SOON, async || stack.vhost.depth("q") == 1).await;
    let got = channel.basic_get("q".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert_eq!(got.delivery.data, b"body");
    stack.vhost.connected(1).await;
    assert_eq!(stack.vhost.cut_connections(), 1);
    until_true("the connection is gone", SOON, async || !channel.status().connected()).await;
}

#[tokio::test]
async fn a_killed_redis_comes_back_with_what_it_held() {
    let mut stack = Stack::start().await;
    let () = stack.redis().await.set("key", "value").await.unwrap();
    stack.store.kill();
    stack.store.restart().await;
    let value: String = stack.redis().await.get("key").await.unwrap();
    assert_eq!(value, "value");
}

#[tokio::test]
async fn a_frozen_broker_is_silent_until_it_thaws() {
    let node = Node::boot().await;
    let vhost = node.vhost().await;
    let url = vhost.amqp_url();
    node.freeze();
    let connecting = Publisher::try_connect(&url);
    let silent = tokio::time::timeout(Duration::from_secs(1), connecting).await.is_err();
    node.thaw();
    assert!(silent, "a frozen broker took a connection");
    Publisher::connect(&url).await;
}

#[tokio::test]
async fn a_full_store_refuses_writes_and_answers_reads_until_it_is_relieved() {
    let stack = Stack::start().await;
    let mut redis = stack.redis().await;
    let () = redis.set("key", "value").await.unwrap();
    stack.store.fill().await;
    let refused: redis::RedisResult<()> = redis.set("key", "other").await;
    assert!(refused.unwrap_err().to_string().contains("OOM"));
    let value: String = redis.get("key").await.unwrap();
    assert_eq!(value, "value");
    stack.store.relieve().await;
    let () = redis.set("key", "other").await.unwrap();
}
