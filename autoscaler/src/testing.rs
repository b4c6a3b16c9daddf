//! Shared by the tests of several modules.

use forebay_schemas::{WorkerRecord, WorkerState};

/// A ready worker that has done nothing yet.
pub fn record(id: &str) -> WorkerRecord {
    WorkerRecord {
        id: id.into(),
        model: "m".into(),
        state: WorkerState::Ready,
        device: "cpu".into(),
        dtype: "f32".into(),
        host: "host".into(),
        pid: 1,
        version: "0".into(),
        started_at_ms: 0,
        beat_at_ms: 0,
        progress_at_ms: 0,
        in_flight: 0,
        jobs_done: 0,
        tokens_done: 0,
        busy_ms: 0,
        load_ms: 0,
        slots_free_tokens: 0,
        gpu: None,
    }
}
