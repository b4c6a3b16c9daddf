//! The summary: how much, how fast, in what batches, by whom.

use std::time::Duration;

use forebay_schemas::WorkerRecord;

use super::{batch::Run, say::say};

pub(crate) fn print(run: &Run<'_>, workers: &[WorkerRecord]) {
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
    say("");
    for (name, value) in rows {
        say(format_args!("{name:<14} {value}"));
    }
    for worker in workers {
        say(format_args!(
            "{:<14} {}: {} on {} {}",
            "worker", worker.id, worker.model, worker.device, worker.dtype
        ));
    }
}

/// From submission to result, queueing behind all the others included.
fn milliseconds(latency: Duration) -> String {
    format!("{:.0} ms", latency.as_secs_f64() * 1e3)
}

/// The value that `percent` of the sorted values don't exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
