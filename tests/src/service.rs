//! A running program of the fleet, its telemetry and its log.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::child_guard::{ChildGuard, Streams};
use crate::patience::{PATIENT, until, until_true};
use crate::{ports, probe};

/// How much of a log a failure shows.
const TAIL_LINES: usize = 60;

/// A server under test; killed when dropped, and its log shown when that is because a test failed.
#[derive(Debug)]
pub struct Service {
    name: String,
    guard: ChildGuard,
    log: PathBuf,
    telemetry_port: u16,
}

impl Service {
    /// Starts `command` with a telemetry port of its own; its log goes to `folder`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Self {
        let telemetry_port = ports::free_port();
        command.env("FOREBAY_TELEMETRY__LISTEN", format!("127.0.0.1:{telemetry_port}"));
        let log = folder.join(format!("{name}-{telemetry_port}.log"));
        Self {
            name: name.into(),
            guard: ChildGuard::tie(&command, &Streams::to(&log)),
            log,
            telemetry_port,
        }
    }

    /// Waits until it says that it can serve.
    pub async fn ready(mut self) -> Self {
        let what = format!("{} is ready", self.name);
        until_true(&what, PATIENT, async || {
            if let Some(code) = self.guard.exit_code() {
                panic!("{} ended with code {code} before it was ready", self.name);
            }
            self.readiness() == Some(200)
        })
        .await;
        self
    }

    /// The status of `/readyz`; `None` when no server answers.
    pub fn readiness(&self) -> Option<u16> {
        self.get("/readyz").map(|(status, _)| status)
    }

    /// Status and body of a path on the telemetry port.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        probe::get(&format!("http://127.0.0.1:{}{path}", self.telemetry_port))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.guard.pid()
    }

    /// The port of `/metrics`, `/healthz` and `/readyz`.
    pub fn telemetry_port(&self) -> u16 {
        self.telemetry_port
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        self.guard.signal(name);
    }

    /// Waits for the end and answers the exit code; 128 and the signal's number when a signal ended it.
    pub async fn exit_code(&mut self, limit: Duration) -> i32 {
        let what = format!("{} ends", self.name);
        until(&what, limit, async || self.guard.exit_code()).await
    }

    /// Its exit code, if it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.guard.exit_code()
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.guard.exit_code().is_none()
    }

    /// Everything it has written to standard error (and output).
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Shows the end of the log on standard error.
    pub fn show_log(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        eprintln!("--- {} (pid {}) said last:\n{}\n---", self.name, self.pid(), tail.join("\n"));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_log();
        }
    }
}
