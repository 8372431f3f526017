//! Processes of the machine: who they are beyond a number that is used again, and how they end.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use tokio::io::Interest;

use crate::agent::watch::watch;

/// A process that is known beyond its pid, which the kernel uses again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Its pid.
    pub pid: u32,
    /// Clock ticks between the machine's boot and its start (field 22 of `/proc/<pid>/stat`).
    pub start_time: u64,
}

impl ProcessRef {
    /// The process that has this pid now.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self {
            pid,
            start_time: start_time(pid)?,
        })
    }

    /// Whether it still is that process.
    pub fn is_alive(self) -> bool {
        start_time(self.pid).is_ok_and(|start| start == self.start_time)
            && !matches!(stat_field(self.pid, 0).as_deref(), Ok("Z" | "X"))
    }

    /// Waits until it has ended.
    pub async fn ended(self) -> io::Result<()> {
        let Some(fd) = self.open()? else {
            return Ok(());
        };
        let fd = watch(fd, Interest::READABLE)?;
        // A pidfd is readable once its process has ended.
        let _ready = fd.readable().await?;
        Ok(())
    }

    fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        else {
            return Ok(None);
        };
        match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK) {
            // Checked after opening: from here on the descriptor names one process for good.
            Ok(fd) if self.is_alive() => Ok(Some(fd)),
            Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// When a process started, in clock ticks after boot.
pub fn start_time(pid: u32) -> io::Result<u64> {
    stat_field(pid, 19)?
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "start time is no number"))
}

/// The field of `/proc/<pid>/stat` that is `index` places after the command name (0: state,
/// 1: parent, 2: process group, 3: session, 11: user ticks, 12: system ticks, 19: start time,
/// 21: resident pages).
pub fn stat_field(pid: u32, index: usize) -> io::Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    field_of(&stat, index)
        .map(str::to_owned)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "short /proc/<pid>/stat"))
}

/// The same on text that was read before. The command name may itself hold spaces and
/// parentheses, so counting starts after the last closing one.
pub fn field_of(stat: &str, index: usize) -> Option<&str> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(index)
}

/// Every process of the machine with its `/proc/<pid>/stat`.
pub fn all() -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)))
        .collect()
}

/// Sends SIGKILL; a process that is gone already is fine.
pub fn kill(pid: u32) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_the_same_pid_but_another_start_is_another() {
        let me = ProcessRef::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        let other = ProcessRef {
            start_time: me.start_time + 1,
            ..me
        };
        assert!(!other.is_alive());
    }

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 7 8 9 0";
        assert_eq!(field_of(stat, 0), Some("S"));
        assert_eq!(field_of(stat, 3), Some("9"));
        assert_eq!(field_of(stat, 19), None);
    }

    #[tokio::test]
    async fn the_end_of_a_foreign_process_is_seen() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = ProcessRef::of(child.id()).unwrap();
        let ended = tokio::spawn(process.ended());
        child.kill().unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(10), ended)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        child.wait().unwrap();
        // And one that had ended before anybody waited.
        process.ended().await.unwrap();
    }
}
