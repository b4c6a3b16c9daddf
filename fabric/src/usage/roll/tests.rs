//! Summing up by a real Redis.

use forebay_schemas::{JobId, Lane, State};
use futures_util::future::join_all;

use super::*;
use crate::{
    Config,
    store::{ResultRecord, Written, testing::Redis},
    usage::{Asked, Used},
};

fn entry(tenant: &str, tokens: u64) -> UsageEntry {
    UsageEntry {
        id: JobId::random(),
        tenant: tenant.into(),
        api_key: "-".into(),
        model: "m".into(),
        lane: Lane::Batch,
        state: State::Succeeded,
        input_tokens: tokens,
        output_tokens: 0,
        cached_tokens: 0,
        truncated: 0,
        device_us: 7,
        cost: 0,
        price: "-".into(),
        finished_at_ms: 1,
    }
}

fn record(entry: &UsageEntry) -> ResultRecord {
    let usage = Some(entry.clone());
    ResultRecord {
        id: entry.id.clone(),
        bytes: b"{}".to_vec(),
        ttl_s: 60,
        notify: None,
        ends_tokens: false,
        usage,
    }
}

async fn write(store: &Store, entries: &[UsageEntry]) -> Vec<Written> {
    let records: Vec<ResultRecord> = entries.iter().map(record).collect();
    store.write_results(&records).await.unwrap()
}

/// Sums up until nothing is left.
async fn roll(store: &Store) {
    loop {
        let round = store.roll_usage(400).await.unwrap();
        if round.unread == 0 && !round.raced {
            return;
        }
    }
}

async fn all(store: &Store, tenant: Option<&str>) -> Vec<Used> {
    let from = Hour::of_s(0);
    let until = Hour::of_s(u64::MAX);
    // A day on either side of now: whatever happens at midnight.
    let now = Hour::of_ms(crate::clock::now_ms());
    let from = Hour::on(now.day(), 0).max(from);
    let mut found = Vec::new();
    let asked = Asked { from, until: until.min(now.next().next()), tenant: tenant.map(Into::into) };
    store.usage(&asked, |used| found.push(used)).await.unwrap();
    found
}

/// Jobs and tokens of all that is found.
fn totals(found: &[Used]) -> (u64, u64) {
    let mut sums = Sums::default();
    for used in found {
        sums.add(&used.sums);
    }
    (sums.jobs, sums.input_tokens)
}

#[tokio::test]
async fn a_second_record_of_a_job_adds_no_usage() {
    let redis = Redis::start().await;
    let first = entry("acme", 10);
    assert_eq!(write(&redis.store, std::slice::from_ref(&first)).await, [Written::First]);
    let second = UsageEntry { input_tokens: 99, ..first };
    assert_eq!(write(&redis.store, &[second]).await, [Written::AlreadyThere]);
    roll(&redis.store).await;
    assert_eq!(totals(&all(&redis.store, Some("acme")).await), (1, 10));
}

#[tokio::test]
async fn two_that_write_the_same_jobs_and_two_that_sum_up_at_once_count_each_job_once() {
    let redis = Redis::start().await;
    let other = Store::new(&redis.config()).unwrap();
    let tenants = ["acme", "globex", "-"];
    let entries: Vec<UsageEntry> = (0..3_000).map(|n| entry(tenants[n % 3], n as u64)).collect();
    let tokens: u64 = entries.iter().map(|entry| entry.input_tokens).sum();
    let writes = async |store: &Store| {
        for some in entries.chunks(100) {
            write(store, some).await;
        }
    };
    let rolls = async |store: &Store| {
        // Until all has been written and summed up.
        while totals(&all(store, None).await).0 < 3_000 {
            store.roll_usage(400).await.unwrap();
        }
    };
    tokio::join!(writes(&redis.store), writes(&other), rolls(&redis.store), rolls(&other));
    roll(&other).await;
    assert_eq!(totals(&all(&other, None).await), (3_000, tokens));
    assert_eq!(totals(&all(&other, Some("globex")).await).0, 1_000);
}

#[tokio::test]
async fn one_that_ends_at_any_step_of_a_round_leaves_nothing_to_be_counted_twice_or_never() {
    let redis = Redis::start().await;
    let store = &redis.store;
    write(store, &[entry("acme", 10), entry("globex", 5)]).await;
    let read: Vec<(String, HashMap<String, String>)> = store
        .run(async |connection| {
            redis::cmd("XRANGE").arg(USAGE_STREAM).arg("-").arg("+").query_async(connection).await
        })
        .await
        .unwrap();
    let last = read.last().unwrap().0.clone();
    // It ends after it has added one tenant's part, before the other's and before the entries are removed.
    let mut known = store.under_known_tenants(by_tenant(read)).await.unwrap();
    known.remove("globex");
    let parts = store.parts(known).await.unwrap();
    assert!(store.commit(parts, &last, 400).await.unwrap());
    roll(store).await;
    assert_eq!(totals(&all(store, Some("acme")).await), (1, 10));
    assert_eq!(totals(&all(store, Some("globex")).await), (1, 5));
}

#[tokio::test]
async fn a_part_that_was_read_before_another_was_first_is_not_added() {
    let redis = Redis::start().await;
    let store = &redis.store;
    write(store, &[entry("acme", 10)]).await;
    let numbered = BTreeMap::from([("acme".to_owned(), vec![(Position(1, 1), entry("acme", 10))])]);
    let late = store.parts(numbered).await.unwrap();
    roll(store).await;
    assert!(!store.commit(late, "1-1", 400).await.unwrap(), "another was first");
    assert_eq!(totals(&all(store, None).await), (1, 10));
}

#[tokio::test]
async fn a_full_stream_keeps_what_it_has_and_results_are_written_all_the_same() {
    let redis = Redis::start().await;
    let mut config = redis.config();
    config.usage.unread_max = 2;
    let store = Store::new(&config).unwrap();
    let entries: Vec<UsageEntry> = (0..5).map(|_| entry("acme", 1)).collect();
    assert_eq!(write(&store, &entries).await, [Written::First; 5]);
    let ids: Vec<JobId> = entries.iter().map(|entry| entry.id.clone()).collect();
    assert_eq!(store.present(&ids).await.unwrap(), [true; 5]);
    roll(&store).await;
    assert_eq!(totals(&all(&store, None).await), (2, 2));
}

#[tokio::test]
async fn without_metering_records_are_written_alone() {
    let mut redis = Redis::start().await;
    let mut config = redis.config();
    config.usage.enabled = false;
    let store = Store::new(&config).unwrap();
    let entry = entry("acme", 1);
    assert_eq!(write(&store, std::slice::from_ref(&entry)).await, [Written::First]);
    assert_eq!(write(&store, &[entry]).await, [Written::AlreadyThere]);
    assert_eq!(redis.ask::<u64>(&["EXISTS", USAGE_STREAM]).await, 0);
}

#[tokio::test]
async fn an_entry_that_can_t_be_read_holds_up_no_other() {
    let mut redis = Redis::start().await;
    let _: String = redis.ask(&["XADD", USAGE_STREAM, "*", "tenant", "acme"]).await;
    write(&redis.store, &[entry("acme", 10)]).await;
    roll(&redis.store).await;
    assert_eq!(totals(&all(&redis.store, None).await), (1, 10));
}

#[tokio::test]
async fn what_jobs_cost_is_by_the_price_of_their_model_and_failures_cost_nothing() {
    let redis = Redis::start().await;
    let mut config = redis.config();
    let priced: Config =
        toml::from_str("[models.m]\nsource = \"folder:/m\"\nprice = { input_per_million = 0.02 }")
            .unwrap();
    config.models = priced.models;
    let store = Store::new(&config).unwrap();
    let other = UsageEntry { model: "other".into(), ..entry("acme", 1_000) };
    let failed = UsageEntry { state: State::Failed, ..entry("acme", 1_000) };
    write(&store, &[entry("acme", 21), entry("acme", 3), failed, other]).await;
    roll(&store).await;
    let mut found = all(&store, Some("acme")).await;
    found.sort_by(|a, b| a.line.cmp(&b.line));
    let costs: Vec<_> = found
        .iter()
        .map(|used| (used.line.price.as_str(), used.sums.jobs, used.sums.cost))
        .collect();
    assert_eq!(costs, [("0.02/0", 3, 24 * 20), ("-", 1, 0)]);
    assert_eq!(found[0].sums.failed_jobs, 1);
    let month = Hour::of_ms(crate::clock::now_ms()).day().month();
    let mut redis = redis;
    let spent: u64 = redis.ask(&["HGET", "forebay:usage:{acme}", &format!("cost:{month}")]).await;
    assert_eq!(spent, 24 * 20);
}

#[tokio::test]
async fn a_sum_without_room_stays_at_its_end_and_holds_up_nothing() {
    let redis = Redis::start().await;
    let mut config = redis.config();
    let price = "price = { input_per_million = 999999999 }";
    let models = format!("[models.m]\nsource = \"folder:/m\"\n{price}");
    config.models = toml::from_str::<Config>(&models).unwrap().models;
    let store = Store::new(&config).unwrap();
    for tenant in ["acme", "acme", "globex"] {
        write(&store, &[entry(tenant, 1 << 50)]).await;
        roll(&store).await;
    }
    assert_eq!(totals(&all(&store, Some("acme")).await).0, 2);
    assert_eq!(totals(&all(&store, Some("globex")).await).0, 1);
}

#[tokio::test]
async fn what_was_reserved_for_a_job_ends_when_its_usage_is_added() {
    let mut redis = Redis::start().await;
    let [done, waits] = [entry("acme", 1), entry("acme", 1)];
    for entry in [&done, &waits] {
        let id = entry.id.as_str();
        let _: u64 = redis.ask(&["ZADD", "forebay:limits:{acme}:money", "99", id]).await;
        let _: u64 = redis.ask(&["HSET", "forebay:limits:{acme}:amounts", id, "30"]).await;
    }
    let _: u64 = redis.ask(&["HINCRBY", "forebay:limits:{acme}:amounts", "*", "60"]).await;
    write(&redis.store, &[done]).await;
    roll(&redis.store).await;
    let left: u64 = redis.ask(&["HGET", "forebay:limits:{acme}:amounts", "*"]).await;
    let names: Vec<String> = redis.ask(&["ZRANGE", "forebay:limits:{acme}:money", "0", "-1"]).await;
    assert_eq!((left, names), (30, vec![waits.id.to_string()]));
}

#[tokio::test]
async fn tenants_of_any_name_have_sums_of_their_own() {
    let redis = Redis::start().await;
    let names = ["a}b", "{", "a b\n", "größe", "(other)"];
    write(&redis.store, &names.map(|name| entry(name, 1))).await;
    roll(&redis.store).await;
    let found = join_all(names.map(|name| all(&redis.store, Some(name)))).await;
    for (name, found) in names.iter().zip(found) {
        assert_eq!(totals(&found), (1, 1), "{name}");
    }
}

#[test]
fn a_day_that_is_full_sums_up_further_keys_and_models_under_one_name() {
    let line = |key: &str| Line {
        hour_of_day: 1,
        api_key: key.into(),
        model: "m".into(),
        lane: "batch".into(),
        price: "-".into(),
    };
    let one = Sums { jobs: 1, ..Sums::default() };
    let lines = BTreeMap::from(["known", "new1", "new2"].map(|key| (line(key), one)));
    let written = Sums { jobs: 5, ..Sums::default() }.written();
    let present = [Some(written.clone()), None, None, Some(written.clone()), None, Some(written)];
    let day = Hour::of_s(0).day();
    let mut added = Added {
        tenant: String::new(),
        from: String::new(),
        jobs: Vec::new(),
        costs: BTreeMap::new(),
        days: BTreeMap::new(),
    };
    added.add(day, lines, LINES_MAX, &present);
    let jobs: Vec<(&str, u64)> =
        added.days[&day].iter().map(|(line, sums)| (line.api_key.as_str(), sums.jobs)).collect();
    assert_eq!(jobs, [("(other)", 7), ("known", 6)]);
}
