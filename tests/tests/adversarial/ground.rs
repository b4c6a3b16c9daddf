//! A gateway with two tenants and a worker, and what is measured of it after each attack.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use std::{env, fs};

use forebay_tests::gateway::Gateway;
use forebay_tests::model::TINY;
use forebay_tests::patience::until_true;
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use redis::AsyncCommands as _;
use serde_json::{Value, json};

use super::raw::Seen;

/// How long after an attack everything may take to be as before: the longest wait of the gateway, and the leases.
const REST: Duration = Duration::from_secs(60);
/// Connections to Redis that stay once there was load: two pools of `store.connections_max`, which is 8.
const DESCRIPTORS_SLACK: usize = 16;
/// Work that makes a gateway allocate all that it allocates once.
const USUAL_REQUESTS: usize = 300;

/// The gateway under attack.
pub(super) struct Ground {
    pub(super) gateway: Gateway,
    pub(super) stack: Stack,
    pub(super) worker: Option<Service>,
    /// The values of `Authorization` of two tenants.
    pub(super) keys: [String; 2],
    /// How many long polls there are at once.
    pub(super) polls: usize,
    descriptors: usize,
}

/// The answers to one attack.
#[derive(Debug, Default)]
pub(super) struct Tally {
    by_status: BTreeMap<u16, usize>,
    silent: usize,
}

impl Tally {
    pub(super) fn count(&mut self, seen: &Seen) {
        self.silent += usize::from(seen.statuses.is_empty());
        seen.statuses.iter().for_each(|status| self.status(*status));
    }

    pub(super) fn status(&mut self, status: u16) {
        *self.by_status.entry(status).or_default() += 1;
    }
}

impl Ground {
    pub(super) async fn start() -> Self {
        let polls = env::var("FOREBAY_ADVERSARIAL_POLLS");
        let polls = polls.map_or(300, |polls| polls.parse().expect("a number"));
        let stack = Stack::start().await.tiny();
        let worker = Some(stack.worker(&[]).await);
        let mut keys = Vec::new();
        for tenant in ["acme", "other"] {
            let limits = ["--in-flight", "5000", "--requests-per-minute", "1000000"];
            let create = [&["tenants", "create", tenant][..], &limits].concat();
            assert_eq!(stack.forebay(&create).await.code, 0);
            let created = stack.forebay(&["keys", "create", "--tenant", tenant, "--json"]).await;
            let created: Value = serde_json::from_str(created.output.trim()).expect("a key");
            keys.push(format!("Bearer {}", created["key"].as_str().unwrap()));
        }
        // Waits are short, so that the run is; room is made for the polls and the streams beside them.
        let connections_max = (polls * 5 / 4 + 500).to_string();
        let settings = [
            ("FOREBAY_GATEWAY__CONNECTIONS_MAX", connections_max.as_str()),
            ("FOREBAY_GATEWAY__HEADER_WAIT_MS_MAX", "3000"),
            ("FOREBAY_GATEWAY__BODY_WAIT_MS_MAX", "3000"),
            ("FOREBAY_GATEWAY__ANSWER_WAIT_MS_MAX", "3000"),
            ("FOREBAY_GATEWAY__IDLE_WAIT_MS_MAX", "5000"),
            ("FOREBAY_GATEWAY__REQUEST_WAIT_MS_MAX", "60000"),
        ];
        let gateway = Gateway::of(&stack, &settings).await;
        let keys = keys.try_into().expect("two keys");
        let ground = Self { gateway, stack, worker, keys, polls, descriptors: 0 };
        println!(
            "\n{:<34} {:>8} {:>9} {:>9} {:>6}  statuses",
            "attack", "seconds", "kB", "peak kB", "files"
        );
        ground.show("idle", 0.0, &Tally::default());
        ground
    }

    /// The key of the first tenant, as a header.
    pub(super) fn key(&self) -> (&'static str, &str) {
        ("authorization", &self.keys[0])
    }

    /// Requests as clients make them; what is open and allocated afterwards is the measure of what attacks leave.
    pub(super) fn usual_work(&mut self) {
        let began = Instant::now();
        let mut tally = Tally::default();
        for n in 0..USUAL_REQUESTS {
            let body = json!({"model": TINY, "input": [format!("text {n}"), "another"]});
            let answer = self.gateway.post_with("/v1/embeddings", &body, &[self.key()]);
            assert_eq!(answer.status, 200, "{answer:?}");
            tally.status(answer.status);
        }
        self.show("usual work", began.elapsed().as_secs_f64(), &tally);
        self.descriptors = self.open_files();
    }

    /// Waits until all that an attack took is back, and reports it.
    pub(super) async fn after(&mut self, attack: &str, began: Instant, tally: &Tally) {
        self.is_at_rest(attack).await;
        self.show(attack, began.elapsed().as_secs_f64(), tally);
        let faults: Vec<_> = tally.by_status.iter().filter(|(status, _)| **status >= 500).collect();
        assert!(faults.is_empty(), "{attack}: the gateway failed: {faults:?}");
        let answer = self.gateway.get_with("/v1/models", &[self.key()]);
        assert_eq!(answer.status, 200, "{attack}: it does not serve any more: {answer:?}");
    }

    async fn is_at_rest(&mut self, attack: &str) {
        let most = self.descriptors + DESCRIPTORS_SLACK;
        let what =
            format!("{attack}: at most {most} files are open, as before ({})", self.open_files());
        until_true(&what, REST, async || self.open_files() <= most).await;
        let redis = self.stack.redis().await;
        for tenant in ["acme", "other"] {
            for part in ["in_flight", "waiting"] {
                let key = format!("forebay:limits:{{{tenant}}}:{part}");
                until_true(&format!("{attack}: {key} is empty"), REST, async || {
                    let left: usize = redis.clone().zcard(&key).await.unwrap();
                    left == 0
                })
                .await;
            }
        }
        let depths = async || {
            let depths = self.stack.vhost.depths().unwrap_or_default();
            self.worker.is_none() || depths.iter().all(|(_, depth)| *depth == 0)
        };
        until_true(&format!("{attack}: no job is left"), REST, depths).await;
    }

    /// At the end the memory is near what usual work takes, and the log has no panic.
    pub(super) async fn at_the_end(&mut self) {
        self.is_at_rest("the end").await;
        self.show("the end", 0.0, &Tally::default());
        let log = self.gateway.service.log();
        assert!(!log.contains("panicked"), "{log}");
        self.gateway.service.signal("TERM");
        assert_eq!(self.gateway.service.exit_code(REST).await, 0);
    }

    /// Reports the memory and descriptors of now.
    pub(super) fn show(&self, attack: &str, seconds: f64, tally: &Tally) {
        let now = self.resident_kb("VmRSS");
        let peak = self.resident_kb("VmHWM");
        let files = self.open_files();
        let statuses = tally.by_status.iter().map(|(status, count)| format!("{status}: {count}"));
        let silent = (tally.silent > 0).then(|| format!("closed: {}", tally.silent));
        let statuses: Vec<String> = statuses.chain(silent).collect();
        println!(
            "{attack:<34} {seconds:>8.1} {now:>9} {peak:>9} {files:>6}  {}",
            statuses.join(", ")
        );
    }

    pub(super) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.gateway.service.pid())).expect("it runs").count()
    }

    pub(super) fn resident_kb(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.gateway.service.pid()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a size");
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
    }
}
