//! Messages as the client libraries of many languages send them by their defaults: each is answered where its
//! publisher looks, by the result or by the words that name the mistake.

mod habits;
mod programs;

use forebay_tests::job::Job;
use forebay_tests::patience::{SOON, until};
use forebay_tests::publisher::{BATCH, Publisher};
use forebay_tests::record::{Record, result};
use forebay_tests::stack::SharedFleet;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::time::{Duration, Instant, timeout_at};

use habits::Ends::{Done, Refused};
use habits::{Habit, as_json, as_msgpack, json_with, of_type};

/// The longest that the answers to a whole table may take; shorter than a test waits for one.
const ANSWERED: Duration = Duration::from_secs(25);
/// The longest that one look at an answer may take after that.
const LOOK: Duration = Duration::from_secs(2);

/// Publishes them all, and looks at each answer: one that does not come hides no other.
async fn expect(fleet: &SharedFleet, habits: &[Habit]) {
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let ids: Vec<String> = habits.iter().map(|_| Job::embed("").id().to_owned()).collect();
    for (Habit(_, body, properties, _), id) in habits.iter().zip(&ids) {
        publisher.publish(BATCH, &body(id), properties(id)).await;
    }
    let enough = Instant::now() + ANSWERED;
    let mut complaints = Vec::new();
    for (Habit(name, _, _, ends), id) in habits.iter().zip(&ids) {
        let wanted = match ends {
            Done => ("succeeded", ""),
            Refused(says) => ("failed", *says),
        };
        let until = enough.max(Instant::now() + LOOK);
        let came = match timeout_at(until, result(&mut redis, id)).await {
            Ok(record) => (record.state().to_owned(), record.error_message().to_owned()),
            Err(_) => ("unanswered".to_owned(), String::new()),
        };
        if came.0 != wanted.0 || !came.1.contains(wanted.1) {
            complaints.push(format!("{name}: {came:?}, and not {wanted:?}"));
        }
    }
    let all = habits.len();
    assert!(complaints.is_empty(), "{} of {all}: {complaints:#?}", complaints.len());
}

#[tokio::test]
async fn properties_that_libraries_set_by_themselves_do_no_harm() {
    let fleet = SharedFleet::borrow().await;
    expect(&fleet, habits::PROPERTIES).await;
}

#[tokio::test]
async fn a_body_of_another_kind_is_refused_by_its_kind() {
    let fleet = SharedFleet::borrow().await;
    expect(&fleet, habits::BODIES).await;
}

#[tokio::test]
async fn values_are_read_as_their_languages_mean_them() {
    let fleet = SharedFleet::borrow().await;
    expect(&fleet, habits::VALUES).await;
}

#[tokio::test]
async fn types_and_ids_are_read_in_all_of_their_spellings() {
    let fleet = SharedFleet::borrow().await;
    expect(&fleet, programs::SPELLINGS).await;
}

#[tokio::test]
async fn messages_of_other_programs_are_refused_by_what_they_are() {
    let fleet = SharedFleet::borrow().await;
    expect(&fleet, programs::PROGRAMS).await;
}

/// Asks for a reply on a queue of its own.
async fn reply(publisher: &Publisher, body: &[u8], properties: BasicProperties) -> Delivery {
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue =
        publisher.channel.queue_declare("".into(), options, FieldTable::default()).await.unwrap();
    publisher.publish(BATCH, body, properties.with_reply_to(queue.name().clone())).await;
    let delivery = until("a reply", SOON, async || {
        let get = publisher.channel.basic_get(queue.name().clone(), BasicGetOptions::default());
        get.await.unwrap().map(|got| got.delivery)
    })
    .await;
    delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
    delivery
}

#[tokio::test]
async fn a_reply_has_the_job_s_own_content_type() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    for (mime, said, encoding) in [
        ("application/x-msgpack", "application/x-msgpack", Some("binary")),
        ("application/octet-stream", "application/msgpack", Some("binary")),
        ("application/json; charset=utf-8", "application/json; charset=utf-8", None),
    ] {
        let id = Job::embed("").id().to_owned();
        let body = if mime.contains("json") { as_json(&id) } else { as_msgpack(&id) };
        let reply = reply(&publisher, &body, of_type(mime)).await;
        let text = |property: &Option<lapin::types::ShortString>| {
            property.as_ref().map(ToString::to_string)
        };
        assert_eq!(text(reply.properties.content_type()).as_deref(), Some(said));
        assert_eq!(text(reply.properties.content_encoding()).as_deref(), encoding, "{mime}");
        assert_eq!(Record::decode(&reply.data).state(), "succeeded");
    }
}

#[tokio::test]
async fn a_message_without_a_usable_id_is_answered_at_its_reply_queue() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let asked = of_type("application/json").with_correlation_id("mine".into());
    let reply = reply(&publisher, &json_with("order:123", "v", "1"), asked).await;
    let record = Record::decode(&reply.data);
    assert_eq!(
        (record.state(), record.error_code()),
        ("failed", "invalid_request"),
        "{}",
        record.fields
    );
    assert!(record.error_message().contains("`order:123` is not a job id"), "{}", record.fields);
    assert_eq!(reply.properties.correlation_id().as_ref().unwrap().as_str(), "mine");
}
