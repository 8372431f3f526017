//! One process: starting it inside its cgroups, waiting for its end, ending it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use super::Settings;
use super::log;
use super::record::Record;
use crate::component::Component;
use crate::guard::manifest::start_time;
use crate::pidfd::PidFd;

/// First argument of the process that joins cgroups and becomes a component.
pub const LAUNCH: &str = "launch";

/// Why a component's process could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its command line.
    #[error(
        "usage: k8sm-executor launch <cgroup directories, ':' between> <program> [<argument>...]"
    )]
    Usage,
    /// A cgroup could not be joined.
    #[error("joining cgroup {path}: {source}")]
    Join {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The program could not be executed.
    #[error("executing {path}: {source}")]
    Exec {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The process in between: joins the cgroups, then becomes the program. Returns only if that
/// failed.
pub fn launch(args: &[OsString]) -> LaunchError {
    let [cgroups, program, rest @ ..] = args else {
        return LaunchError::Usage;
    };
    let cgroups = cgroups.as_encoded_bytes();
    for dir in cgroups.split(|b| *b == b':').filter(|dir| !dir.is_empty()) {
        let dir = Path::new(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(dir));
        if let Err(source) = std::fs::write(dir.join("cgroup.procs"), "0") {
            return LaunchError::Join {
                path: dir.to_owned(),
                source,
            };
        }
    }
    let source = Command::new(program).args(rest).exec();
    LaunchError::Exec {
        path: PathBuf::from(program),
        source,
    }
}

/// A running process of ours, held by pidfd.
pub struct Process {
    fd: PidFd,
    /// For people and for the record.
    pub record: Record,
}

impl Process {
    /// Starts the component's process. It has a process group of its own, so a signal to the
    /// executor's group does not reach it.
    pub fn start(
        component: &Component,
        settings: &Settings,
        definition: String,
    ) -> io::Result<Self> {
        let out = log::open(&settings.logs.join(format!("{}.log", component.name)))?;
        let cgroups = settings
            .cgroups
            .iter()
            .map(|dir| dir.as_os_str())
            .collect::<Vec<&OsStr>>()
            .join(OsStr::new(":"));
        #[allow(
            clippy::zombie_processes,
            reason = "waited for by pidfd, also by a successor after exec"
        )]
        let child = Command::new(&settings.launcher)
            .arg(LAUNCH)
            .arg(cgroups)
            .arg(&component.program)
            .args(&component.args)
            .env_clear()
            .envs(component.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&component.cwd)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()?;
        let pid = child.id().cast_signed();
        Self::hold(Record {
            pid,
            // Gone already: reported as its end in a moment.
            start_time: start_time(pid).unwrap_or(0),
            definition,
        })
    }

    /// Takes hold of a process that runs.
    pub fn hold(record: Record) -> io::Result<Self> {
        let pid = Pid::from_raw(record.pid)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let fd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        let fd = PidFd::new(fd)?;
        Ok(Self { fd, record })
    }

    /// Waits for its end and says in words how it ended.
    pub async fn end(&self) -> String {
        loop {
            let mut ready = match self.fd.ended().await {
                Ok(ready) => ready,
                Err(error) => return format!("it was lost: {error}"),
            };
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            match waitid(WaitId::PidFd(self.fd.as_fd()), options) {
                Ok(Some(status)) => {
                    return match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => format!("it ended with exit status {code}"),
                        (None, Some(signal)) => format!("it was ended by signal {signal}"),
                        (None, None) => "it ended".to_owned(),
                    };
                }
                Ok(None) | Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                // Not our child (any more).
                Err(_) => return "it ended".to_owned(),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        // It may have ended since.
        let _ = pidfd_send_signal(&self.fd, signal);
    }

    /// Asks it to end, waits for `grace`, then kills it.
    pub async fn stop(&self, grace: Duration) -> String {
        self.signal(Signal::TERM);
        if let Ok(how) = tokio::time::timeout(grace, self.end()).await {
            return how;
        }
        self.signal(Signal::KILL);
        // A process in uninterruptible sleep ends later; it must not hold up everything else.
        tokio::time::timeout(Duration::from_secs(10), self.end())
            .await
            .unwrap_or_else(|_| "it does not end, even killed".to_owned())
    }
}
