//! The summary: amounts, rates, latencies, batch sizes, and the workers.

use std::time::Duration;

use super::{batch::Run, fleet::Life, print::print_line};

pub(crate) fn print(run: &Run<'_>, life: &Life) {
    let seconds = run.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let tokens: u64 = run.jobs.iter().map(|job| job.usage.input_tokens).sum();
    let mean = |of: fn(&super::batch::JobStats) -> u64| {
        run.jobs.iter().map(of).sum::<u64>() as f64 / run.jobs.len().max(1) as f64
    };
    let mut latencies: Vec<Duration> = run.jobs.iter().map(|job| job.latency).collect();
    latencies.sort_unstable();
    let texts = run.vectors.len();
    let rows = [
        ("texts", format!("{texts} in {} jobs, {seconds:.1} s", run.jobs.len())),
        ("tokens", tokens.to_string()),
        ("texts/s", format!("{:.0}", texts as f64 / seconds)),
        ("tokens/s", format!("{:.0}", tokens as f64 / seconds)),
        ("latency p50", milliseconds(percentile(&latencies, 50))),
        ("latency p95", milliseconds(percentile(&latencies, 95))),
        ("batch, texts", format!("{:.1} in the mean", mean(|job| job.timing.batch_size))),
        ("batch, tokens", format!("{:.0} in the mean", mean(|job| job.timing.batch_tokens))),
    ];
    print_line("");
    for (name, value) in rows {
        print_line(format_args!("{name:<14} {value}"));
    }
    for (name, value) in fleet_rows(run, life) {
        print_line(format_args!("{name:<14} {value}"));
    }
    for worker in life.workers.values() {
        print_line(format_args!(
            "{:<14} {}: {} on {} {}",
            "worker", worker.id, worker.model, worker.device, worker.dtype
        ));
    }
}

/// The fleet's way from zero to the load, and back to zero.
fn fleet_rows(run: &Run<'_>, life: &Life) -> Vec<(&'static str, String)> {
    let since = |at: std::time::Instant, from: std::time::Instant| {
        format!("{:.1} s", at.saturating_duration_since(from).as_secs_f64())
    };
    let mut rows = Vec::new();
    if let Some(ready) = life.first_ready {
        rows.push((
            "first worker",
            format!("ready {} after the first submission", since(ready, run.began)),
        ));
    }
    if let Some(first) = run.first_result {
        rows.push((
            "first result",
            format!("{:.1} s after the first submission", first.as_secs_f64()),
        ));
    }
    if let Some((most, at)) = life.most {
        rows.push(("most workers", format!("{most}, after {}", since(at, run.began))));
    }
    if let (Some(gone), Some((_, ended))) = (life.gone, life.worked) {
        rows.push(("no worker", format!("{} after the last answer", since(gone, ended))));
    }
    rows
}

/// Formats a latency, which runs from submission to result and includes queueing behind all other jobs.
fn milliseconds(latency: Duration) -> String {
    format!("{:.0} ms", latency.as_secs_f64() * 1e3)
}

/// The value that `percent` of the sorted values don't exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
