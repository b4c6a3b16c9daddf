//! A process that can't outlive the test process, however that ends.
//!
//! Between the two stands a shell that holds the reading end of a pipe. While the test process lives the
//! pipe is open. When it ends, by return, panic or SIGKILL, the kernel closes the pipe; the shell sees the
//! end of its input, kills the whole process group and sweeps up the folder it was given.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// `setsid` gives the child a process group of its own without a fork, so `$!` is the child and its group.
/// The second background job is the one that waits for the pipe to close; it ignores TERM once it cuts, so
/// that the sweep is never left half done.
const SCRIPT: &str = r#"
sweep=$1 in=$2 out=$3 err=$4; shift 4
exec 3<&0
setsid "$@" <"$in" >>"$out" 2>>"$err" 3<&- &
child=$!
echo "$child"
exec >/dev/null 2>&1
{ read -r _ <&3; trap '' TERM; kill -KILL "-$child" "$child"; [ -z "$sweep" ] || rm -rf -- "$sweep"; } &
guard=$!
wait "$child"; code=$?
kill -KILL "-$child"
kill -TERM "$guard"; wait "$guard"
exit "$code"
"#;

/// Where a guarded process reads and writes, and what is removed when it is cut loose.
#[derive(Debug, Clone)]
pub struct Streams {
    /// Standard input; `None` is empty.
    pub input: Option<PathBuf>,
    /// Standard output, appended to.
    pub output: PathBuf,
    /// Standard error, appended to.
    pub errors: PathBuf,
    /// A folder to remove when the test process has gone without doing so itself.
    pub sweep: Option<PathBuf>,
}

impl Streams {
    /// Everything the process says goes to one file.
    pub fn to(log: &Path) -> Self {
        Self { input: None, output: log.into(), errors: log.into(), sweep: None }
    }

    /// These streams, with a folder that is removed at the end in any case.
    #[must_use]
    pub fn sweeping(self, folder: &Path) -> Self {
        Self { sweep: Some(folder.into()), ..self }
    }
}

/// A running process and its group; dropping it kills both and waits until they are gone.
#[derive(Debug)]
pub struct ChildGuard {
    shell: Child,
    lifeline: Option<ChildStdin>,
    pid: u32,
}

impl ChildGuard {
    /// Starts `command` (program, arguments, environment and folder are taken from it).
    pub fn tie(command: &Command, streams: &Streams) -> Self {
        let mut shell = wrap(command, streams)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0) // out of reach of a Ctrl-C meant for the tests: the pipe ends it
            .spawn()
            .expect("start a shell");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("read from the shell");
        let pid = line.trim().parse().unwrap_or_else(|_| panic!("no process for {command:?}"));
        Self { lifeline: shell.stdin.take(), shell, pid }
    }

    /// The process id, which is also the id of its group.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal by name (`TERM`, `KILL`, `STOP`, `CONT`) to the process. One that has gone is let be.
    pub fn signal(&self, name: &str) {
        send(name, &self.pid.to_string());
    }

    /// Sends a signal by name to the process and all that it has started.
    pub fn signal_all(&self, name: &str) {
        let group = format!("-{}", self.pid);
        let sent =
            Command::new("kill").args(["-s", name, "--", &group]).stderr(Stdio::null()).status();
        sent.expect("run kill");
    }

    /// The exit code once it has exited; 128 and the signal's number when a signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.shell.try_wait().expect("wait for the shell").map(|status| status.code().unwrap_or(-1))
    }

    /// Ends the process at once and waits until it is gone. Unlike a drop it leaves the folder alone.
    pub fn kill(mut self) {
        self.signal("KILL");
        let _ = self.shell.wait();
    }
}

fn send(name: &str, to: &str) {
    let sent = Command::new("kill").args(["-s", name, "--", to]).stderr(Stdio::null()).status();
    sent.expect("run kill");
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.shell.wait();
    }
}

fn wrap(command: &Command, streams: &Streams) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", SCRIPT, "guard"]);
    shell.arg(streams.sweep.as_deref().unwrap_or(Path::new("")));
    shell.arg(streams.input.as_deref().unwrap_or(Path::new("/dev/null")));
    shell.arg(&streams.output).arg(&streams.errors);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        set(&mut shell, name, value);
    }
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    shell
}

fn set(shell: &mut Command, name: &OsStr, value: Option<&OsStr>) {
    match value {
        Some(value) => shell.env(name, value),
        None => shell.env_remove(name),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::{SOON, until, until_true};

    fn guarded(script: &str, folder: &Path) -> ChildGuard {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let log = folder.with_extension("log");
        ChildGuard::tie(&command, &Streams::to(&log).sweeping(folder))
    }

    async fn until_written(path: &Path) -> String {
        let written =
            async || std::fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'));
        until("the child writes a line", SOON, written).await
    }

    fn lives(pid: &str) -> bool {
        let state =
            std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !state.is_empty() && !state.contains(") Z ")
    }

    #[tokio::test]
    async fn a_cut_line_ends_the_whole_group_and_sweeps_the_folder() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("state");
        std::fs::create_dir(&folder).unwrap();
        let script =
            format!("trap '' TERM; sleep 600 & echo $! > {}/child; wait", folder.display());
        let guard = guarded(&script, &folder);
        let grandchild = until_written(&folder.join("child")).await;
        assert!(lives(&grandchild) && lives(&guard.pid().to_string()));
        let pid = guard.pid().to_string();
        drop(guard);
        assert!(!folder.exists());
        until_true("the group is gone", SOON, async || !lives(&grandchild) && !lives(&pid)).await;
    }

    #[tokio::test]
    async fn the_exit_code_comes_through_and_the_folder_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("state");
        std::fs::create_dir(&folder).unwrap();
        let mut guard = guarded("exit 7", &folder);
        assert_eq!(until("the child ends", SOON, async || guard.exit_code()).await, 7);
        drop(guard);
        assert!(folder.exists());
    }

    #[tokio::test]
    async fn the_exit_code_names_the_signal() {
        let scratch = tempfile::tempdir().unwrap();
        let mut guard = guarded("exec sleep 600", &scratch.path().join("state"));
        guard.signal("KILL");
        assert_eq!(until("the child ends", SOON, async || guard.exit_code()).await, 128 + 9);
    }
}
