//! Encrypted connections: with the right authority everything works, and a server that can't be trusted is refused by
//! an error that says why.

use std::fs;

use forebay_tests::MODEL;
use forebay_tests::broker::{self, Node};
use forebay_tests::certificates::{Authority, Files, HOST, OTHER_HOST};
use forebay_tests::patience::{SOON, until};
use forebay_tests::pools::status;
use forebay_tests::service::Service;
use forebay_tests::stack::{Finished, Stack};
use forebay_tests::store::Store;
use serde_json::Value;

const AMQP: &str = "FOREBAY_AMQP_URL";
const REDIS: &str = "FOREBAY_REDIS_URL";
const MANAGEMENT: &str = "FOREBAY_MANAGEMENT_URL";
const CA: &str = "FOREBAY_TLS__CA_FILE";
const CERT: &str = "FOREBAY_TLS__CERT_FILE";
const KEY: &str = "FOREBAY_TLS__KEY_FILE";

/// A command tries to connect for no longer than this.
const IMPATIENT: (&str, &str) = ("FOREBAY_BROKER__CONNECT_TIMEOUT_MS", "3000");

/// The shared broker and a Redis that shows a certificate of the same authority.
async fn encrypted(asks_clients: bool) -> Stack {
    let vhost = broker::shared().await.vhost().await;
    let store = Store::start_encrypted(vhost.certificate().clone(), asks_clients).await;
    Stack::of(vhost, store)
}

async fn forebay(stack: &Stack, overrides: &[(&str, &str)], arguments: &[&str]) -> Finished {
    let mut command = stack.program("forebay", overrides);
    command.args(arguments);
    stack.run(command).await
}

/// Waits until the service says why `condition` does not hold, and expects all of `named` in that.
async fn assert_distrusted(service: &Service, condition: &str, named: &[&str]) {
    let what = format!("{condition} is refused for: {named:?}");
    let status = until(&what, SOON, async || {
        let (status, body) = service.get("/readyz")?;
        let report: Value = serde_json::from_str(&body).ok()?;
        let detail = report["conditions"][condition]["detail"].as_str()?;
        named.iter().all(|what| detail.contains(what)).then_some(status)
    })
    .await;
    assert_eq!(status, 503);
}

#[tokio::test]
async fn a_job_goes_its_whole_way_over_encrypted_connections() {
    let stack = encrypted(false).await;
    let amqp = stack.vhost.amqps_url(HOST);
    let redis = stack.store.encrypted_url(HOST);
    let management = stack.vhost.encrypted_management_url();
    let overrides = [
        (AMQP, amqp.as_str()),
        (REDIS, redis.as_str()),
        (MANAGEMENT, management.as_str()),
        (CA, stack.vhost.certificate().ca()),
    ];
    let worker = stack.worker(&overrides).await;
    let _autoscaler = stack.autoscaler(&overrides).await;
    let submit = ["submit", "--json", "--wait", "--model", MODEL, "a text", "another"];
    let submitted = forebay(&stack, &overrides, &submit).await;
    assert_eq!((submitted.code, submitted.output.lines().count()), (0, 2), "{submitted:?}");
    // Only the management API knows this number, and of a queue that was just declared not yet for some seconds.
    until("the management API's number is shown", SOON, async || {
        let queues = forebay(&stack, &overrides, &["queues", "--json"]).await;
        assert_eq!(queues.code, 0, "{queues:?}");
        queues.output.contains("\"unacknowledged\":0").then_some(())
    })
    .await;
    assert!(!worker.log().contains("is not encrypted"), "{}", worker.log());
}

#[tokio::test]
async fn an_unencrypted_url_is_warned_of() {
    let stack = encrypted(false).await;
    let overrides = [(CA, stack.vhost.certificate().ca())];
    let autoscaler = stack.autoscaler(&overrides).await;
    for key in ["amqp_url", "redis_url"] {
        let warned = |line: &str| line.contains(key) && line.contains("is not encrypted");
        assert!(autoscaler.log().lines().any(warned), "{}", autoscaler.log());
    }
}

#[tokio::test]
async fn an_authority_that_is_not_named_vouches_for_nothing() {
    let stack = encrypted(false).await;
    let other = Authority::new("another").certify(&stack.store.folder().join("other"));
    let amqp = stack.vhost.amqps_url(HOST);
    let redis = stack.store.encrypted_url(HOST);
    let management = stack.vhost.encrypted_management_url();
    let addresses = [(AMQP, amqp.as_str()), (REDIS, redis.as_str()), IMPATIENT];
    for overrides in [addresses.to_vec(), [&addresses[..], &[(CA, other.ca())]].concat()] {
        let worker = stack.starting_worker(&overrides);
        for (condition, url) in [("broker", "amqp_url"), ("store", "redis_url")] {
            let named = ["is not trusted", "UnknownIssuer", "tls.ca_file", url];
            assert_distrusted(&worker, condition, &named).await;
        }
        for command in ["queues", "workers"] {
            let finished = forebay(&stack, &overrides, &[command]).await;
            assert_eq!(finished.code, 1, "{finished:?}");
            assert!(finished.errors.contains("UnknownIssuer"), "{finished:?}");
        }
    }
    let management = [(MANAGEMENT, management.as_str())];
    let finished = forebay(&stack, &management, &["queues"]).await;
    assert!(finished.errors.contains("UnknownIssuer"), "{finished:?}");
}

#[tokio::test]
async fn a_certificate_of_another_host_is_refused_by_that_name() {
    let stack = encrypted(false).await;
    let amqp = stack.vhost.amqps_url(OTHER_HOST);
    let redis = stack.store.encrypted_url(OTHER_HOST);
    let overrides =
        [(AMQP, amqp.as_str()), (REDIS, redis.as_str()), (CA, stack.vhost.certificate().ca())];
    let worker = stack.starting_worker(&overrides);
    for condition in ["broker", "store"] {
        let named = ["is not trusted", "not valid for name", OTHER_HOST];
        assert_distrusted(&worker, condition, &named).await;
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused_for_that() {
    let folder = tempfile::tempdir().unwrap();
    let expired = Authority::shared().certify_expired(folder.path());
    let vhost = broker::shared().await.vhost().await;
    let stack = Stack::of(vhost, Store::start_encrypted(expired.clone(), false).await);
    // Certificates are looked at before a word is spoken, so any server will do for the broker too.
    let amqp = format!("amqps://guest:guest@{HOST}:{}/%2f", stack.store.encrypted_port());
    let redis = stack.store.encrypted_url(HOST);
    let overrides = [(AMQP, amqp.as_str()), (REDIS, redis.as_str()), (CA, expired.ca())];
    let worker = stack.starting_worker(&overrides);
    for condition in ["broker", "store"] {
        let named = ["is not trusted", "certificate expired"];
        assert_distrusted(&worker, condition, &named).await;
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let stack = encrypted(true).await;
    let client = Authority::shared().certify(&stack.store.folder().join("client"));
    let Files { ca, cert, key } = &client;
    let amqp = stack.vhost.amqps_url(HOST);
    let redis = stack.store.encrypted_url(HOST);
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let ca = text(ca);
    let cert = text(cert);
    let key = text(key);
    let mut overrides =
        vec![(AMQP, amqp.as_str()), (REDIS, redis.as_str()), (CA, ca.as_str()), IMPATIENT];
    let refused = forebay(&stack, &overrides, &["workers"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    overrides.extend([(CERT, cert.as_str()), (KEY, key.as_str())]);
    for command in ["workers", "queues"] {
        let finished = forebay(&stack, &overrides, &[command]).await;
        assert_eq!(finished.code, 0, "{finished:?}");
    }
}

#[tokio::test]
async fn a_given_authority_suffices_where_the_system_has_none() {
    let stack = encrypted(false).await;
    let empty = stack.store.folder().join("no-certificates");
    fs::create_dir(&empty).unwrap();
    let none = empty.join("none.pem");
    let amqp = stack.vhost.amqps_url(HOST);
    let redis = stack.store.encrypted_url(HOST);
    let overrides = [
        (AMQP, amqp.as_str()),
        (REDIS, redis.as_str()),
        (CA, stack.vhost.certificate().ca()),
        ("SSL_CERT_FILE", none.to_str().unwrap()),
        ("SSL_CERT_DIR", empty.to_str().unwrap()),
        IMPATIENT,
    ];
    for command in ["workers", "queues"] {
        let finished = forebay(&stack, &overrides, &[command]).await;
        assert_eq!(finished.code, 0, "{finished:?}");
    }
    let without = overrides.into_iter().filter(|(name, _)| *name != CA).collect::<Vec<_>>();
    let finished = forebay(&stack, &without, &["workers"]).await;
    assert_eq!(finished.code, 2, "{finished:?}");
    assert!(finished.errors.contains("no certificate authority is trusted"), "{finished:?}");
}

#[tokio::test]
async fn files_that_are_replaced_are_read_without_a_restart() {
    let stack = encrypted(true).await.tiny();
    let folder = stack.store.folder().join("client");
    let before = Authority::new("another").certify(&folder);
    let [ca, cert, key] =
        [&before.ca, &before.cert, &before.key].map(|path| path.to_str().unwrap().to_owned());
    let amqp = stack.vhost.amqps_url(HOST);
    let redis = stack.store.encrypted_url(HOST);
    let overrides = [
        (AMQP, amqp.as_str()),
        (REDIS, redis.as_str()),
        (CA, ca.as_str()),
        (CERT, cert.as_str()),
        (KEY, key.as_str()),
    ];
    let worker = stack.starting_worker(&overrides);
    for condition in ["broker", "store"] {
        assert_distrusted(&worker, condition, &["UnknownIssuer"]).await;
    }
    // Redis asks for the client's certificate too.
    Authority::shared().certify(&folder);
    worker.ready().await;
}

#[tokio::test]
async fn the_management_api_is_shown_a_certificate_and_a_new_one_without_a_restart() {
    let demands = "management.ssl.verify = verify_peer\nmanagement.ssl.fail_if_no_peer_cert = true";
    let node = Node::boot_with(demands).await;
    let stack = Stack::of(node.vhost().await, Store::start().await);
    let management = stack.vhost.encrypted_management_url();
    let mut overrides =
        vec![(MANAGEMENT, management.as_str()), (CA, stack.vhost.certificate().ca())];
    let refused = forebay(&stack, &overrides, &["queues"]).await;
    assert_eq!(refused.code, 0, "{refused:?}");
    assert!(refused.errors.contains("management API at"), "{refused:?}");

    let folder = stack.store.folder().join("client");
    let before = Authority::new("another").certify(&folder);
    let [cert, key] = [&before.cert, &before.key].map(|path| path.to_str().unwrap().to_owned());
    overrides.extend([(CERT, cert.as_str()), (KEY, key.as_str())]);
    let autoscaler = stack.autoscaler(&overrides).await;
    let is_refused = async || {
        let problems = status(&autoscaler)?["problems"].to_string();
        Some(problems.contains("management API at"))
    };
    until("the certificate is refused", SOON, async || is_refused().await?.then_some(())).await;
    Authority::shared().certify(&folder);
    until("the new one is taken", SOON, async || (!is_refused().await?).then_some(())).await;
    let finished = forebay(&stack, &overrides, &["queues"]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(!finished.errors.contains("management API at"), "{finished:?}");
}

#[tokio::test]
async fn files_that_can_t_be_used_end_every_program_with_2() {
    let stack = Stack::start().await;
    let folder = stack.store.folder().join("certificates");
    let good = Authority::shared().certify(&folder.join("good"));
    let other = Authority::shared().certify(&folder.join("other"));
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let cert = text(&good.cert);
    let key = text(&good.key);
    let other_key = text(&other.key);
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[(CA, "/no/such.pem")], "/no/such.pem"),
        (&[(CA, &key)], "tls.ca_file"),
        (&[(KEY, &key)], "tls.cert_file"),
        (&[(CERT, &cert), (KEY, &other_key)], "does not belong"),
    ];
    for program in ["forebay", "forebay-worker", "forebay-autoscaler"] {
        for (overrides, named) in cases {
            let mut command = stack.program(program, overrides);
            let arguments: &[&str] = if program == "forebay" { &["queues"] } else { &[] };
            command.args(arguments);
            let finished = stack.run(command).await;
            assert_eq!(finished.code, 2, "{program}: {finished:?}");
            assert!(finished.errors.contains(named), "{program}: {finished:?}");
        }
    }
}
