//! Dead letters in the hands of people: shown as they are, replayed when that is right, dropped on request.

use forebay_tests::MODEL;
use forebay_tests::job::{Codec, Job, now_ms, properties};
use forebay_tests::patience::{SOON, until, until_true};
use forebay_tests::publisher::{BATCH, INTERACTIVE, Publisher};
use forebay_tests::record::{find, result, result_key};
use forebay_tests::stack::{Finished, Stack};
use lapin::BasicProperties;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, BasicRejectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use redis::AsyncCommands as _;
use serde_json::{Value, json};

use super::commands::json_lines;

const DEAD: &str = "forebay.dead";
const BATCH_QUEUE: &str = "forebay.jobs.all-minilm-l6-v2.batch";

/// A fleet without workers, where jobs can die.
struct Graveyard {
    stack: Stack,
    publisher: Publisher,
    buried: u32,
    /// Settings of its queues.
    settings: &'static [(&'static str, &'static str)],
}

impl Graveyard {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &'static [(&'static str, &'static str)]) -> Self {
        let stack = Stack::start().await;
        let yard = Self { publisher: stack.publisher().await, stack, buried: 0, settings };
        let listed = yard.forebay(&["queues"]).await;
        assert_eq!(listed.code, 0, "{listed:?}");
        yard
    }

    async fn forebay(&self, arguments: &[&str]) -> Finished {
        let mut command = self.stack.program("forebay", self.settings);
        command.args(arguments);
        self.stack.run(command).await
    }

    /// A job that no worker takes until it expires.
    async fn bury(&mut self, key: &str, job: &Job, codec: Codec) {
        let expires = properties(job.id(), codec).with_expiration("1".into());
        self.publisher.publish(key, &job.body(codec), expires.with_reply_to("me".into())).await;
        self.one_more().await;
    }

    /// A job that a consumer refuses when it comes back for another try.
    async fn bury_refused(&mut self, job: &Job) {
        let exchange = "forebay.retry.1s";
        let options = BasicPublishOptions::default();
        let body = job.body(Codec::Json);
        let properties = properties(job.id(), Codec::Json);
        let channel = &self.publisher.channel;
        let sent = channel.basic_publish(exchange.into(), BATCH.into(), options, &body, properties);
        sent.await.expect("publish").await.expect("a confirm");
        let message = until("the job comes back", SOON, async || {
            let get = channel.basic_get(BATCH_QUEUE.into(), BasicGetOptions::default());
            get.await.expect("ask for it")
        })
        .await;
        message.delivery.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
        self.one_more().await;
    }

    /// A message without a usable id, as a worker dead-letters it.
    async fn bury_nameless(&mut self, key: &str, body: &[u8]) {
        let mut headers = FieldTable::default();
        headers.insert("x-forebay-reason".into(), AMQPValue::LongString("it is no map".into()));
        let properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers);
        let options = BasicPublishOptions::default();
        let sent = self.publisher.channel.basic_publish(
            DEAD.into(),
            key.into(),
            options,
            body,
            properties,
        );
        sent.await.expect("publish").await.expect("a confirm");
        self.one_more().await;
    }

    async fn one_more(&mut self) {
        self.buried += 1;
        let lie_there = async || self.ready(DEAD).await == self.buried;
        until_true("the dead letter is in its queue", SOON, lie_there).await;
    }

    /// How many messages wait in a queue, now.
    async fn ready(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let look =
            self.publisher.channel.queue_declare(queue.into(), options, FieldTable::default());
        look.await.expect("the queue is there").message_count()
    }

    async fn dead(&self, arguments: &[&str]) -> Finished {
        self.forebay(&[&["dead"], arguments].concat()).await
    }

    /// The dead letters that are listed with these filters.
    async fn listed(&self, filters: &[&str]) -> Vec<Value> {
        json_lines(&self.dead(&[&["list", "--json"], filters].concat()).await)
    }

    /// Leaves a record at a job's key, as a control plane or a worker would; answers its bytes.
    async fn answer(&self, id: &str, state: &str) -> Vec<u8> {
        let mut record = json!({
            "v": 1, "id": id, "model": MODEL, "task": "embed", "state": state, "worker": "test",
            "attempts": 3, "finished_at_ms": now_ms(),
        });
        if state == "succeeded" {
            record["output"] = json!({"dim": 1, "count": 1, "embeddings": [[1.0]]});
        } else {
            let error = json!({"code": "internal", "message": "it burned", "retryable": true});
            record["error"] = error;
        }
        let bytes = Codec::Json.encode(&record);
        let mut redis = self.stack.redis().await;
        let () = redis.set_ex(result_key(id), &bytes, 600).await.unwrap();
        bytes
    }
}

fn jobs_of(dead_letters: &[Value]) -> Vec<&str> {
    dead_letters.iter().map(|dead_letter| dead_letter["job"].as_str().unwrap_or("-")).collect()
}

#[tokio::test]
async fn dead_letters_are_listed_with_what_they_died_of_and_shown_whole() {
    let mut yard = Graveyard::new().await;
    let first = Job::embed("first words");
    let second = Job::embed("second words");
    yard.bury(BATCH, &first, Codec::Json).await;
    yard.bury(INTERACTIVE, &second, Codec::Msgpack).await;
    yard.bury_nameless(BATCH, b"\xc1 no job").await;

    let dead_letters = yard.listed(&[]).await;
    assert_eq!(jobs_of(&dead_letters), [first.id(), second.id(), "-"]);
    for (dead_letter, lane, reason, codec) in [
        (&dead_letters[0], "batch", "expired", "application/json"),
        (&dead_letters[1], "interactive", "expired", "application/msgpack"),
        (&dead_letters[2], "batch", "unanswerable", "application/msgpack"),
    ] {
        let expected =
            json!({"model": MODEL, "lane": lane, "reason": reason, "content_type": codec});
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&dead_letter[field], value, "{field} in {dead_letter}");
        }
    }
    assert_eq!(dead_letters[0]["queue"], BATCH_QUEUE);
    let died = dead_letters[0]["died_at_ms"].as_u64().expect("the broker says when");
    assert!(died.abs_diff(now_ms()) < 120_000, "{died}");
    assert_eq!(dead_letters[2]["detail"], "it is no map");
    let table = yard.dead(&["list"]).await;
    assert!(table.output.contains(first.id()) && table.output.lines().count() == 4, "{table:?}");

    yard.answer(second.id(), "failed").await;
    let shown = yard.dead(&["show", second.id()]).await;
    for what in ["second words", "x-death", "expired", "it burned", "interactive"] {
        assert!(shown.output.contains(what), "{what}: {shown:?}");
    }
    let shown = json_lines(&yard.dead(&["show", "--json", first.id()]).await);
    assert_eq!(
        (&shown[0]["body"]["input"], &shown[0]["record"]),
        (&json!("first words"), &Value::Null)
    );
    let name = dead_letters[2]["letter"].as_str().unwrap();
    let shown = yard.dead(&["show", name]).await;
    assert!(shown.output.contains("\\xc1 no job") && shown.output.contains("no map"), "{shown:?}");
    let unknown = yard.dead(&["show", "never-heard-of"]).await;
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.errors.contains("never-heard-of"), "{unknown:?}");
    // All this looking has moved nothing.
    assert_eq!(yard.listed(&[]).await, dead_letters);
}

#[tokio::test]
async fn filters_choose_among_the_dead() {
    let mut yard = Graveyard::new().await;
    let one = Job::embed("one");
    let two = Job::embed("two");
    yard.bury(BATCH, &one, Codec::Json).await;
    yard.bury_refused(&two).await;
    yard.bury_nameless("another.interactive", b"garbage").await;
    let first = one.id();
    let second = two.id();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--reason", "expired"], &[first]),
        (&["--reason", "unanswerable"], &["-"]),
        (&["--reason", "rejected"], &[second]),
        (&["--reason", "delivery_limit"], &[]),
        (&["--model", MODEL], &[first, second]),
        (&["--model", "another"], &["-"]),
        (&["--model", "another", "--reason", "expired"], &[]),
        (&["--newer-than", "1h"], &[first, second]),
        (&["--older-than", "1h"], &[]),
        (&[second], &[second]),
        (&["--id", second, "--id", first], &[first, second]),
        (&["--limit", "1"], &[first]),
    ];
    for (filters, expected) in cases {
        // A look at some of them moves these behind the others.
        let dead_letters = yard.listed(filters).await;
        let mut found = jobs_of(&dead_letters);
        found.sort_unstable();
        assert_eq!(found, *expected, "{filters:?}");
    }
    for wrong in ["expird", "retried"] {
        let refused = yard.dead(&["list", "--reason", wrong]).await;
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.errors.contains(wrong) && refused.errors.contains("expired"));
    }
}

#[tokio::test]
async fn only_what_was_chosen_is_dropped_and_a_dry_run_drops_nothing() {
    let mut yard = Graveyard::new().await;
    let job = Job::embed("text");
    yard.bury(BATCH, &job, Codec::Json).await;
    yard.bury_nameless(BATCH, b"garbage").await;
    yard.bury_nameless(BATCH, b"more garbage").await;
    let dead_letters = yard.listed(&[]).await;
    for change in ["drop", "replay"] {
        let refused = yard.dead(&[change, "--limit", "1"]).await;
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.errors.contains("--all"), "{refused:?}");
    }
    let dry = yard.dead(&["drop", "--all", "--dry-run"]).await;
    assert_eq!((dry.code, dry.output.lines().count()), (0, 3), "{dry:?}");
    assert!(dry.output.contains("would be dropped"), "{dry:?}");
    assert_eq!(yard.listed(&[]).await, dead_letters);

    let name = dead_letters[1]["letter"].as_str().unwrap();
    let dropped = json_lines(&yard.dead(&["drop", "--json", name]).await);
    assert_eq!((&dropped[0]["letter"], &dropped[0]["result"]), (&json!(name), &json!("dropped")));
    assert_eq!(yard.listed(&[]).await, [dead_letters[0].clone(), dead_letters[2].clone()]);
    let gone = yard.dead(&["drop", name]).await;
    assert_eq!(gone.code, 1, "{gone:?}");

    let dropped = yard.dead(&["drop", "--reason", "unanswerable"]).await;
    assert_eq!(dropped.code, 0, "{dropped:?}");
    assert!(dropped.errors.contains("1 dead letter dropped"), "{dropped:?}");
    assert_eq!(jobs_of(&yard.listed(&[]).await), [job.id()]);
    assert_eq!(yard.dead(&["drop", "--all"]).await.code, 0);
    let none = yard.dead(&["drop", "--all"]).await;
    assert_eq!((none.code, none.output.as_str()), (0, ""), "{none:?}");
}

#[tokio::test]
async fn a_replayed_job_starts_again_and_gets_a_fresh_record() {
    let mut yard = Graveyard::new().await;
    let failed = Job::embed("failed");
    let unanswered = Job::embed("unanswered");
    for job in [&failed, &unanswered] {
        yard.bury(BATCH, job, Codec::Msgpack).await;
    }
    let before = yard.answer(failed.id(), "failed").await;
    let mut redis = yard.stack.redis().await;
    let suspicion = format!("forebay:suspect:{}", failed.id());
    let () = redis.sadd(&suspicion, "a worker that died").await.unwrap();

    let dry = yard.dead(&["replay", "--all", "--dry-run"]).await;
    assert_eq!((dry.code, dry.output.matches("would be replayed").count()), (0, 2), "{dry:?}");
    assert_eq!(find(&mut redis, failed.id()).await.unwrap().raw, before);
    assert_eq!(yard.listed(&[]).await.len(), 2);

    let replayed = yard.dead(&["replay", "--reason", "expired", "--model", MODEL]).await;
    assert_eq!((replayed.code, replayed.output.lines().count()), (0, 2), "{replayed:?}");
    assert!(replayed.errors.contains("2 dead letters replayed"), "{replayed:?}");
    assert!(find(&mut redis, failed.id()).await.is_none());
    assert!(!redis.exists::<_, bool>(&suspicion).await.unwrap());
    assert!(yard.listed(&[]).await.is_empty());

    let _worker = yard.stack.worker(&[]).await;
    for job in [&failed, &unanswered] {
        let record = result(&mut redis, job.id()).await;
        assert_eq!((record.state(), record.count("/attempts")), ("succeeded", 1));
    }
}

#[tokio::test]
async fn a_replayed_message_keeps_its_properties_and_none_of_its_past() {
    let mut yard = Graveyard::new().await;
    let job = Job::embed("text");
    yard.bury(INTERACTIVE, &job, Codec::Json).await;
    // Looking at it makes the broker count.
    yard.listed(&[]).await;
    assert_eq!(yard.dead(&["replay", job.id()]).await.code, 0);
    let queue = "forebay.jobs.all-minilm-l6-v2.interactive";
    let got = yard.publisher.channel.basic_get(queue.into(), BasicGetOptions::default());
    let message = got.await.unwrap().expect("the job in the queue that it came from").delivery;
    assert_eq!(message.data, job.body(Codec::Json));
    // RabbitMQ 3.10 counts deliveries from 0 on, later versions from the second one.
    let mut counted = FieldTable::default();
    counted.insert("x-delivery-count".into(), AMQPValue::LongLongInt(0));
    let headers = message.properties.headers().clone().unwrap_or_default();
    assert!(headers == FieldTable::default() || headers == counted, "{headers:?}");
    let expected = properties(job.id(), Codec::Json).with_reply_to("me".into());
    assert_eq!(message.properties.with_headers(counted.clone()), expected.with_headers(counted));
}

#[tokio::test]
async fn what_would_not_be_helped_by_a_replay_is_left_with_a_word() {
    let mut yard = Graveyard::new().await;
    let done = Job::embed("done");
    let late =
        Job::embed("late").with("submitted_at_ms", now_ms() - 60_000).with("expires_in_ms", 1_000);
    let strange = Job::embed("strange");
    for job in [&done, &late, &strange] {
        yard.bury(BATCH, job, Codec::Json).await;
    }
    yard.bury_nameless(BATCH, b"garbage").await;
    yard.bury_nameless("no-such-model", &Job::embed("lost").body(Codec::Json)).await;
    let success = yard.answer(done.id(), "succeeded").await;
    let failure = yard.answer(late.id(), "failed").await;
    let mut redis = yard.stack.redis().await;
    let () = redis.set_ex(result_key(strange.id()), "not ours", 600).await.unwrap();
    let dead_letters = yard.listed(&[]).await;

    for arguments in [&["replay", "--all", "--dry-run"][..], &["replay", "--all"]] {
        let left = yard.dead(arguments).await;
        assert_eq!(left.code, 1, "{left:?}");
        assert!(left.errors.contains("5 left"), "{left:?}");
        let words = ["succeeded", "submit it again", "no result", "names no job", "no queue"];
        for (line, word) in left.output.lines().zip(words) {
            assert!(line.contains(word), "{word}: {left:?}");
        }
        assert_eq!(yard.listed(&[]).await, dead_letters);
    }
    assert_eq!(find(&mut redis, done.id()).await.unwrap().raw, success);
    assert_eq!(find(&mut redis, late.id()).await.unwrap().raw, failure);
    assert_eq!(yard.ready(BATCH_QUEUE).await, 0);
}

#[tokio::test]
async fn a_replay_into_a_full_queue_fails_and_leaves_dead_letter_and_record() {
    let mut yard = Graveyard::with(&[("FOREBAY_QUEUES__LENGTH_MAX", "5")]).await;
    let job = Job::embed("text");
    yard.bury(BATCH, &job, Codec::Json).await;
    let record = yard.answer(job.id(), "failed").await;
    // What is published at once comes in at once; from then on the queue is full.
    let texts = ["1", "2", "3", "4", "5", "6", "7", "8"];
    yard.forebay(&[&["submit", "--when-full", "fail", "--model", MODEL][..], &texts].concat())
        .await;

    let refused = yard.dead(&["replay", job.id()]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.errors.contains("full"), "{refused:?}");
    let mut redis = yard.stack.redis().await;
    assert_eq!(find(&mut redis, job.id()).await.unwrap().raw, record);
    let ttl: i64 = redis.ttl(result_key(job.id())).await.unwrap();
    assert!((1..=600).contains(&ttl), "{ttl}");
    assert_eq!(jobs_of(&yard.listed(&[]).await), [job.id()]);
}
