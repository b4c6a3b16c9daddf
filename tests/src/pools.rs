//! Workers that an autoscaler launched: they outlive it, and so the test has to end them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::patience::until;
use crate::service::Service;

/// Where an autoscaler keeps what it launched. Dropped, all of it is killed.
#[derive(Debug)]
pub struct Pools {
    folder: PathBuf,
}

impl Pools {
    /// Under `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.join("workers") }
    }

    /// The autoscaler's settings for it. An autoscaler that was killed with its test leaves workers behind for
    /// half a minute.
    pub fn settings(&self) -> String {
        format!(
            "[worker]\nidle_s_max = 30\n[autoscaler]\ntick_ms = 100\nlease_ms = 2000\n\
             [autoscaler.process]\ncpu_slots = 8\nstate_dir = \"{}\"\n",
            self.folder.display()
        )
    }

    /// The process ids of those that run, by their names.
    pub fn running(&self) -> Vec<(String, u32)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        let mut running: Vec<(String, u32)> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .filter_map(|path| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok())
            .filter_map(|entry| {
                let pid = u32::try_from(entry["process"]["pid"].as_u64()?).ok()?;
                Some((entry["name"].as_str()?.to_owned(), pid))
            })
            .filter(|(_, pid)| lives(*pid))
            .collect();
        running.sort();
        running
    }

    /// The end of each worker's log.
    pub fn show_logs(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        for log in entries.map(|entry| entry.path()) {
            if log.extension().is_some_and(|extension| extension == "log") {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = &lines[lines.len().saturating_sub(8)..];
                eprintln!("--- {} said last:\n{}", log.display(), tail.join("\n"));
            }
        }
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        for (_, pid) in self.running() {
            signal(pid, "KILL");
        }
    }
}

/// Sends any process a signal by name.
pub fn signal(pid: u32, name: &str) {
    let sent =
        Command::new("kill").args(["-s", name, &pid.to_string()]).stderr(Stdio::null()).status();
    sent.expect("run kill");
}

/// Whether a process runs.
pub fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// An autoscaler's `/status`; `None` when it does not answer.
pub fn status(autoscaler: &Service) -> Option<Value> {
    let (code, body) = autoscaler.get("/status")?;
    (code == 200).then(|| serde_json::from_str(&body).expect("JSON"))
}

/// The state of its only pool.
pub fn pool(autoscaler: &Service) -> Option<Value> {
    status(autoscaler)?["pools"].get(0).cloned()
}

/// The sum of a metric that counts something, over all its labels that contain `label`.
pub fn metric(autoscaler: &Service, name: &str, label: &str) -> u64 {
    let Some((200, text)) = autoscaler.get("/metrics") else { return 0 };
    let samples = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && line.contains(label)
    });
    samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

/// Waits until this many launched workers run.
pub async fn until_running(pools: &Pools, count: usize, limit: std::time::Duration) {
    let what = format!("{count} workers run");
    until(&what, limit, async || (pools.running().len() == count).then_some(())).await;
}
