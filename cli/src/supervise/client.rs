//! What commands know of the supervisor, and how they start, reload and stop it.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use packaging::files::{self, PUBLIC, read_optional, write_atomic};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::machine::{Report, Stage};
use super::spec::Spec;
use crate::instance::Paths;
use crate::procfs::{INSTANCE_VARIABLE, ProcessId};

/// What the supervisor last wrote about its processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Which specification it is about.
    pub generation: u64,
    /// Every process.
    pub processes: Vec<Report>,
}

impl Status {
    /// Writes it, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), files::Error> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        write_atomic(path, &bytes, PUBLIC)
    }

    /// Reads it; `None` when there is none or it is unreadable.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&read_optional(path).ok()??).ok()
    }

    /// One process.
    pub fn of(&self, name: &str) -> Option<&Report> {
        self.processes.iter().find(|p| p.name == name)
    }
}

/// Why the supervisor could not be commanded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started or signalled.
    #[error("{action} the supervisor: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// It did not do what it should in time.
    #[error("the supervisor did not {what} within {seconds} s; its log is {log}")]
    Timeout {
        /// What.
        what: &'static str,
        /// How long was waited.
        seconds: u64,
        /// Its log.
        log: std::path::PathBuf,
    },
    /// It ended.
    #[error("the supervisor ended; its log, {log}, ends with:\n{tail}")]
    Ended {
        /// Its log.
        log: std::path::PathBuf,
        /// The last lines.
        tail: String,
    },
    /// The specification.
    #[error(transparent)]
    Spec(#[from] super::spec::Error),
}

/// The supervisor of an instance.
#[derive(Debug, Clone)]
pub struct Supervisor<'a> {
    paths: &'a Paths,
}

impl<'a> Supervisor<'a> {
    /// The supervisor of the instance with these paths.
    pub fn new(paths: &'a Paths) -> Self {
        Self { paths }
    }

    /// Its process, while it runs.
    pub fn process(&self) -> Option<ProcessId> {
        self.paths.supervisor().filter(ProcessId::is_alive)
    }

    /// What it last said; only meaningful while it runs.
    pub fn status(&self) -> Option<Status> {
        Status::read(&self.paths.status())
    }

    /// Gives it a specification, and starts it when it does not run.
    pub fn apply(&self, spec: &Spec, instance: &str) -> Result<(), Error> {
        spec.write(&self.paths.spec())?;
        if let Some(process) = self.process() {
            let reloaded = process
                .signal(Signal::HUP)
                .map_err(|source| Error::System {
                    action: "reload",
                    source,
                })?;
            if reloaded {
                return Ok(());
            }
        }
        self.start(instance)
    }

    fn start(&self, instance: &str) -> Result<(), Error> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let system = |source| Error::System {
            action: "start",
            source,
        };
        let log_path = self.paths.log("supervisor");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(&log_path)
            .map_err(system)?;
        let mut child = Command::new(std::env::current_exe().map_err(system)?)
            .args(["dev", "supervise", "--state-dir"])
            .arg(self.paths.state())
            .arg("--run-root")
            .arg(self.paths.run_root())
            // Found by it when its record is lost.
            .env(INSTANCE_VARIABLE, instance)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(system)?)
            .stderr(log)
            .spawn()
            .map_err(system)?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.process().is_some_and(|p| p.pid == child.id()) {
                return Ok(());
            }
            if child.try_wait().map_err(system)?.is_some() {
                // Another one may have been faster.
                if self.process().is_some() {
                    return Ok(());
                }
                return Err(self.ended());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Error::Timeout {
            what: "start",
            seconds: PATIENCE.as_secs(),
            log: log_path,
        })
    }

    fn ended(&self) -> Error {
        let log = self.paths.log("supervisor");
        let tail = super::logs::tail(&log, 10).unwrap_or_default().join("\n");
        Error::Ended { log, tail }
    }

    /// Waits until a process is ready. `on_wait` is told why it is not, again and again.
    pub fn wait_ready(
        &self,
        generation: u64,
        name: &str,
        deadline: Instant,
        mut on_wait: impl FnMut(Option<&Report>),
    ) -> Result<bool, Error> {
        loop {
            if self.process().is_none() {
                return Err(self.ended());
            }
            let status = self.status().filter(|s| s.generation >= generation);
            let report = status.as_ref().and_then(|s| s.of(name));
            if report.is_some_and(|r| r.stage == Stage::Ready) {
                return Ok(true);
            }
            on_wait(report);
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops everything that it supervises, and it. Returns whether it ran.
    pub fn stop(&self, patience: Duration) -> Result<bool, Error> {
        let Some(process) = self.process() else {
            return Ok(false);
        };
        process
            .signal(Signal::TERM)
            .map_err(|source| Error::System {
                action: "stop",
                source,
            })?;
        let begun = Instant::now();
        while process.is_alive() {
            if begun.elapsed() >= patience {
                return Err(Error::Timeout {
                    what: "stop everything",
                    seconds: patience.as_secs(),
                    log: self.paths.log("supervisor"),
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(true)
    }
}
