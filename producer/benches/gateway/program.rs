//! A program under load: how long until its first answer, its memory, its processor time.

use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::http::{Connection, Target};

/// The slowest of them imports for some twenty seconds.
const PATIENCE: Duration = Duration::from_secs(120);
const PAGE_BYTES: u64 = 4_096;
/// The kernel's unit of processor time, which is the same on all processors that Linux runs on.
const TICKS_PER_S: u64 = 100;
/// Where these are among the fields after the name in `/proc/<pid>/stat`.
const GROUP: usize = 2;
const USER_AND_SYSTEM: std::ops::RangeInclusive<usize> = 11..=12;
const RESIDENT_PAGES: usize = 21;

/// A port that nothing listens on now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A running program with all that it started, killed when this is dropped.
pub(crate) struct Program {
    child: Child,
    began: Instant,
    log: std::path::PathBuf,
}

/// The resources of a program, over all its processes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) memory_mb: f64,
    pub(crate) processor: Duration,
}

impl Program {
    /// Starts it in a process group of its own, with a log in `folder`.
    pub(crate) fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = fs::File::create(&log)?;
        command.process_group(0).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let began = Instant::now();
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Self { child, began, log })
    }

    /// Asks until the first answer of 200, and returns how long after its start that was.
    pub(crate) async fn first_answer(&mut self, target: &Target) -> Result<Duration> {
        loop {
            let said = async {
                let mut connection = Connection::open(target).await?;
                let answer = connection.ask(target).await?;
                anyhow::Ok((answer.status, connection.last()))
            };
            let said = said.await;
            if matches!(said, Ok((200, _))) {
                return Ok(self.began.elapsed());
            }
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended, {status}: {}", log());
            }
            ensure!(self.began.elapsed() < PATIENCE, "no answer of 200, but {said:?}: {}", log());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Its resources so far.
    pub(crate) fn used(&self) -> Result<Used> {
        used(|fields| fields.get(GROUP) == Some(&self.child.id().to_string().as_str()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

/// The resources of this process.
pub(crate) fn own() -> Result<Used> {
    let mut used = Used::default();
    add(&fs::read_to_string("/proc/self/stat")?, &mut used, |_| true);
    Ok(used)
}

fn used(is_meant: impl Fn(&[&str]) -> bool) -> Result<Used> {
    let mut used = Used::default();
    for entry in fs::read_dir("/proc")? {
        // One that ends meanwhile is not counted.
        if let Ok(stat) = fs::read_to_string(entry?.path().join("stat")) {
            add(&stat, &mut used, &is_meant);
        }
    }
    Ok(used)
}

/// Adds what one process has used.
fn add(stat: &str, used: &mut Used, is_meant: impl Fn(&[&str]) -> bool) {
    // The name is in parentheses and may have any characters.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' ').collect());
    let fields: Vec<&str> = fields.unwrap_or_default();
    if !is_meant(&fields) {
        return;
    }
    let number = |field: &&str| field.parse::<u64>().unwrap_or(0);
    let ticks: u64 = fields.get(USER_AND_SYSTEM).map_or(0, |times| times.iter().map(number).sum());
    used.processor += Duration::from_millis(ticks * 1_000 / TICKS_PER_S);
    let pages = fields.get(RESIDENT_PAGES).map_or(0, number);
    used.memory_mb += (pages * PAGE_BYTES) as f64 / 1e6;
}
