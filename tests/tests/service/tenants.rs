//! Tenants that share a lane: none waits for all that another has in the worker's hands.

use forebay_tests::job::{Codec, Job, properties};
use forebay_tests::patience::{PATIENT, until};
use forebay_tests::publisher::BATCH;
use forebay_tests::record::Record;
use forebay_tests::stack::Stack;
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::json;

/// A worker holds so many deliveries at first: as many jobs are in its hands together.
const HELD: usize = 16;
/// Batches of so many tokens are quick, and few are packed before the worker has all jobs. Bodies are as short that
/// the bytes of so many fit into its first window, whatever comes.
const SETTINGS: [(&str, &str); 2] =
    [("FOREBAY_WORKER__BATCH_TOKENS_MAX", "256"), ("FOREBAY_LIMITS__BODY_BYTES_MAX", "1000000")];

/// A tenant's jobs of so many texts each.
fn jobs(tenant: &str, count: usize, texts: usize) -> Vec<Job> {
    let text = "A forebay holds the water and smooths the surges of the river.";
    let input = json!(vec![text; texts]);
    (0..count).map(|_| Job::embed(input.clone()).with("tenant", tenant)).collect()
}

/// Sends the jobs and starts a worker, which holds all of them before it computes any: another one before them keeps
/// its device busy. Returns their numbers in the order of their replies.
async fn answered(jobs: &[Job], settings: &[(&str, &str)]) -> Vec<usize> {
    assert!(jobs.len() < HELD, "more jobs than a worker holds at first");
    let stack = Stack::declared().await;
    let publisher = stack.publisher().await;
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let declared = publisher.channel.queue_declare("".into(), exclusive, FieldTable::default());
    let replies = declared.await.unwrap().name().clone();
    let busy = Job::embed("busy").with("tenant", "busy").faulty("slow:3000");
    publisher.submit(BATCH, &busy, Codec::Json).await;
    for job in jobs {
        let asked = properties(job.id(), Codec::Json).with_reply_to(replies.clone());
        publisher.publish(BATCH, &job.body(Codec::Json), asked).await;
    }
    let settings = [&SETTINGS, settings].concat();
    let _worker = stack.worker(&settings).await;
    let mut order = Vec::new();
    while order.len() < jobs.len() {
        let reply = until("a reply", PATIENT, async || {
            let options = BasicGetOptions { no_ack: true };
            publisher.channel.basic_get(replies.clone(), options).await.unwrap()
        })
        .await;
        let record = Record::decode(&reply.delivery.data);
        assert_eq!(record.state(), "succeeded", "{}", record.fields);
        let id = record.fields["id"].as_str().unwrap();
        order.push(jobs.iter().position(|job| job.id() == id).unwrap());
    }
    order
}

/// How many of the jobs before `number` were answered before all of those from `number` on were.
fn before_all_from(order: &[usize], number: usize) -> usize {
    let last = order.iter().rposition(|job| *job >= number).unwrap();
    order[..last].iter().filter(|job| **job < number).count()
}

#[tokio::test]
async fn small_jobs_do_not_wait_for_what_another_tenant_has_in_hand() {
    let all = [jobs("large", 10, 64), jobs("small", 5, 1)].concat();
    let order = answered(&all, &[]).await;
    let waited_for = before_all_from(&order, 10);
    assert!(waited_for <= 2, "the small ones waited for {waited_for} of 10: {order:?}");
}

#[tokio::test]
async fn jobs_without_a_tenant_are_those_of_one_more_tenant() {
    let nameless = Job::embed(json!(["a text without a tenant"]));
    let all = [jobs("large", 10, 64), vec![nameless]].concat();
    let order = answered(&all, &[]).await;
    let waited_for = before_all_from(&order, 10);
    assert!(waited_for <= 2, "it waited for {waited_for} of 10: {order:?}");
}

#[tokio::test]
async fn tenants_share_what_a_worker_holds_in_tokens_and_not_in_jobs() {
    // The same number of texts each.
    let (large, small) = (3, 9);
    let texts = |job: usize| if job < large { 96 } else { 32 };
    let all = [jobs("large", large, 96), jobs("small", small, 32)].concat();
    let order = answered(&all, &[]).await;
    let mut done = [0_usize; 2];
    for job in order {
        done[usize::from(job >= large)] += texts(job);
        // One job of each is under way, and what was packed before all were in hand.
        let apart = done[0].abs_diff(done[1]);
        assert!(apart <= 96 + 96, "{done:?} texts of each tenant");
    }
}

#[tokio::test]
async fn a_tenant_of_a_larger_weight_has_its_multiple_of_what_a_worker_holds() {
    let all = [jobs("light", 7, 64), jobs("heavy", 7, 64)].concat();
    let weight = ("FOREBAY_WORKER__TENANT_WEIGHTS__HEAVY", "3");
    let order = answered(&all, &[weight]).await;
    let light = before_all_from(&order, 7);
    // A third of it, and what was packed before all were in hand.
    assert!(
        (1..=3).contains(&light),
        "{light} of 7 beside all of three times the weight: {order:?}"
    );
}
