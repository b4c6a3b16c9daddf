//! Passwords: one goes into every address, a whole session is run with it, and then it is looked for in
//! everything that came out.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use forebay_tests::MODEL;
use forebay_tests::binaries::binary;
use forebay_tests::job::{Codec, Job};
use forebay_tests::patience::{PATIENT, SOON, until, until_true};
use forebay_tests::ports::free_port;
use forebay_tests::probe;
use forebay_tests::publisher::{BATCH, Publisher};
use forebay_tests::record::result;
use forebay_tests::service::Service;
use forebay_tests::stack::{Finished, Stack};
use lapin::BasicProperties;
use lapin::options::BasicGetOptions;
use redis::AsyncCommands as _;
use serde_json::json;

/// With characters that have to be percent-encoded in an address.
const CANARY: &str = "c4nary/bird?at:dawn";
const ESCAPED: &str = "c4nary%2Fbird%3Fat%3Adawn";
/// The part that all its forms contain: this alone is looked for, so that half a password is found too.
const RECOGNISED: [&str; 3] = ["c4nary", "bird%3F", "bird?at"];
const USER: &str = "canary-user";

/// Everything that came out, each piece with where it came from.
#[derive(Default)]
struct Heard {
    pieces: Vec<(String, String)>,
}

impl Heard {
    fn add(&mut self, from: impl Into<String>, text: impl Into<String>) {
        self.pieces.push((from.into(), text.into()));
    }

    fn finished(&mut self, what: &str, finished: &Finished) {
        self.add(format!("{what}: output"), &finished.output);
        self.add(format!("{what}: errors"), &finished.errors);
    }

    /// All that a running service shows, from outside and to the system.
    fn service(&mut self, name: &str, service: &Service) {
        self.add(format!("{name}: log"), service.log());
        for path in ["/metrics", "/readyz", "/healthz"] {
            let (_, body) = service.get(path).unwrap_or_default();
            self.add(format!("{name}: {path}"), body);
        }
        for file in ["cmdline", "comm", "status"] {
            let path = format!("/proc/{}/{file}", service.pid());
            let shown = fs::read(&path).unwrap_or_default();
            self.add(format!("{name}: {path}"), String::from_utf8_lossy(&shown));
        }
    }

    fn assert_no_canary(&self) {
        let encoded = base64_forms();
        let mut leaks = String::new();
        for (from, text) in &self.pieces {
            let plain = RECOGNISED.iter().map(ToString::to_string);
            for form in plain.chain(encoded.iter().cloned()) {
                if let Some(line) = text.lines().find(|line| line.contains(&form)) {
                    writeln!(leaks, "{from} has {form}: {line:.300}").unwrap();
                }
            }
        }
        assert!(leaks.is_empty(), "{leaks}");
    }
}

/// The middle of the password in base64, wherever in the encoded text it begins.
fn base64_forms() -> Vec<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..3)
        .map(|skipped| {
            let whole = &CANARY.as_bytes()[skipped..skipped + 9];
            let groups = whole.chunks(3).map(|three| {
                let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
                [18, 12, 6, 0].map(|shift| char::from(ALPHABET[bits >> shift & 63]))
            });
            groups.flatten().collect()
        })
        .collect()
}

/// A stack whose broker and store know the password, and addresses with it.
struct Guarded {
    stack: Stack,
    amqp: String,
    redis: String,
    management: String,
}

impl Guarded {
    async fn start() -> Self {
        let stack = Stack::start().await;
        let with_login = |url: String, login: &str| match url.split_once("guest:guest@") {
            Some((scheme, host)) => format!("{scheme}{login}@{host}"),
            None => url.replace("://", &format!("://{login}@")),
        };
        let login = format!("{USER}:{ESCAPED}");
        let guarded = Self {
            amqp: with_login(stack.vhost.amqp_url(), &login),
            redis: with_login(stack.store.url(), &login),
            management: with_login(stack.vhost.management_url(), &login),
            stack,
        };
        guarded.admit_to_broker();
        let mut redis = guarded.stack.redis().await;
        let mut rule = redis::cmd("ACL");
        rule.arg(&["SETUSER", USER, "on", "~*", "&*", "+@all"]).arg(format!(">{CANARY}"));
        let () = rule.query_async(&mut redis).await.unwrap();
        guarded
    }

    fn admit_to_broker(&self) {
        let vhost = self.amqp.rsplit('/').next().unwrap();
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        for (path, body) in [
            (format!("users/{USER}"), json!({"password": CANARY, "tags": "administrator"})),
            (format!("permissions/{vhost}/{USER}"), all),
        ] {
            let base = self.stack.vhost.management_url().replace("guest:guest@", "");
            let put = probe::agent().put(format!("{base}/api/{path}"));
            let answer =
                put.header("authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=").send_json(body).unwrap();
            assert!(answer.status().is_success(), "{path}: {answer:?}");
        }
    }

    /// The addresses, with everything logged that there is to log.
    fn overrides(&self) -> Vec<(&str, &str)> {
        vec![
            ("FOREBAY_AMQP_URL", &self.amqp),
            ("FOREBAY_REDIS_URL", &self.redis),
            ("FOREBAY_MANAGEMENT_URL", &self.management),
            ("FOREBAY_TELEMETRY__LOG_FILTER", "trace"),
            ("FOREBAY_BROKER__CONNECT_TIMEOUT_MS", "2000"),
        ]
    }

    async fn run(&self, program: &str, changed: &[(&str, &str)], arguments: &[&str]) -> Finished {
        let mut command = self.stack.program(program, &[&self.overrides(), changed].concat());
        command.args(arguments);
        self.stack.run(command).await
    }
}

#[tokio::test]
async fn a_password_comes_out_nowhere_while_all_goes_well() {
    let guarded = Guarded::start().await;
    let mut heard = Heard::default();
    let worker = guarded.stack.worker(&guarded.overrides()).await;
    let autoscaler = guarded.stack.autoscaler(&guarded.overrides()).await;
    let submit = ["--verbose", "submit", "--json", "--wait", "--model", MODEL, "a text"];
    for arguments in [
        &submit[..],
        &["--verbose", "queues"],
        &["--verbose", "workers", "--json"],
        &["--verbose", "models"],
        &["--print-config"],
    ] {
        let finished = guarded.run("forebay", &[], arguments).await;
        assert_eq!(finished.code, 0, "{finished:?}");
        assert!(!finished.errors.contains("management API"), "{finished:?}");
        heard.finished(&arguments.join(" "), &finished);
    }
    for program in ["forebay-worker", "forebay-autoscaler"] {
        heard.finished(program, &guarded.run(program, &[], &["--print-config"]).await);
    }
    hear_of_failures(&guarded, &mut heard).await;
    hear_of_keys(&guarded, &mut heard).await;
    heard.service("worker", &worker);
    heard.service("autoscaler", &autoscaler);
    assert!(worker.log().contains("TRACE"), "nothing was traced");
    heard.assert_no_canary();
}

/// A job that fails, one of an unknown model, and one that becomes a dead letter.
async fn hear_of_failures(guarded: &Guarded, heard: &mut Heard) {
    let publisher = Publisher::connect(&guarded.amqp).await;
    let mut redis = guarded.stack.redis().await;
    for (key, job) in [(BATCH, Job::embed(7)), ("none", Job::embed("text").with("model", "none"))] {
        publisher.submit(key, &job, Codec::Json).await;
        heard.add("result", result(&mut redis, job.id()).await.fields.to_string());
    }
    publisher.publish(BATCH, b"\xc1", BasicProperties::default()).await;
    let delivery = until("a dead letter", SOON, async || {
        let get = publisher.channel.basic_get("forebay.dead".into(), BasicGetOptions::default());
        get.await.unwrap().map(|got| got.delivery)
    })
    .await;
    heard.add("dead letter", format!("{:?}", delivery.properties));
}

/// All that is in Redis: results, registry records, requests.
async fn hear_of_keys(guarded: &Guarded, heard: &mut Heard) {
    let mut redis = guarded.stack.redis().await;
    let keys: Vec<String> = redis.keys("*").await.unwrap();
    assert!(keys.iter().any(|key| key.starts_with("forebay:worker:")), "{keys:?}");
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut redis).await.unwrap();
        let said = match kind.as_str() {
            "hash" => redis.hgetall::<_, Vec<String>>(&key).await.unwrap().join(" "),
            "set" => redis.smembers::<_, Vec<String>>(&key).await.unwrap().join(" "),
            "stream" => {
                let mut range = redis::cmd("XRANGE");
                range.arg(&key).arg("-").arg("+");
                format!("{:?}", range.query_async::<redis::Value>(&mut redis).await.unwrap())
            }
            "zset" => redis.zrange::<_, Vec<String>>(&key, 0, -1).await.unwrap().join(" "),
            _ => String::from_utf8_lossy(&redis.get::<_, Vec<u8>>(&key).await.unwrap()).into(),
        };
        heard.add(key, said);
    }
}

#[tokio::test]
async fn a_password_comes_out_nowhere_while_nothing_works() {
    let guarded = Guarded::start().await;
    let mut heard = Heard::default();
    let nowhere = free_port();
    let [amqp, redis, management] = ["amqp", "redis", "http"]
        .map(|scheme| format!("{scheme}://{USER}:{ESCAPED}@127.0.0.1:{nowhere}"));
    let stranger = |url: &str| url.replace(USER, "stranger");
    let amqp_refused = stranger(&guarded.amqp);
    let redis_refused = stranger(&guarded.redis);
    let management_refused = stranger(&guarded.management);
    let unescaped = format!("amqp://{USER}:{CANARY}@127.0.0.1/x");
    let unescaped_redis = format!("redis://{USER}:{CANARY}@127.0.0.1/x");
    let no_host = format!("amqp://{USER}:{ESCAPED}");
    let cases: [&[(&str, &str)]; 8] = [
        &[("FOREBAY_AMQP_URL", &amqp)],
        &[("FOREBAY_AMQP_URL", &amqp_refused)],
        &[("FOREBAY_AMQP_URL", &unescaped)],
        &[("FOREBAY_AMQP_URL", &no_host)],
        &[("FOREBAY_REDIS_URL", &redis)],
        &[("FOREBAY_REDIS_URL", &redis_refused)],
        &[("FOREBAY_REDIS_URL", &unescaped_redis)],
        &[("FOREBAY_MANAGEMENT_URL", &management_refused), ("FOREBAY_GATEWAY_URL", &management)],
    ];
    for case in cases {
        for arguments in [
            &["--verbose", "queues"][..],
            &["--verbose", "submit", "--wait", "--timeout", "1s", "--model", MODEL, "text"],
            &["--print-config"],
        ] {
            let finished = guarded.run("forebay", case, arguments).await;
            heard.finished(&format!("{case:?} {}", arguments.join(" ")), &finished);
        }
        hear_of_worker(&guarded, case, &mut heard).await;
    }
    let broken = guarded.stack.store.folder().join("broken.toml");
    fs::write(&broken, format!("amqp_url = {amqp}\nredis_url = \"{redis}\n")).unwrap();
    let mut command = Command::new(binary("forebay"));
    guarded.stack.address(&mut command);
    command.arg("--config").arg(&broken).arg("queues");
    let finished = guarded.stack.run(command).await;
    assert_eq!(finished.code, 2, "{finished:?}");
    heard.finished("a broken file", &finished);
    heard.assert_no_canary();
}

/// A worker as it tries: until it ends by itself, or has said why it is not ready.
async fn hear_of_worker(guarded: &Guarded, changed: &[(&str, &str)], heard: &mut Heard) {
    let mut worker = guarded.stack.starting_worker(&[&guarded.overrides(), changed].concat());
    until_true("the worker has tried", PATIENT, async || {
        let report = worker.get("/readyz").map(|(_, report)| report).unwrap_or_default();
        let tried = ["can't reach", "failed", "refuses"].iter().any(|word| report.contains(word));
        tried || report.contains("\"ready\":true") || !worker.is_running()
    })
    .await;
    heard.service(&format!("worker with {changed:?}"), &worker);
}

#[test]
fn the_password_is_recognised_in_all_its_forms() {
    // `c4nary-user:`, `x:` and `yy` before the password, each in base64 as other programs write it.
    for leaked in [
        "amqp://u:c4nary%2Fbird",
        "YzRuYXJ5LXVzZXI6YzRuYXJ5L2JpcmQ/YXQ6ZGF3bg==",
        "eDpjNG5hcnkvYmlyZD9hdDpkYXdu",
        "eXljNG5hcnkvYmlyZD9hdDpkYXdu",
        "eXl5eWM0bmFyeS9iaXJkP2F0OmRhd24=",
    ] {
        let mut heard = Heard::default();
        heard.add("somewhere", format!("a line\nwith {leaked} in it"));
        assert!(std::panic::catch_unwind(|| heard.assert_no_canary()).is_err(), "{leaked}");
    }
}
