//! Signals to processes that may not be our children. A process is found again and signalled without ever meaning
//! another one that got its id since.

use std::{collections::BTreeSet, io, path::PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Drain and end.
pub const TERM: Signal = Signal::TERM;
/// End at once.
pub const KILL: Signal = Signal::KILL;

/// A process, distinguished from later ones of the same id by when it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it was started, in the kernel's ticks since boot.
    pub started: u64,
}

impl Process {
    /// The process that has this id now, unless it has ended.
    pub fn find(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses, which may hold anything.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        // The iterator is past the third field: 18 more are skipped up to starttime, field 22.
        let started = fields.nth(18)?.parse().ok()?;
        (!["Z", "X"].contains(&state)).then_some(Self { pid, started })
    }

    /// Whether it runs.
    pub fn lives(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// Sends it a signal, unless it has ended.
    pub fn send(self, signal: Signal) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        // The descriptor means one process for good: it is opened first, and then looked at.
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        if !self.lives() {
            return Ok(());
        }
        match pidfd_send_signal(handle, signal) {
            Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The port of the loopback interface on which it listens: a worker has one, for its telemetry. `None` when there
    /// is none, or the kernel does not show it.
    pub fn listens_on(self) -> Option<u16> {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?;
        let sockets: BTreeSet<String> = files
            .filter_map(|file| {
                std::fs::read_link(file.ok()?.path()).ok()?.to_str().map(str::to_owned)
            })
            .filter_map(|file| Some(file.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        let all = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.pid)).ok()?;
        let port = all.lines().skip(1).find_map(|line| listening(line, &sockets));
        port.filter(|_| self.lives())
    }

    /// The process that was started with these arguments next to each other.
    pub fn with_arguments(wanted: &[&str]) -> Option<Self> {
        let processes = std::fs::read_dir("/proc").ok()?.filter_map(Result::ok);
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| has_arguments(*pid, wanted)).find_map(Self::find)
    }
}

/// The port of a line of `/proc/<pid>/net/tcp`, if that is a listening socket among these, by its inode.
fn listening(line: &str, sockets: &BTreeSet<String>) -> Option<u16> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let listens = *fields.get(3)? == "0A" && sockets.contains(*fields.get(9)?);
    let port = fields.get(1)?.rsplit_once(':')?.1;
    u16::from_str_radix(port, 16).ok().filter(|_| listens)
}

fn has_arguments(pid: u32, wanted: &[&str]) -> bool {
    let Ok(line) = std::fs::read(PathBuf::from(format!("/proc/{pid}/cmdline"))) else {
        return false;
    };
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    arguments.windows(wanted.len()).any(|window| {
        window.iter().zip(wanted).all(|(argument, wanted)| *argument == wanted.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_found_signalled_and_known_to_have_ended() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::find(child.id()).unwrap();
        assert!(process.lives());
        process.send(TERM).unwrap();
        child.wait().unwrap();
        assert!(!process.lives());
        process.send(TERM).unwrap();
    }

    #[test]
    fn another_one_with_the_same_id_is_not_meant() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::find(child.id()).unwrap();
        let earlier = Process { started: process.started - 1, ..process };
        assert!(!earlier.lives());
        earlier.send(KILL).unwrap();
        assert!(process.lives());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_port_on_which_a_process_listens_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // Other tests of this process may listen too.
        let fields = |port: u16, inode| {
            format!("0: 0100007F:{port:04X} 00000000:0000 0A 0:0 00:0 0 0 0 {inode} 1")
        };
        let ours = BTreeSet::from(["77".to_owned()]);
        assert_eq!(listening(&fields(port, 77), &ours), Some(port));
        assert_eq!(listening(&fields(port, 78), &ours), None);
        assert!(Process::find(std::process::id()).unwrap().listens_on().is_some());
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(Process::find(child.id()).unwrap().listens_on(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_is_found_by_its_arguments() {
        let mut child = Command::new("sleep").args(["600.25", "600.75"]).spawn().unwrap();
        let found = || Process::with_arguments(&["600.25", "600.75"]);
        // Between fork and exec it has the arguments of this program.
        while found().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(found().unwrap().pid, child.id());
        assert_eq!(Process::with_arguments(&["600.75", "600.25"]), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
