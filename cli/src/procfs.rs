//! Processes of this machine as `/proc` shows them. A pid alone names nobody for long; a pid with
//! the time of its start and the machine's boot does.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Environment variable that marks every process of an instance; its value is the instance's id.
pub const INSTANCE_VARIABLE: &str = "K8SM_INSTANCE";
/// Environment variable that names the process within its instance.
pub const PROCESS_VARIABLE: &str = "K8SM_PROCESS";

/// One process, unmistakably.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid.
    pub pid: u32,
    /// When it started, in clock ticks after boot (`/proc/<pid>/stat`, field 22).
    pub start_ticks: u64,
    /// Which boot.
    pub boot_id: String,
}

impl ProcessId {
    /// The process that has this pid now; `None` when there is none.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            start_ticks: stat(pid)?.start_ticks,
            boot_id: boot_id(),
        })
    }

    /// Whether it still runs. A zombie does not.
    pub fn is_alive(&self) -> bool {
        self.boot_id == boot_id()
            && stat(self.pid).is_some_and(|s| s.start_ticks == self.start_ticks && !s.zombie)
    }

    /// A descriptor that becomes readable when it ends; `None` when it already has.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            // The pid may have been given to another process before it was opened.
            Ok(fd) => Ok(self.is_alive().then_some(fd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends a signal to exactly this process. `false` when it no longer runs.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(fd) = self.open()? else {
            return Ok(false);
        };
        match pidfd_send_signal(fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// How long ago a process started.
pub fn age(pid: u32) -> Option<Duration> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    // Ticks since boot are far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    let started = stat(pid)?.start_ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Duration::try_from_secs_f64(uptime - started).ok()
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Parent.
    pub parent: u32,
    /// Clock ticks after boot.
    pub start_ticks: u64,
    /// Ended, and not yet waited for.
    pub zombie: bool,
}

/// Reads `/proc/<pid>/stat`.
pub fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name, in parentheses, may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // Field 22; state is field 3, parent field 4.
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        parent,
        start_ticks,
        zombie: matches!(state, "Z" | "X"),
    })
}

/// All pids.
pub fn pids() -> Vec<u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// A variable in the environment that a process was started with.
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment
        .split(|b| *b == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok())
        .find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
        .map(str::to_owned)
}

/// The binary that a process runs, also when its file has been removed or replaced.
pub fn executable(pid: u32) -> Option<PathBuf> {
    let link = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let text = link.to_str()?;
    Some(PathBuf::from(
        text.strip_suffix(" (deleted)").unwrap_or(text),
    ))
}

/// A process' command line, words joined by blanks.
pub fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = bytes
        .split(|b| *b == 0)
        .filter(|w| !w.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Processes of an instance, by their environment: those that it started and what those started.
pub fn of_instance(id: &str) -> Vec<u32> {
    let own = std::process::id();
    pids()
        .into_iter()
        .filter(|pid| *pid != own && variable(*pid, INSTANCE_VARIABLE).as_deref() == Some(id))
        .collect()
}

/// Processes whose binary is below a directory.
pub fn running_below(dir: &Path) -> Vec<u32> {
    pids()
        .into_iter()
        .filter(|pid| executable(*pid).is_some_and(|exe| exe.starts_with(dir)))
        .collect()
}

/// Which boot this is.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|s| s.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_is_no_trap() {
        let text = "7 (a ) b) S 3 7 7 0 -1 4 1 1 0 0 1 1 0 0 20 0 1 0 4242 1 1 1";
        let stat = parse_stat(text).unwrap();
        assert_eq!(
            (stat.parent, stat.start_ticks, stat.zombie),
            (3, 4242, false)
        );
    }

    #[test]
    fn a_process_is_known_by_pid_and_start() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        let other = ProcessId {
            start_ticks: me.start_ticks + 1,
            ..me.clone()
        };
        assert!(!other.is_alive(), "the pid is somebody else's");
        assert!(other.open().unwrap().is_none());
        let earlier = ProcessId {
            boot_id: "another boot".to_owned(),
            ..me
        };
        assert!(!earlier.is_alive());
    }

    #[test]
    fn a_child_is_found_by_its_mark_and_signalled() {
        let mark = format!("test-{}", std::process::id());
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .env(INSTANCE_VARIABLE, &mark)
            .spawn()
            .unwrap();
        // `exec` may not have happened yet.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while of_instance(&mark).is_empty() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(of_instance(&mark), [child.id()]);
        let id = ProcessId::of(child.id()).unwrap();
        assert!(id.signal(Signal::KILL).unwrap());
        child.wait().unwrap();
        assert!(!id.is_alive());
        assert!(!id.signal(Signal::KILL).unwrap());
    }
}
