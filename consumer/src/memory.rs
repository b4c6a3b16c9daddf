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
/// The engine's own choice where nothing limits the memory.
const PAGES_BYTES_MAX: u64 = 1 << 30;
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

    /// Refuses what needs more bytes than are left, and returns how many those are.
    pub fn check_bytes(&self, needed: u64) -> Result<(), u64> {
        let Some(bytes_max) = self.bytes_max else { return Ok(()) };
        let left = bytes_max.saturating_sub(used_bytes());
        if needed > left { Err(left) } else { Ok(()) }
    }

    /// How many bytes keys and values of generated texts may take: a quarter of the limit, beside weights, prompts and
    /// what is written, and no more than [`PAGES_BYTES_MAX`]. `None` where nothing limits the memory.
    pub fn for_pages(&self) -> Option<u64> {
        self.bytes_max.map(|bytes_max| (bytes_max / 4).min(PAGES_BYTES_MAX))
    }

    /// How many bytes the deliveries in hand may take, at most `most`: half of what is left now, after loading, up to
    /// the share at which no more work is taken, without the largest batch. The other half is for what is not counted:
    /// buffers of connections, the texts that are being tokenised, and memory that the allocator keeps.
    pub fn for_deliveries(&self, batch_tokens: usize, most: u64) -> u64 {
        let Some(bytes_max) = self.bytes_max else { return most };
        let batch = self.bytes_per_token.saturating_mul(batch_tokens as u64);
        let full = bytes_max / 100 * FULL_PERCENT;
        (full.saturating_sub(used_bytes()).saturating_sub(batch) / 2).min(most)
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
                Err(format!("{used} of {bytes_max} bytes are used: jobs are taken one at a time"))
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

/// The most memory that this process had; 0 where the system does not report it.
pub(crate) fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}

/// The least limit of this process's control group and of those around it, of version 2 or 1, if there is one.
fn control_group_bytes_max() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    bytes_max_of(&groups, Path::new("/sys/fs/cgroup"))
}

/// The least limit of the groups that `/proc/self/cgroup` names, under `root`.
fn bytes_max_of(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (controllers, own) = line.split_once(':')?.1.split_once(':')?;
        let (folder, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // A limit of a group around it holds too. Inside a container its own group is the root, whatever the path says:
        // folders that are not there are passed over.
        let around = Path::new(own.trim_start_matches('/')).ancestors();
        around.filter_map(|group| limit_in(&folder.join(group).join(file))).min()
    });
    limits.min()
}

/// The number in a file, unless it stands for no limit: `max` in version 2, in version 1 about 2^63.
fn limit_in(file: &Path) -> Option<u64> {
    const NONE_FROM: u64 = 1 << 62;
    let limit = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (limit < NONE_FROM).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_over_what_is_left_is_refused_and_one_within_it_is_not() {
        let used = used_bytes();
        assert!(used > 1_000_000, "this process uses some memory: {used}");
        assert!(peak_bytes() > 1_000_000);
        let memory = MemoryLimit::new(used + (1 << 30), 1 << 20);
        assert!(memory.check(16).is_ok());
        let error = memory.check(2_000).unwrap_err();
        assert!(error.is_out_of_memory() && error.to_string().contains("2000 tokens"), "{error}");
        assert_eq!(memory.check_bytes(1 << 29), Ok(()));
        let left = memory.check_bytes(1 << 31).unwrap_err();
        assert!(left <= 1 << 30, "{left}");
    }

    #[test]
    fn pages_have_a_quarter_of_the_limit_and_no_more_than_they_have_without_one() {
        let pages = |bytes_max| MemoryLimit { bytes_max, bytes_per_token: 0 }.for_pages();
        assert_eq!(pages(Some(512 << 20)), Some(128 << 20));
        assert_eq!(pages(Some(64 << 30)), Some(PAGES_BYTES_MAX));
        assert_eq!(pages(None), None);
    }

    #[test]
    fn deliveries_have_half_of_what_is_left_after_loading() {
        let used = used_bytes();
        let memory = MemoryLimit::new((used + (200 << 20)) / 90 * 100, 1 << 10);
        let bytes = memory.for_deliveries(20 << 10, u64::MAX) >> 20;
        assert!((80..=92).contains(&bytes), "{bytes} MiB of 200 - 20");
        assert_eq!(memory.for_deliveries(0, 1_000), 1_000);
        assert_eq!(MemoryLimit::new(1, 1).for_deliveries(0, 1_000), 0);
        let none = MemoryLimit { bytes_max: None, bytes_per_token: 1 };
        assert_eq!(none.for_deliveries(4_096, 256), 256);
    }

    #[test]
    fn the_least_limit_of_a_control_group_and_those_around_it_counts_in_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let v1 = "5:cpu,cpuacct:/pod/one\n4:memory:/pod/one\n1:name=systemd:/pod/one\n";
        let v2 = "0::/pod/one\n";
        let limit = |groups| bytes_max_of(groups, root.path());
        assert_eq!((limit(v1), limit(v2)), (None, None));
        write("memory/pod/one/memory.limit_in_bytes", "9223372036854771712\n");
        write("pod/one/memory.max", "max\n");
        assert_eq!((limit(v1), limit(v2)), (None, None), "the files say that there is no limit");
        write("memory/pod/memory.limit_in_bytes", "300\n");
        write("pod/memory.max", "400\n");
        assert_eq!((limit(v1), limit(v2)), (Some(300), Some(400)));
        write("memory/pod/one/memory.limit_in_bytes", "200\n");
        write("pod/one/memory.max", "500\n");
        assert_eq!((limit(v1), limit(v2)), (Some(200), Some(400)));
        // As a container sees it, whose group is mounted as the root.
        write("memory.max", "100\n");
        assert_eq!(limit("0::/../../elsewhere\n"), Some(100));
        write("memory/memory.limit_in_bytes", "90\n");
        assert_eq!(limit("4:memory:/docker/0123\n"), Some(90));
    }

    #[test]
    fn without_a_limit_everything_fits() {
        let memory = MemoryLimit { bytes_max: None, bytes_per_token: u64::MAX };
        assert!(memory.check(usize::MAX).is_ok());
        assert!(memory.check_bytes(u64::MAX).is_ok());
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
