//! `forebay workers`

use forebay_fabric::clock::now_ms;
use forebay_schemas::{WorkerRecord, WorkerState};

use crate::{
    context::{Context, unless_stopped},
    error::CommandResult,
    output::{grouped, span},
};

pub(crate) async fn run(context: &mut Context) -> CommandResult {
    let client = context.client()?;
    let workers = unless_stopped(&context.stop, async { Ok(client.workers().await?) }).await?;
    if context.output.json {
        for worker in &workers {
            context.output.json_line(worker)?;
        }
        return Ok(());
    }
    if workers.is_empty() {
        eprintln!("forebay: no worker is alive: start a `forebay-worker`");
    }
    let now_ms = now_ms();
    let rows: Vec<_> = workers.iter().map(|worker| row(worker, now_ms)).collect();
    let heads = [
        "WORKER",
        "MODEL",
        "STATE",
        "DEVICE",
        "UP>",
        "HEARD>",
        "IN FLIGHT>",
        "JOBS>",
        "TOKENS>",
        "BUSY>",
    ];
    Ok(context.output.table(heads, &rows)?)
}

/// A worker's device: `cpu bf16`, or `cuda:0 bf16 NVIDIA H200, 3 of 140 GiB`.
fn device(worker: &WorkerRecord) -> String {
    const GIB: u64 = 1 << 30;
    let device = format!("{} {}", worker.device, worker.dtype);
    let Some(gpu) = &worker.gpu else { return device };
    let used = gpu.memory_used_bytes.div_ceil(GIB);
    let total = gpu.memory_bytes / GIB;
    format!("{device} {}, {used} of {total} GiB", gpu.name)
}

fn row(worker: &WorkerRecord, now_ms: u64) -> [String; 10] {
    let state = match worker.state {
        WorkerState::Starting => "starting",
        WorkerState::Ready => "ready",
        WorkerState::Draining => "draining",
    };
    let up_ms = now_ms.saturating_sub(worker.started_at_ms);
    // The clocks of two hosts differ, so the share is limited to 100 %.
    let busy = (100 * worker.busy_ms / up_ms.max(1)).min(100);
    [
        worker.id.clone(),
        worker.model.clone(),
        state.to_owned(),
        device(worker),
        span(up_ms),
        format!("{} ago", span(now_ms.saturating_sub(worker.beat_at_ms))),
        grouped(worker.in_flight),
        grouped(worker.jobs_done),
        grouped(worker.tokens_done),
        format!("{busy} %"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_shown_with_its_name_and_its_memory() {
        let record = serde_json::json!({
            "id": "w", "model": "m", "state": "ready", "device": "cuda:0", "dtype": "bf16", "host": "h", "pid": 1,
            "version": "0", "started_at_ms": 0, "beat_at_ms": 0, "progress_at_ms": 0, "in_flight": 0, "jobs_done": 0,
            "tokens_done": 0, "busy_ms": 0, "load_ms": 0, "slots_free_tokens": 0,
        });
        let mut worker: WorkerRecord = serde_json::from_value(record).unwrap();
        assert_eq!(device(&worker), "cuda:0 bf16");
        worker.gpu = Some(forebay_schemas::GpuRecord {
            name: "NVIDIA H200".to_owned(),
            memory_used_bytes: 5 << 29,
            memory_bytes: 140 << 30,
        });
        assert_eq!(device(&worker), "cuda:0 bf16 NVIDIA H200, 3 of 140 GiB");
    }
}
