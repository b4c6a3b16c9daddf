//! The permissions that the threat model lists: each program works with them, and none can do much more.

use std::fs;

use forebay_tests::MODEL;
use forebay_tests::binaries::checkout;
use forebay_tests::gateway::{Gateway, events, until_closed};
use forebay_tests::generator::{self, GENERATOR};
use forebay_tests::job::{Codec, Job};
use forebay_tests::patience::{PATIENT, SOON, until, until_true};
use forebay_tests::probe;
use forebay_tests::publisher::{BATCH, INTERACTIVE, Publisher};
use forebay_tests::record::{Record, result_key};
use forebay_tests::stack::Stack;
use lapin::options::{BasicConsumeOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use redis::AsyncCommands as _;
use serde_json::json;

use super::gateway_text::posting;

const PASSWORD: &str = "a-password";

/// Servers that know the users of the page with their rights, and no other users.
struct Strict {
    stack: Stack,
}

impl Strict {
    async fn start() -> Self {
        let strict = Self { stack: Stack::start().await };
        let page = fs::read_to_string(checkout().join("docs/threat-model.md")).unwrap();
        let mut users = 0;
        let mut redis = strict.stack.redis().await;
        for line in page.lines() {
            if let Some(rights) = line.strip_prefix("rabbitmqctl set_permissions -p VHOST ") {
                strict.admit(rights);
                users += 1;
            }
            if let Some(rule) = line.strip_prefix("ACL ") {
                let rule = rule.replace("PASSWORD", PASSWORD);
                let mut acl = redis::cmd("ACL");
                let () = acl
                    .arg(rule.split(' ').collect::<Vec<_>>())
                    .query_async(&mut redis)
                    .await
                    .unwrap();
                users += usize::from(line.contains(" >PASSWORD "));
            }
        }
        assert_eq!(users, 11, "the page names other users than this test knows");
        strict
    }

    fn admit(&self, rights: &str) {
        let (user, patterns) = rights.split_once(' ').unwrap();
        let patterns: Vec<&str> = patterns.split('\'').skip(1).step_by(2).collect();
        let [configure, write, read] = patterns[..] else { panic!("no three rights: {rights}") };
        let vhost = self.stack.vhost.amqp_url();
        let vhost = vhost.rsplit('/').next().unwrap();
        let base = self.stack.vhost.management_url().replace("guest:guest@", "");
        for (path, body) in [
            (format!("users/{user}"), json!({"password": PASSWORD, "tags": "management"})),
            (
                format!("permissions/{vhost}/{user}"),
                json!({"configure": configure, "write": write, "read": read}),
            ),
        ] {
            let put = probe::agent().put(format!("{base}/api/{path}"));
            let put = put.header("authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=");
            let answer = put.send_json(body).unwrap();
            assert!(answer.status().is_success(), "{path}: {answer:?}");
        }
    }

    /// The addresses as one user: of the broker, of the store, of the management API.
    fn addresses(&self, user: &str) -> [(&'static str, String); 3] {
        let login = format!("{user}:{PASSWORD}");
        let broker = |url: String| url.replace("guest:guest", &login);
        [
            ("FOREBAY_AMQP_URL", broker(self.stack.vhost.amqp_url())),
            ("FOREBAY_REDIS_URL", self.store(user)),
            ("FOREBAY_MANAGEMENT_URL", broker(self.stack.vhost.management_url())),
        ]
    }

    fn store(&self, user: &str) -> String {
        self.stack.store.url().replace("://", &format!("://{user}:{PASSWORD}@"))
    }
}

/// The environment of a program that runs as one user.
fn overrides<'a>(addresses: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    addresses.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// Vectors come through a gateway; text comes by a token stream, through it and to a command.
async fn vectors_and_texts_come(strict: &Strict, gateway: &Gateway, key: &str) {
    let bearer = format!("Bearer {key}");
    let body = json!({"model": MODEL, "input": "a text"});
    let answer = gateway.post_with("/v1/embeddings", &body, &[("authorization", &bearer)]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let client = strict.addresses("forebay-client");
    let mut command = strict.stack.program("forebay", &overrides(&client));
    command.args(["chat", "--model", GENERATOR, "--max-tokens", "100", "Name the planets."]);
    let finished = strict.stack.run(command).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    let body = json!({"model": GENERATOR, "prompt": "A river", "max_tokens": 100, "stream": true});
    let mut stream = posting(gateway, "/v1/completions", &body, key).await;
    let chunks = events(&until_closed(&mut stream, PATIENT).await);
    assert!(chunks.len() > 3 && chunks.last().unwrap() == "[DONE]", "{chunks:?}");
}

#[tokio::test]
async fn every_program_works_with_the_permissions_that_are_listed_for_it() {
    let strict = Strict::start().await;
    let [worker, autoscaler, client] = ["forebay-worker", "forebay-autoscaler", "forebay-client"]
        .map(|user| strict.addresses(user));
    let generator = generator::worker(&strict.stack, &overrides(&worker)).await;
    let worker = strict.stack.worker(&overrides(&worker)).await;
    let autoscaler = strict.stack.autoscaler(&overrides(&autoscaler)).await;
    let cancelled = Job::embed("");
    for arguments in [
        &["submit", "--wait", "--model", MODEL, "a text"][..],
        &["queues"],
        &["workers"],
        &["models"],
        &["top", "--once"],
        &["cancel", cancelled.id()],
    ] {
        let mut command = strict.stack.program("forebay", &overrides(&client));
        command.args(arguments);
        let finished = strict.stack.run(command).await;
        assert_eq!(finished.code, 0, "{arguments:?}: {finished:?}");
        let said = [finished.output.as_str(), &finished.errors].concat();
        assert!(!said.contains("management API") && !said.contains("NOPERM"), "{finished:?}");
    }
    let admin = [("FOREBAY_REDIS_URL", strict.store("forebay-admin"))];
    let mut key = String::new();
    for arguments in [
        &["tenants", "create", "acme", "--tokens-per-minute", "100000"][..],
        &["tenants", "set-limits", "acme", "--in-flight", "4"],
        &["keys", "list"],
        &["usage"],
        &["keys", "create", "--tenant", "acme"],
    ] {
        let mut command = strict.stack.program("forebay", &overrides(&admin));
        command.args(arguments);
        let finished = strict.stack.run(command).await;
        assert_eq!(finished.code, 0, "{arguments:?}: {finished:?}");
        key = finished.output.trim().to_owned();
    }
    let addresses = strict.addresses("forebay-gateway");
    let gateway = Gateway::of(&strict.stack, &overrides(&addresses)).await;
    vectors_and_texts_come(&strict, &gateway, &key).await;
    let mut command = strict.stack.program("forebay", &overrides(&admin));
    command.args(["tenants", "delete", "acme"]);
    assert_eq!(strict.stack.run(command).await.code, 0);
    let publisher = Publisher::connect(&strict.addresses("publisher")[0].1).await;
    let good = Job::embed("text").with("notify", "anywhere");
    let jobs = [good, cancelled, Job::embed(7), Job::embed("text").with("model", "none")];
    let keys = [BATCH, INTERACTIVE, BATCH, "none"];
    let states = ["succeeded", "cancelled", "failed", "failed"];
    let reader = redis::Client::open(strict.store("reader")).unwrap();
    let mut reader = reader.get_multiplexed_async_connection().await.unwrap();
    for ((job, key), state) in jobs.iter().zip(keys).zip(states) {
        publisher.submit(key, job, Codec::Json).await;
        let record = until("a result", SOON, async || {
            let raw: Option<Vec<u8>> = reader.get(result_key(job.id())).await.unwrap();
            raw.map(|raw| Record::decode(&raw))
        })
        .await;
        assert_eq!(record.state(), state, "{}", record.fields);
    }
    let leads =
        async || autoscaler.get("/status").is_some_and(|(_, body)| body.contains("\"leads\":true"));
    until_true("the autoscaler leads", SOON, leads).await;
    for service in [&worker, &generator, &autoscaler, &gateway.service] {
        let log = service.log();
        assert!(!log.contains("NOPERM") && !log.contains("ACCESS_REFUSED"), "{log}");
    }
}

#[tokio::test]
async fn publishers_and_readers_can_do_nothing_else() {
    let strict = Strict::start().await;
    assert_eq!(strict.stack.forebay(&["queues"]).await.code, 0, "the topology is declared");
    let queue = format!("forebay.jobs.{MODEL}.batch");
    let options = QueueDeclareOptions::durable();
    for attempt in 0..3 {
        // The broker closes the channel at the first thing that is not allowed.
        let channel = Publisher::connect(&strict.addresses("publisher")[0].1).await.channel;
        let none = FieldTable::default;
        let refused = match attempt {
            0 => channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.err(),
            1 => {
                let consume = BasicConsumeOptions::default();
                channel.basic_consume(queue.as_str().into(), "".into(), consume, none()).await.err()
            }
            _ => channel.queue_declare("forebay.mine".into(), options, none()).await.err(),
        };
        let refused = refused.expect("refused").to_string();
        assert!(refused.contains("ACCESS_REFUSED"), "{attempt}: {refused}");
    }
    for (user, command, key) in [
        ("reader", "SET", "forebay:result:x"),
        ("reader", "GET", "forebay:cancel:x"),
        ("forebay-client", "SET", "forebay:result:x"),
        ("forebay-client", "DEL", "forebay:result:x"),
        ("forebay-worker", "GET", "forebay:result:x"),
        ("forebay-autoscaler", "SET", "forebay:worker:x"),
    ] {
        let client = redis::Client::open(strict.store(user)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut tried = redis::cmd(command);
        tried.arg(key);
        if command == "SET" {
            tried.arg("value");
        }
        let refused =
            tried.query_async::<redis::Value>(&mut connection).await.expect_err("refused");
        assert_eq!(refused.code(), Some("NOPERM"), "{user} {command} {key}: {refused}");
    }
}
