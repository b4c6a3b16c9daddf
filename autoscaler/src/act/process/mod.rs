//! Workers as processes beside the autoscaler.
//!
//! Each has a small file on disk, so that an autoscaler that comes back finds it: the file is written before the
//! process is started, and again with its id. A worker is in a process group of its own and outlives us; its log is a
//! file that is rotated when it grows.

mod entry;
mod logs;
mod signal;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    net::Ipv4Addr,
    os::unix::{
        fs::OpenOptionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use forebay_fabric::{
    clock,
    config::{LauncherKind, ProcessConfig},
};
use forebay_schemas::ModelId;
use futures_util::{FutureExt, future::BoxFuture};

use self::entry::Entry;
use super::{
    ask::ask,
    environment::is_for_workers,
    launcher::{Instance, InstanceState, LaunchError, Launcher, Order, REMOTE_DEVICE},
};
use crate::decide::Answer;

const KIND: &str = LauncherKind::Process.as_str();
/// How long a worker without work stays when no autoscaler is there to drain it, in seconds.
const IDLE_S_MAX: u64 = 1_800;

/// Launches processes.
pub struct Processes {
    inner: Arc<Inner>,
}

struct Inner {
    config: ProcessConfig,
    program: PathBuf,
    folder: PathBuf,
    /// The threads of a worker that computes on the processor.
    threads: usize,
    /// The configuration file that workers read: a copy of what holds, since the original may be broken by now.
    config_file: Option<PathBuf>,
    idle_s_max: u64,
    /// The processes that this autoscaler started itself: only their exit status is known.
    children: Mutex<BTreeMap<String, Child>>,
}

impl Processes {
    /// A launcher that keeps its files in the configured folder, which is made if it is not there. Its workers read
    /// `config_text`, if there is one.
    pub fn new(
        config: &ProcessConfig,
        config_text: Option<&str>,
        idle_s_max: u64,
    ) -> Result<Self, LaunchError> {
        let failed = |reason: String| error("prepare", reason);
        let folder = config.state_dir().map_err(|e| failed(e.to_string()))?;
        let config_file = keep_config(config, config_text).map_err(|e| {
            failed(format!("{}: {e}; set autoscaler.process.state_dir", folder.display()))
        })?;
        let program = match &config.program {
            Some(program) => program.clone(),
            None => beside_us().map_err(|e| error("locate forebay-worker", e.to_string()))?,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let inner = Inner {
            program,
            folder,
            threads: (cores / cpu_slots(config) as usize).max(1),
            config_file,
            idle_s_max: if idle_s_max == 0 { IDLE_S_MAX } else { idle_s_max },
            children: Mutex::default(),
            config: config.clone(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs on a thread where it may wait for a disk.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, LaunchError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, LaunchError>> {
        let inner = self.inner.clone();
        let task = tokio::task::spawn_blocking(move || work(&inner));
        async move { task.await.map_err(|e| error("run a task", e.to_string())).flatten() }.boxed()
    }
}

/// Writes the configuration that holds to the file that workers read; nothing without one.
pub fn keep_config(config: &ProcessConfig, text: Option<&str>) -> io::Result<Option<PathBuf>> {
    let folder = config.state_dir().map_err(io::Error::other)?;
    std::fs::create_dir_all(&folder)?;
    let Some(text) = text.map(forebay_fabric::config::for_workers) else { return Ok(None) };
    let file = folder.join("accepted.toml");
    let fresh = folder.join("accepted.toml.new");
    // There may be passwords in it.
    let mut options = File::options();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?
        .write_all(text.as_bytes())?;
    std::fs::rename(fresh, &file)?;
    Ok(Some(file))
}

/// The most workers on the processor: as configured, else one for every two cores.
pub fn cpu_slots(config: &ProcessConfig) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match config.cpu_slots {
        0 => u32::try_from(cores / 2).unwrap_or(u32::MAX).max(1),
        slots => slots,
    }
}

fn beside_us() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("forebay-worker"))
}

fn error(action: impl Into<String>, reason: impl Into<String>) -> LaunchError {
    LaunchError { launcher: KIND, action: action.into(), reason: reason.into() }
}

impl Launcher for Processes {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn launch<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<(), LaunchError>> {
        let order = order.clone();
        self.blocking(move |inner| inner.launch(&order))
    }

    fn drain<'a>(
        &'a self,
        _model: &'a ModelId,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<(), LaunchError>> {
        let names = names.to_vec();
        self.blocking(move |inner| names.iter().try_for_each(|name| inner.drain(name)))
    }

    fn end<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), LaunchError>> {
        let name = name.to_owned();
        self.blocking(move |inner| inner.end(&name))
    }

    /// Asks the worker at the port on which its process listens.
    fn ask<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Answer> {
        let name = name.to_owned();
        let port = self.blocking(move |inner| Ok(inner.port(&name)));
        async move {
            match port.await {
                Ok(Some(port)) => ask((Ipv4Addr::LOCALHOST, port).into()).await,
                _ => Answer::Unreachable,
            }
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        _models: &'a [ModelId],
    ) -> BoxFuture<'a, Result<Vec<Instance>, LaunchError>> {
        self.blocking(Inner::list)
    }
}

impl Inner {
    fn launch(&self, order: &Order) -> Result<(), LaunchError> {
        let action = || format!("launch {}", order.name);
        let mut entry = Entry {
            name: order.name.clone(),
            model: order.model.to_string(),
            device: order.device.clone(),
            launched_at_ms: clock::now_ms(),
            process: None,
            draining: false,
        };
        if entry::path(&self.folder, &order.name).exists() {
            return Ok(()); // asked for twice
        }
        entry.save(&self.folder).map_err(|e| error(action(), e.to_string()))?;
        let child = self.command(order).and_then(|mut command| command.spawn());
        let child = child.map_err(|e| {
            entry::remove(&self.folder, &order.name);
            error(
                action(),
                format!("{}: {e}; set autoscaler.process.program", self.program.display()),
            )
        })?;
        entry.process = signal::Process::find(child.id());
        self.children().insert(order.name.clone(), child);
        entry.save(&self.folder).map_err(|e| error(action(), e.to_string()))
    }

    fn command(&self, order: &Order) -> io::Result<Command> {
        let log = logs::open(&self.folder, &order.name)?;
        let key = self.api_key_variable(&order.model);
        let key = key.as_deref();
        let mut command = Command::new(&self.program);
        command
            .args(["--model", order.model.as_str()])
            .args(["--name", &order.name])
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| {
                // A name that is no text is none of a secret.
                name.to_str().is_none_or(|name| is_for_workers(name) || key == Some(name))
            }))
            // Workers on one host can't all listen on the one port of the configuration.
            .env("FOREBAY_TELEMETRY__LISTEN", "127.0.0.1:0")
            .env("FOREBAY_WORKER__IDLE_S_MAX", self.idle_s_max.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0); // what interrupts the autoscaler does not interrupt its workers
        if order.device != REMOTE_DEVICE {
            command.args(["--device", &order.device]);
        }
        if order.device == "cpu" {
            command.args(["--threads", &self.threads.to_string()]);
        }
        if let Some(file) = &self.config_file {
            command.env("FOREBAY_CONFIG", file);
        }
        Ok(command)
    }

    /// The variable with the API key of a remote model's endpoint: its workers get it, and no others.
    fn api_key_variable(&self, model: &ModelId) -> Option<String> {
        let text = std::fs::read_to_string(self.config_file.as_ref()?).ok()?;
        forebay_fabric::config::api_key_env(&text, model)
    }

    fn drain(&self, name: &str) -> Result<(), LaunchError> {
        let Some(mut entry) = Entry::load(&self.folder, name) else { return Ok(()) };
        if entry.draining {
            return Ok(()); // it drains already
        }
        entry.draining = true;
        let failed = |e: io::Error| error(format!("drain {name}"), e.to_string());
        entry.clone().send(&self.folder, signal::TERM).map_err(failed)?;
        entry.save(&self.folder).map_err(failed)
    }

    fn end(&self, name: &str) -> Result<(), LaunchError> {
        let Some(entry) = Entry::load(&self.folder, name) else { return Ok(()) };
        entry
            .send(&self.folder, signal::KILL)
            .map_err(|e| error(format!("end {name}"), e.to_string()))
    }

    fn port(&self, name: &str) -> Option<u16> {
        Entry::load(&self.folder, name)?.process?.listens_on()
    }

    fn list(&self) -> Result<Vec<Instance>, LaunchError> {
        let entries = entry::all(&self.folder)
            .map_err(|e| error("list its workers", format!("{}: {e}", self.folder.display())))?;
        let instances = entries.into_iter().map(|entry| self.look_at(entry)).collect();
        logs::keep_short(&self.folder, self.config.log_bytes_max);
        Ok(instances)
    }

    fn look_at(&self, mut entry: Entry) -> Instance {
        // In this order: one that ends in between has left its status.
        let lives = entry.lives(&self.folder);
        let ended = if lives { None } else { self.exit_of(&entry.name) };
        let state = match ended {
            None if lives && entry.draining => InstanceState::Draining,
            None if lives => InstanceState::Running,
            ended => {
                entry::remove(&self.folder, &entry.name);
                // A worker that was asked to drain before it listened for signals ends by SIGTERM.
                let drained =
                    entry.draining && ended.is_none_or(|status| status.signal() == Some(15));
                let well = drained || ended.is_some_and(|status| status.success());
                InstanceState::Ended { how: self.how(&entry.name, ended, well), well }
            }
        };
        Instance {
            name: std::mem::take(&mut entry.name),
            model: entry.model,
            device: Some(entry.device),
            launched_at_ms: entry.launched_at_ms,
            state,
        }
    }

    /// How one that we started has ended; `None` while it runs, or when another autoscaler started it.
    fn exit_of(&self, name: &str) -> Option<ExitStatus> {
        let mut children = self.children();
        let status = children.get_mut(name)?.try_wait().ok()??;
        children.remove(name);
        Some(status)
    }

    fn how(&self, name: &str, status: Option<ExitStatus>, well: bool) -> String {
        let how = match status {
            None => "ended while no autoscaler watched".to_owned(),
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("killed by signal {signal}"),
                (None, None) => "ended".to_owned(),
            },
        };
        match logs::last_line(&self.folder, name) {
            Some(line) if !well => format!("{how}: {line}"),
            _ => how,
        }
    }

    fn children(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_read_the_configuration_without_addresses_that_they_have_no_use_for() {
        let folder = tempfile::tempdir().unwrap();
        let config =
            ProcessConfig { state_dir: Some(folder.path().into()), ..ProcessConfig::default() };
        let text = "amqp_url = 'amqp://a'\nmanagement_url = 'http://me:secret@host'\n\
                    gateway_url = 'http://key@host'\n[models.m.pool]\nmax = 3\n";
        let file = keep_config(&config, Some(text)).unwrap().unwrap();
        let kept = std::fs::read_to_string(file).unwrap();
        assert!(!kept.contains("secret") && !kept.contains("gateway"), "{kept}");
        assert!(kept.contains("amqp://a") && kept.contains("max = 3"), "{kept}");
        let broken = "management_url = \n";
        let file = keep_config(&config, Some(broken)).unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), broken, "its reader says what is wrong");
    }
}
