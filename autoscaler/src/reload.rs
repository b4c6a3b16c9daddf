//! Reloading the configuration: it is read again when its file changes, or on SIGHUP; a broken one is refused.

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

/// When a file was changed, and how long it is.
type Looks = (SystemTime, u64);

/// Watches the configuration.
pub struct Reload {
    path: PathBuf,
    /// Whether it was named, and so must be there.
    named: bool,
    hangup: Signal,
    /// The file's size and time of change when it was read last.
    seen: Option<Looks>,
    /// Its size and time of change a moment ago, when they differed: it may be half written.
    changing: Option<Looks>,
    /// The text that holds; `None` without a file.
    pub text: Option<String>,
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
            changing: None,
            text: std::fs::read_to_string(&path).ok(),
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
        self.changing = looks(&self.path);
    }

    /// The new configuration with the text that it was made of, if the file has changed, has come to rest, and can be
    /// read. It holds once it is accepted.
    pub fn look(&mut self) -> Option<(Config, Option<String>)> {
        let looks = looks(&self.path);
        // A file that is gone for a moment is being rewritten.
        if looks == self.seen || (looks.is_none() && self.named) {
            return None;
        }
        if looks.is_some() && looks != self.changing {
            self.changing = looks;
            return None;
        }
        self.seen = looks;
        match self.read() {
            Ok(read) => Some(read),
            Err(error) => {
                self.refuse(&error);
                None
            }
        }
    }

    /// Makes the configuration that was read the one that holds.
    pub fn accept(&mut self, text: Option<String>) {
        counter!("forebay_config_reloads_total", "outcome" => "applied").increment(1);
        self.read_at_ms = clock::now_ms();
        self.refused = None;
        self.text = text;
    }

    fn read(&self) -> Result<(Config, Option<String>), ConfigError> {
        let text = std::fs::read_to_string(&self.path).ok();
        let loaded = Config::load(self.named.then_some(self.path.as_path()))?;
        Ok((loaded.config, text))
    }

    /// Refuses the configuration that was read; the old one holds.
    pub fn refuse(&mut self, error: &dyn std::fmt::Display) {
        counter!("forebay_config_reloads_total", "outcome" => "refused").increment(1);
        tracing::error!(%error, "the configuration is refused, the old one holds");
        self.refused = Some(format!("the configuration is refused, the old one holds: {error}"));
    }
}

fn looks(path: &Path) -> Option<Looks> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_still_being_written_is_waited_for_and_a_broken_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("forebay.toml");
        fs::write(&file, "[models.a]\nsource = 'folder:/a'\n").unwrap();
        let mut reload = Reload::new(Some(&file)).unwrap();
        assert!(reload.look().is_none(), "nothing has changed");

        fs::write(&file, "").unwrap();
        assert!(reload.look().is_none(), "it may not be whole");
        fs::write(&file, "[models.a]\nsource = 'folder:/a'\n[models.b]\nsource = 'folder:/b'\n")
            .unwrap();
        assert!(reload.look().is_none(), "it has changed again");
        let (config, text) = reload.look().unwrap();
        assert_eq!(config.models.len(), 2);
        reload.accept(text);
        let held = reload.text.clone();
        assert!(held.as_ref().unwrap().contains("models.b"));

        fs::write(&file, "[models.a").unwrap();
        assert!(reload.look().is_none() && reload.look().is_none());
        assert!(
            reload.refused.as_ref().unwrap().contains("forebay.toml:1"),
            "{:?}",
            reload.refused
        );
        assert_eq!(reload.text, held, "the text that holds is the old one");
        fs::remove_file(&file).unwrap();
        assert!(reload.look().is_none() && reload.look().is_none());
    }
}
