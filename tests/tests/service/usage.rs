//! Metering: every job that has a record is on the bill, once, whichever program was killed meanwhile.

use std::fs;
use std::process::Command;

use forebay_tests::gateway::Gateway;
use forebay_tests::job::{Codec, Job};
use forebay_tests::model::TINY;
use forebay_tests::patience::{PATIENT, SOON, until, until_true};
use forebay_tests::pools::metric;
use forebay_tests::record::Record;
use forebay_tests::stack::Stack;
use forebay_tests::workload::{SMALL_BATCHES, Workload};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use super::commands::json_lines;
use super::python::interpreter;

/// Units of 1e-9 that a token costs in these tests: 0.02 for a million.
const PER_TOKEN: u64 = 20;

/// Gives the tiny model its price.
fn priced(stack: &Stack) {
    let text = fs::read_to_string(stack.config()).unwrap();
    stack.write_config(&format!("{text}\n[models.{TINY}.price]\ninput_per_million = \"0.02\"\n"));
}

/// Jobs, tokens, device time and money.
type Totals = [u64; 4];

/// The sum of all records in Redis.
async fn recorded(redis: &mut MultiplexedConnection) -> Totals {
    let keys: Vec<String> = redis.keys("forebay:result:*").await.unwrap();
    let mut totals = [0; 4];
    for key in keys {
        let raw: Vec<u8> = redis.get(&key).await.unwrap();
        let record = Record::decode(&raw);
        assert_eq!(record.state(), "succeeded", "{}", record.fields);
        let tokens = record.count("/usage/input_tokens");
        let part = [1, tokens, record.count("/usage/device_us"), tokens * PER_TOKEN];
        totals = std::array::from_fn(|n| totals[n] + part[n]);
    }
    totals
}

/// The answer of `forebay usage`, by a property.
async fn used(stack: &Stack, by: &str) -> Vec<Value> {
    json_lines(&stack.forebay(&["usage", "--by", by, "--json"]).await)
}

fn totals(rows: &[Value]) -> Totals {
    let count = |row: &Value, name: &str| row[name].as_u64().unwrap();
    rows.iter().fold([0; 4], |sums, row| {
        let part = [
            count(row, "jobs"),
            count(row, "input_tokens"),
            count(row, "device_us"),
            nanos(row["cost"].as_str().expect("a price")),
        ];
        std::array::from_fn(|n| sums[n] + part[n])
    })
}

/// A decimal in units of 1e-9.
fn nanos(decimal: &str) -> u64 {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    format!("{whole}{fraction:0<9}").parse().unwrap()
}

#[tokio::test]
async fn usage_is_that_of_the_records_though_workers_and_gateways_are_killed_at_work() {
    let mut workload = Workload::new().await;
    priced(&workload.stack);
    let mut killed = Gateway::of(&workload.stack, &[]).await;
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let text = |n| format!("Passage {n}: the forebay holds the water of the river.");
    let jobs: Vec<Job> =
        (0..1_500).map(|n| workload.job(&text(n)).with("tenant", "acme")).collect();
    workload.publisher.submit_all(TINY, &jobs, Codec::Msgpack).await;
    workload.jobs = jobs;
    let mut first = workload.stack.worker(&[SMALL_BATCHES]).await;
    workload.is_at_work().await;
    let mut connections = Vec::new();
    for _ in 0..20 {
        connections.push(killed.asking(TINY).await);
        connections.push(gateway.asking(TINY).await);
    }
    first.signal("KILL");
    killed.service.signal("KILL");
    assert_eq!((first.exit_code(SOON).await, killed.service.exit_code(SOON).await), (137, 137));
    let _second = workload.stack.worker(&[SMALL_BATCHES]).await;
    workload.all_succeed().await;
    workload.queues_are_empty().await;
    let mut redis = workload.redis.clone();
    let stack = &workload.stack;
    let expected = until("the sums are those of the records", PATIENT, async || {
        let expected = recorded(&mut redis).await;
        (totals(&used(stack, "tenant").await) == expected).then_some(expected)
    })
    .await;
    // Equal requests of a moment are one job.
    assert!(expected[0] > 1_500, "that of the gateway that lives is there too: {expected:?}");
    let rows = used(stack, "tenant").await;
    let acme = rows.iter().find(|row| row["tenant"] == "acme").expect("a row of acme");
    assert_eq!((&acme["jobs"], &acme["failed_jobs"]), (&json!(1_500), &json!(0)));
    for by in ["key", "model", "lane", "price", "hour"] {
        assert_eq!(totals(&used(stack, by).await), expected, "by {by}");
    }
    let left: u64 = redis::cmd("XLEN").arg("forebay:usage").query_async(&mut redis).await.unwrap();
    assert_eq!(left, 0, "what was summed up is removed");
}

#[tokio::test]
async fn an_hour_s_device_time_is_what_the_devices_were_busy() {
    let mut workload = Workload::new().await;
    priced(&workload.stack);
    let gateway = Gateway::of(&workload.stack, &[]).await;
    let workers = [
        workload.stack.worker(&[SMALL_BATCHES]).await,
        workload.stack.worker(&[SMALL_BATCHES]).await,
    ];
    workload.publish(400).await;
    // Larger than a batch: it is split over several.
    let long: Vec<String> = (0..100).map(|n| format!("part {n} of a long list")).collect();
    let long = workload.job("").with("input", json!(long));
    workload.submit(&long).await;
    workload.jobs.push(long);
    gateway.vectors(TINY, &json!(["one", "two"]));
    workload.all_succeed().await;
    let mut redis = workload.redis.clone();
    let busy = async || {
        let busy = |worker| metric(worker, "forebay_compute_busy_us_total", "");
        let not = |worker| metric(worker, "forebay_settle_uncounted_device_us_total", "");
        workers.iter().map(busy).sum::<u64>() - workers.iter().map(not).sum::<u64>()
    };
    until_true("the sums are the devices' time", SOON, async || {
        let sums = totals(&used(&workload.stack, "hour").await);
        sums[0] == 402 && sums[2] == busy().await && sums == recorded(&mut redis).await
    })
    .await;
    assert!(busy().await > 0);
}

#[tokio::test]
async fn a_tenant_reads_its_own_usage_and_an_operator_that_of_all() {
    let workload = Workload::new().await;
    let stack = &workload.stack;
    priced(stack);
    let mut keys = Vec::new();
    for (tenant, scopes) in [("acme", "submit,read"), ("globex", "submit,admin")] {
        assert_eq!(stack.forebay(&["tenants", "create", tenant]).await.code, 0);
        let create = ["keys", "create", "--tenant", tenant, "--scope", scopes, "--json"];
        let created = json_lines(&stack.forebay(&create).await);
        keys.push(format!("Bearer {}", created[0]["key"].as_str().expect("a key")));
    }
    let gateway = Gateway::of(stack, &[]).await;
    let _worker = stack.worker(&[]).await;
    for key in &keys {
        let body = json!({"model": TINY, "input": ["a text", "another"]});
        let answer = gateway.post_with("/v1/embeddings", &body, &[("authorization", key)]);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    workload.submit(&workload.job("past the gateway")).await;
    let get = |path: &str, key: &str| gateway.get_with(path, &[("authorization", key)]);
    until_true("all three are summed up", SOON, async || {
        get("/v1/usage?by=tenant", &keys[1]).body["total"]["jobs"] == 3
    })
    .await;
    let all = get("/v1/usage?by=tenant", &keys[1]).body;
    let tenants: Vec<&Value> =
        all["data"].as_array().unwrap().iter().map(|row| &row["tenant"]).collect();
    assert_eq!(tenants, ["-", "acme", "globex"]);
    let own = get("/v1/usage?by=key", &keys[0]);
    let rows = own.body["data"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["jobs"]), (1, &json!(1)), "{own:?}");
    let id = &keys[0]["Bearer fbk_".len()..][..12];
    assert_eq!(rows[0]["key"], id);
    let tokens = rows[0]["input_tokens"].as_u64().unwrap();
    assert_eq!(nanos(rows[0]["cost"].as_str().unwrap()), tokens * PER_TOKEN);
    let one = get("/v1/usage?tenant=-&by=lane", &keys[1]).body;
    assert_eq!((&one["data"][0]["lane"], &one["total"]["jobs"]), (&json!("batch"), &json!(1)));
    let foreign = get("/v1/usage?tenant=globex", &keys[0]);
    assert_eq!(foreign.mistake(), (403, "insufficient_permissions", None), "{foreign:?}");
    let wrong = get("/v1/usage?by=colour", &keys[0]);
    assert_eq!(wrong.mistake(), (400, "invalid_request", Some("by")), "{wrong:?}");
    let csv = stack.forebay(&["usage", "--tenant", "acme", "--by", "model", "--csv"]).await;
    let cost = rows[0]["cost"].as_str().unwrap();
    let device_us = &rows[0]["device_us"];
    let row = format!("{TINY},1,0,0,{tokens},0,0,{device_us},{cost},0");
    assert!(csv.output.lines().any(|line| line.trim_end() == row), "{csv:?}");
    let table = stack.forebay(&["usage", "--since", "1d"]).await;
    assert!(table.code == 0 && table.output.contains("total"), "{table:?}");
}

#[tokio::test]
async fn a_spent_budget_is_refused_and_the_official_openai_package_does_not_try_again() {
    let workload = Workload::new().await;
    let stack = &workload.stack;
    priced(stack);
    // A thousand tokens.
    let create = ["tenants", "create", "acme", "--budget", "0.00002"];
    assert_eq!(stack.forebay(&create).await.code, 0);
    let created = stack.forebay(&["keys", "create", "--tenant", "acme", "--json"]).await;
    let key = json_lines(&created)[0]["key"].as_str().expect("a key").to_owned();
    let gateway = Gateway::of(stack, &[]).await;
    let _worker = stack.worker(&[]).await;
    let bearer = format!("Bearer {key}");
    let header = [("authorization", bearer.as_str())];
    // Different texts of four words, one token each: equal ones would be read once.
    let word = |n: usize| ["a", "in", "pool", "water"][n % 4];
    let text = |n| [n / 64, n / 16, n / 4, n].map(word).join(" ");
    let body = |texts| json!({"model": TINY, "input": (0..texts).map(text).collect::<Vec<_>>()});
    let fits = gateway.post_with("/v1/embeddings", &body(100), &header);
    assert_eq!(fits.status, 200, "{fits:?}");
    let tokens = fits.body["usage"]["total_tokens"].as_u64().unwrap();
    let over = gateway.post_with("/v1/embeddings", &body(100), &header);
    assert_eq!(over.mistake(), (429, "insufficient_quota", None), "{over:?}");
    assert_eq!(over.body["error"]["type"], "insufficient_quota");
    assert_eq!(over.header("x-should-retry"), Some("false"));
    assert_eq!((over.header("retry-after"), over.header("retry-after-ms")), (None, None));
    until_true("so much is left, once nothing counts twice", SOON, async || {
        gateway.post_with("/v1/embeddings", &body(1), &header).status == 200
    })
    .await;
    let code = "import openai, os\n\
        client = openai.OpenAI(base_url=os.environ['URL'], api_key=os.environ['KEY'])\n\
        try:\n    client.embeddings.create(model='tiny', input=['water in a pool'] * 100)\n\
        except openai.RateLimitError as error:\n    print(error.code, error.type)\n";
    let before = metric(&gateway.service, "forebay_gateway_requests_total", "status=\"429\"");
    let mut command = Command::new(interpreter());
    command.args(["-c", code]).env("URL", gateway.url("/v1")).env("KEY", &key);
    let finished = stack.run(command).await;
    assert_eq!(finished.output.trim(), "insufficient_quota insufficient_quota", "{finished:?}");
    let after = metric(&gateway.service, "forebay_gateway_requests_total", "status=\"429\"");
    assert_eq!(after, before + 1, "it did not try again");
    // What a job is expected to cost stays reserved until what it cost is summed up.
    let job = json!({"model": TINY, "task": "embed", "input": ["water in a pool"]});
    let submitted = until("nothing counts twice any more", SOON, async || {
        let submitted = gateway.post_with("/v1/jobs", &job, &header);
        (submitted.status == 202).then_some(submitted)
    })
    .await;
    let mut redis = workload.redis.clone();
    until_true("its money is settled", SOON, async || {
        let reserved: Vec<String> =
            redis.zrange("forebay:limits:{acme}:money", 0, -1).await.unwrap();
        !reserved.iter().any(|name| submitted.body["id"] == name.as_str())
    })
    .await;
    let raised = ["tenants", "set-limits", "acme", "--budget", "0.00004"];
    assert_eq!(stack.forebay(&raised).await.code, 0);
    until_true("the higher budget holds", SOON, async || {
        gateway.post_with("/v1/embeddings", &body(100), &header).status == 200
    })
    .await;
    assert!(tokens * PER_TOKEN > 10_000, "two such requests are over the budget: {tokens}");
}
