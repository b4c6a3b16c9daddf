//! Messages that are larger than the broker takes: refused at once and for good, at the cost of nothing else.

use std::time::Instant;

use forebay_tests::broker::Node;
use forebay_tests::job::{Codec, Job, properties};
use forebay_tests::model::TINY;
use forebay_tests::patience::{SOON, until};
use forebay_tests::record::{Record, result};
use forebay_tests::stack::Stack;
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

/// RabbitMQ takes 16 MiB from 4.0 on; here it takes this.
const BYTES_MAX: usize = 65_536;

async fn broker() -> Node {
    Node::boot_with(&format!("max_message_size = {BYTES_MAX}\n")).await
}

#[tokio::test]
async fn a_reply_that_is_too_large_names_the_key_of_its_result() {
    let node = broker().await;
    let stack = Stack::on(node.vhost().await).await.tiny();
    let worker = stack.worker(&[]).await;
    let publisher = stack.publisher().await;
    let mut redis = stack.redis().await;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let channel = &publisher.channel;
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await.unwrap();
    for codec in Codec::BOTH {
        let job = Job::embed(vec!["text"; 1_500]).of(TINY);
        let asked = properties(job.id(), codec).with_reply_to(queue.name().clone());
        publisher.publish(TINY, &job.body(codec), asked.with_correlation_id("my-1".into())).await;
        let reply = until("a reply", SOON, async || {
            let get = channel.basic_get(queue.name().clone(), BasicGetOptions::default());
            get.await.unwrap().map(|got| got.delivery)
        })
        .await;
        let correlated = reply.properties.correlation_id().as_ref().unwrap();
        assert_eq!(correlated.as_str(), "my-1");
        let record = result(&mut redis, job.id()).await;
        assert!(record.raw.len() > BYTES_MAX, "the result has only {} bytes", record.raw.len());
        assert_eq!(record.state(), "succeeded");
        let fields = Record::decode(&reply.data).fields;
        assert_eq!(fields["result_key"], format!("forebay:result:{}", job.id()));
        assert_eq!(fields["result_bytes"], record.raw.len());
        for (name, value) in [("id", job.id()), ("model", TINY), ("state", "succeeded")] {
            assert_eq!(fields[name], value, "{fields}");
        }
        assert_eq!(fields.get("output"), None);
    }
    let log = worker.log();
    assert!(!log.contains("no connection to RabbitMQ"), "{log}");
}

#[tokio::test]
async fn a_job_that_is_too_large_for_the_broker_is_refused_at_once() {
    let node = broker().await;
    let stack = Stack::on(node.vhost().await).await.tiny();
    let text = "water ".repeat(BYTES_MAX / 6 + 1);
    let limit = BYTES_MAX.to_string();
    // Known beforehand, and learnt from the broker.
    for known in [&[("FOREBAY_BROKER__MESSAGE_BYTES_MAX", limit.as_str())][..], &[]] {
        let mut command = stack.program("forebay", known);
        command.args(["submit", "--model", TINY, &text]);
        let began = Instant::now();
        let refused = stack.run(command).await;
        assert_eq!((refused.code, refused.output.as_str()), (2, ""), "{refused:?}");
        assert!(refused.errors.contains(&limit), "the limit is not named: {}", refused.errors);
        // An unconfirmed publish is repeated for 30 s.
        assert!(began.elapsed().as_secs() < 25, "it took {:?}", began.elapsed());
    }
    assert_eq!(stack.vhost.depth(&stack.batch_queue()), 0);
}
