//! Messages whose properties are not UTF-8, which RabbitMQ takes from any publisher: each costs itself at most.

use forebay_tests::job::{Codec, Job};
use forebay_tests::model::TINY;
use forebay_tests::patience::{SOON, until_true};
use forebay_tests::publisher::Publisher;
use forebay_tests::raw::{Property, RawPublisher};
use forebay_tests::record::result;
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use redis::aio::MultiplexedConnection;

use super::commands::json_lines;

const JOBS: &str = "forebay.jobs";
const FOREIGN: &[u8] = b"caf\xe9 \xff\xfe";

/// A worker and an autoscaler, with their first connections.
struct Fleet {
    stack: Stack,
    raw: RawPublisher,
    publisher: Publisher,
    redis: MultiplexedConnection,
    programs: [Service; 2],
}

impl Fleet {
    async fn start() -> Self {
        let stack = Stack::start().await.tiny();
        let programs = [stack.worker(&[]).await, stack.autoscaler(&[]).await];
        let raw = RawPublisher::connect(stack.vhost.amqp_port(), stack.vhost.name());
        Self {
            raw,
            publisher: stack.publisher().await,
            redis: stack.redis().await,
            stack,
            programs,
        }
    }

    /// Publishes a job with these properties beside its id.
    fn submit(&mut self, job: &Job, properties: &[Property]) {
        let id = Property::message_id(job.id().as_bytes());
        let properties = [&[id][..], properties].concat();
        self.raw.publish(JOBS, TINY.as_bytes(), &job.body(Codec::Json), &properties);
    }

    async fn answered(&mut self, id: &str) -> (String, String) {
        let record = result(&mut self.redis, id).await;
        let code = record.fields["error"]["code"].as_str().unwrap_or_default().to_owned();
        (record.state().to_owned(), code)
    }

    /// A neighbour is done, and no program has lost a connection.
    async fn goes_on(&mut self) {
        let job = Job::embed("a neighbour").of(TINY);
        self.publisher.submit(TINY, &job, Codec::Msgpack).await;
        assert_eq!(self.answered(job.id()).await.0, "succeeded");
        for program in &self.programs {
            let log = program.log();
            assert!(!log.contains("no connection to RabbitMQ"), "{log}");
        }
    }
}

#[tokio::test]
async fn jobs_whose_properties_are_not_utf8_are_done_or_answered() {
    let mut fleet = Fleet::start().await;
    let properties = [
        Property::app_id(FOREIGN),
        Property::header(FOREIGN),
        Property::header(&[0xff; 255]),
        Property::reply_to(FOREIGN),
        Property::correlation_id(&[0xff; 255]),
    ];
    for foreign in properties {
        let job = Job::embed("text").of(TINY);
        fleet.submit(&job, std::slice::from_ref(&foreign));
        assert_eq!(fleet.answered(job.id()).await.0, "succeeded", "{foreign:?}");
    }
    // It differs from the id in the body, which is the one that counts.
    let job = Job::embed("text").of(TINY);
    let id = [Property::message_id(FOREIGN)];
    fleet.raw.publish(JOBS, TINY.as_bytes(), &job.body(Codec::Json), &id);
    assert_eq!(fleet.answered(job.id()).await.0, "succeeded");
    fleet.goes_on().await;
}

#[tokio::test]
async fn a_retried_job_keeps_what_can_be_read_of_its_properties() {
    let mut fleet = Fleet::start().await;
    let job = Job::embed("text").of(TINY).faulty("error:1");
    fleet.submit(&job, &[Property::header(&[0xff; 255]), Property::correlation_id(&[0xff; 255])]);
    assert_eq!(fleet.answered(job.id()).await.0, "succeeded");
    fleet.goes_on().await;
}

#[tokio::test]
async fn what_no_worker_takes_is_answered_or_a_dead_letter_that_can_be_shown_and_dropped() {
    let mut fleet = Fleet::start().await;
    let lost = Job::embed("text").of("no-such-model");
    let id = [Property::message_id(lost.id().as_bytes()), Property::app_id(FOREIGN)];
    fleet.raw.publish(JOBS, b"no-such-m\xf6del", &lost.body(Codec::Json), &id);
    assert_eq!(fleet.answered(lost.id()).await.1, "model_not_found");

    let nameless = [Property::message_id(FOREIGN), Property::header(FOREIGN)];
    fleet.raw.publish(JOBS, TINY.as_bytes(), b"\xc1 no job", &nameless);
    let settled = async || {
        let depth = |queue| fleet.stack.vhost.depth(queue);
        depth("forebay.dead") == 1 && depth("forebay.dead.settle") == 0
    };
    until_true("the dead letter is kept and its copy settled", SOON, settled).await;
    let listed = json_lines(&fleet.stack.forebay(&["dead", "list", "--json"]).await);
    let name = listed[0]["letter"].as_str().expect("a name").to_owned();
    let shown = fleet.stack.forebay(&["dead", "show", &name]).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    let dropped = fleet.stack.forebay(&["dead", "drop", &name]).await;
    assert_eq!(dropped.code, 0, "{dropped:?}");
    let empty = async || fleet.stack.vhost.depth("forebay.dead") == 0;
    until_true("the dead letter is gone", SOON, empty).await;
    fleet.goes_on().await;
}
