//! `forebay workers`

use forebay_fabric::clock::now_ms;
use forebay_schemas::{WorkerRecord, WorkerState};

use super::{CommandResult, Context, unless_stopped};
use crate::output::{grouped, span};

pub(super) async fn run(context: &mut Context) -> CommandResult {
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

fn row(worker: &WorkerRecord, now_ms: u64) -> [String; 10] {
    let state = match worker.state {
        WorkerState::Starting => "starting",
        WorkerState::Ready => "ready",
        WorkerState::Draining => "draining",
    };
    let up_ms = now_ms.saturating_sub(worker.started_at_ms);
    // The clocks of two hosts differ: a share over everything is cut.
    let busy = (100 * worker.busy_ms / up_ms.max(1)).min(100);
    [
        worker.id.clone(),
        worker.model.clone(),
        state.to_owned(),
        format!("{} {}", worker.device, worker.dtype),
        span(up_ms),
        format!("{} ago", span(now_ms.saturating_sub(worker.beat_at_ms))),
        grouped(worker.in_flight),
        grouped(worker.jobs_done),
        grouped(worker.tokens_done),
        format!("{busy} %"),
    ]
}
