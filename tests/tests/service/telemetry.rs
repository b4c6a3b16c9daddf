//! The health and metrics that each server serves: alive, ready, and measured.

use std::fs;

use forebay_tests::job::{Codec, Job};
use forebay_tests::publisher::BATCH;
use forebay_tests::record::result;
use forebay_tests::service::Service;
use forebay_tests::stack::SharedFleet;

#[tokio::test]
async fn worker_and_autoscaler_answer_on_their_own_ports() {
    let fleet = SharedFleet::borrow().await;
    for service in [&fleet.worker, &fleet.autoscaler] {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let (status, body) = service.get(path).unwrap_or_else(|| panic!("no answer at {path}"));
            assert_eq!(status, 200, "{path}: {body}");
        }
        let (status, _) = service.get("/nothing-here").unwrap();
        assert_eq!(status, 404);
    }
}

#[tokio::test]
async fn telemetry_is_bound_to_loopback_alone() {
    let fleet = SharedFleet::borrow().await;
    for service in [&fleet.worker, &fleet.autoscaler] {
        assert_eq!(listening(service), ["0100007F"], "127.0.0.1 as the kernel writes it");
    }
}

#[tokio::test]
async fn metrics_count_jobs_and_carry_no_ids() {
    let fleet = SharedFleet::borrow().await;
    let publisher = fleet.stack.publisher().await;
    let mut redis = fleet.stack.redis().await;
    let job = Job::embed("a text that must not show").with("tenant", "tenant-that-must-not-show");
    publisher.submit(BATCH, &job, Codec::Msgpack).await;
    result(&mut redis, job.id()).await;
    let (_, metrics) = fleet.worker.get("/metrics").unwrap();
    let samples = metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for sample in samples.clone() {
        let (_, value) = sample.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {sample}"));
        assert!(value.parse::<f64>().is_ok(), "no number: {sample}");
        assert!(sample.starts_with("forebay_"), "a name of somebody else: {sample}");
    }
    assert!(
        samples.clone().any(|sample| sample.contains("succeeded")),
        "nothing counted by state:\n{metrics}"
    );
    for secret in [job.id(), "must not show", "must-not-show"] {
        assert!(!metrics.contains(secret), "{secret} in the metrics");
    }
    let longest = samples.flat_map(|sample| sample.split('"')).map(str::len).max();
    assert!(longest < Some(200), "a label as long as {longest:?}");
}

/// The addresses on which anybody listens on the service's port, as the kernel lists them.
fn listening(service: &Service) -> Vec<String> {
    const LISTEN: &str = "0A";
    let port = format!("{:04X}", service.telemetry_port());
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    rows.filter_map(|row| {
        let mut columns = row.split_whitespace().skip(1);
        let (address, on) = columns.next()?.rsplit_once(':')?;
        let state = columns.nth(1)?;
        (on == port && state == LISTEN).then(|| address.to_owned())
    })
    .collect()
}
