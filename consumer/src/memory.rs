//! The limit on this worker's memory: a batch that would exceed it is refused before it is computed, and near the limit
//! no more work is taken.

use std::{fs, path::Path, time::Duration};

use forebay_engine::EngineError;
use forebay_fabric::telemetry::Health;
use tokio_util::sync::CancellationToken;

/// Above this share of the limit no more work is taken ...
const FULL_PERCENT: u64 = 90;
/// ... until less than this share is used.
const ROOM_PERCENT: u64 = 80;
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// The condition of the worker's health that says so.
pub const CONDITION: &str = "memory";

/// The limit on the memory of this process.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLimit {
    /// The most bytes this process may use; `None` where nothing limits it.
    bytes_max: Option<u64>,
    /// Bytes that a token takes while it is computed.
    bytes_per_token: u64,
}

impl MemoryLimit {
    /// `configured` bytes, or with 0 what the control group allows.
    pub fn new(configured: u64, bytes_per_token: usize) -> Self {
        let bytes_max = if configured > 0 { Some(configured) } else { control_group_bytes_max() };
        Self { bytes_max, bytes_per_token: bytes_per_token as u64 }
    }

    /// Refuses a batch that does not fit into what is left.
    pub fn check(&self, tokens: usize) -> Result<(), EngineError> {
        let Some(bytes_max) = self.bytes_max else { return Ok(()) };
        let left = bytes_max.saturating_sub(used_bytes());
        let needed = self.bytes_per_token.saturating_mul(tokens as u64);
        if needed > left { Err(EngineError::OutOfMemory { tokens, needed, left }) } else { Ok(()) }
    }

    /// Keeps the condition [`CONDITION`] of `health` true to how much is used, until `stop`.
    pub async fn watch(self, health: Health, stop: CancellationToken) {
        let Some(bytes_max) = self.bytes_max else { return };
        tracing::info!(bytes_max, "memory is limited");
        let mut tick = tokio::time::interval(CHECK_EVERY);
        let mut full = false;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let used = used_bytes();
            full = is_full(full, used, bytes_max);
            let state = if full {
                Err(format!("{used} of {bytes_max} bytes are used: no work is taken"))
            } else {
                Ok(())
            };
            health.set(CONDITION, state);
        }
    }
}

/// Whether no more work is taken, from whether it was so before.
fn is_full(before: bool, used: u64, bytes_max: u64) -> bool {
    let share = if before { ROOM_PERCENT } else { FULL_PERCENT };
    used > bytes_max / 100 * share
}

/// Resident memory of this process; 0 where the system does not report it.
fn used_bytes() -> u64 {
    /// The kernel's unit here on every processor that the engine runs on.
    const PAGE_BYTES: u64 = 4_096;
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}

/// The limit of this process's control group (version 2, as containers have it), if it has one.
fn control_group_bytes_max() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = Path::new("/sys/fs/cgroup");
    // Inside a container its own group is the root, whatever the path says.
    let folders = [root.join(own.trim_start_matches('/')), root.to_path_buf()];
    folders
        .iter()
        .find_map(|folder| fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_over_what_is_left_is_refused_and_one_within_it_is_not() {
        let used = used_bytes();
        assert!(used > 1_000_000, "this process uses some memory: {used}");
        let memory = MemoryLimit::new(used + (1 << 30), 1 << 20);
        assert!(memory.check(16).is_ok());
        let error = memory.check(2_000).unwrap_err();
        assert!(error.is_out_of_memory() && error.to_string().contains("2000 tokens"), "{error}");
    }

    #[test]
    fn without_a_limit_everything_fits() {
        let memory = MemoryLimit { bytes_max: None, bytes_per_token: u64::MAX };
        assert!(memory.check(usize::MAX).is_ok());
    }

    #[test]
    fn a_full_worker_takes_work_again_only_when_there_is_room() {
        assert!(!is_full(false, 900, 1_000));
        assert!(is_full(false, 901, 1_000));
        assert!(is_full(true, 801, 1_000), "as much as is taken otherwise");
        assert!(!is_full(true, 800, 1_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_over_its_limit_says_so() {
        let health = Health::new(&[]);
        let stop = CancellationToken::new();
        tokio::spawn(MemoryLimit::new(1, 1).watch(health.clone(), stop.clone()));
        tokio::time::sleep(2 * CHECK_EVERY).await;
        assert!(!health.ready());
        stop.cancel();
    }
}
