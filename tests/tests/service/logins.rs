//! Logins and addresses: one that is refused is said to be, by every program, and each way to write one means the same.

use forebay_tests::broker;
use forebay_tests::patience::{SOON, until_true};
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use redis::aio::MultiplexedConnection;

const AMQP: &str = "FOREBAY_AMQP_URL";
const REDIS: &str = "FOREBAY_REDIS_URL";
const PASSWORD: &str = "not-the-right-one";

async fn set_password(redis: &mut MultiplexedConnection, password: &str) {
    let mut set = redis::cmd("CONFIG");
    let () =
        set.arg(&["SET", "requirepass", password]).query_async(redis).await.expect("it is set");
    // Those that are open stay logged in.
    let mut kill = redis::cmd("CLIENT");
    let _: u64 = kill
        .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
        .query_async(redis)
        .await
        .expect("they are closed");
}

async fn logs(service: &Service, named: &[&str]) {
    let says = |line: &str| named.iter().all(|what| line.contains(what));
    let logged = async || service.log().lines().any(says);
    until_true(&format!("it logs {named:?}"), SOON, logged).await;
}

#[tokio::test]
async fn a_redis_that_refuses_the_login_ends_every_program_with_2() {
    let stack = Stack::start().await.tiny();
    let mut redis = stack.redis().await;
    let host = format!("127.0.0.1:{}", stack.store.port());
    let no_database = format!("redis://{host}/99");
    set_password(&mut redis, "right").await;
    let wrong = format!("redis://:{PASSWORD}@{host}/0");
    for (url, reason) in [(&wrong, "authentication failed"), (&no_database, "refuses the login")] {
        let overrides = [(REDIS, url.as_str())];
        let listed = {
            let mut command = stack.program("forebay", &overrides);
            command.arg("workers");
            stack.run(command).await
        };
        assert_eq!(listed.code, 2, "{listed:?}");
        assert!(listed.errors.contains(reason), "{listed:?}");
        let services = [stack.starting_worker(&overrides), stack.starting_autoscaler(&overrides)];
        for mut service in services {
            assert_eq!(service.exit_code(SOON).await, 2);
            logs(&service, &[reason, "check user, password and database in redis_url"]).await;
            assert!(!service.log().contains(PASSWORD), "{}", service.log());
        }
    }
}

#[tokio::test]
async fn a_login_that_is_refused_later_is_logged_and_so_is_its_return() {
    let stack = Stack::start().await.tiny();
    let mut redis = stack.redis().await;
    let mut worker = stack.worker(&[]).await;
    set_password(&mut redis, "right").await;
    let url = format!("redis://127.0.0.1:{}/0", stack.store.port());
    logs(&worker, &["WARN", "store", &url, "NOAUTH", "check user, password"]).await;
    set_password(&mut redis, "").await;
    // It was logged once at the start.
    let holds = |line: &&str| line.contains("now holds") && line.contains("store");
    let back = async || worker.log().lines().filter(holds).count() == 2;
    until_true("its return is logged", SOON, back).await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn a_redis_that_never_answered_is_logged_with_its_address_and_remedy() {
    let mut stack = Stack::start().await.tiny();
    stack.store.kill();
    let worker = stack.starting_worker(&[]);
    logs(&worker, &["WARN", "store", &stack.redis_url(), "refused", "check redis_url"]).await;
    stack.store.restart().await;
    let worker = worker.ready().await;
    logs(&worker, &["INFO", "now holds", "store"]).await;
}

#[tokio::test]
async fn the_default_virtual_host_is_one_however_it_is_written() {
    let stack = Stack::start().await;
    let port = broker::shared().await.amqp_port();
    for path in ["", "/", "//", "/%2f"] {
        let url = format!("amqp://guest:guest@127.0.0.1:{port}{path}");
        let mut command = stack.program("forebay", &[(AMQP, &url)]);
        command.args(["queues", "--json"]);
        let listed = stack.run(command).await;
        assert_eq!((listed.code, listed.errors.as_str()), (0, ""), "{path}: {listed:?}");
    }
}
