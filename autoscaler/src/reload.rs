//! The configuration as it changes: read anew when the file does, or on SIGHUP; a broken one is refused.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use forebay_fabric::{
    Config, clock,
    config::{ConfigError, FILE_DEFAULT},
};
use metrics::counter;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Watches the configuration.
pub struct Reload {
    path: PathBuf,
    /// Whether it was named, and so must be there.
    named: bool,
    hangup: Signal,
    /// What the file looked like when it was read last.
    seen: Option<(SystemTime, u64)>,
    /// When it was read last and used, in Unix milliseconds.
    pub read_at_ms: u64,
    /// Why the last one was refused.
    pub refused: Option<String>,
}

impl Reload {
    /// Watches `file`, or `forebay.toml`.
    pub fn new(file: Option<&Path>) -> io::Result<Self> {
        let path = file.unwrap_or(Path::new(FILE_DEFAULT)).to_path_buf();
        Ok(Self {
            seen: looks(&path),
            named: file.is_some(),
            path,
            hangup: signal(SignalKind::hangup())?,
            read_at_ms: clock::now_ms(),
            refused: None,
        })
    }

    /// Waits for SIGHUP.
    pub async fn hung_up(&mut self) {
        if self.hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        self.seen = None;
    }

    /// The new configuration, if the file has changed and can be used.
    pub fn look(&mut self) -> Option<Config> {
        let looks = looks(&self.path);
        // One that is gone for a moment is being written anew.
        if looks == self.seen || (looks.is_none() && self.named) {
            return None;
        }
        self.seen = looks;
        match Config::load(self.named.then_some(self.path.as_path())) {
            Ok(loaded) => {
                self.read_at_ms = clock::now_ms();
                self.refused = None;
                Some(loaded.config)
            }
            Err(error) => {
                self.refuse(&error);
                None
            }
        }
    }

    fn refuse(&mut self, error: &ConfigError) {
        counter!("forebay_config_reloads_total", "outcome" => "refused").increment(1);
        tracing::error!(%error, "the configuration is refused, the old one holds");
        self.refused = Some(format!("the configuration is refused, the old one holds: {error}"));
    }
}

/// When it was changed, and how long it is.
fn looks(path: &Path) -> Option<(SystemTime, u64)> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}
