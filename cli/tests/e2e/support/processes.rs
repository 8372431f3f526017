//! Processes of a test's cluster, found by the folder that their command lines or environments
//! name, and killed.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A process.
#[derive(Debug, Clone)]
pub struct Process {
    pub pid: i32,
    /// Its command line, words joined by blanks.
    pub line: String,
    environment: String,
}

impl Process {
    /// File name of what it runs.
    pub fn program(&self) -> &str {
        let first = self.line.split(' ').next().unwrap_or_default();
        first.rsplit('/').next().unwrap_or_default()
    }

    /// Whether its environment has this variable with this value.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.environment
            .split('\0')
            .any(|it| it.strip_prefix(name).and_then(|it| it.strip_prefix('=')) == Some(value))
    }

    /// Sends it a signal; it may have ended already.
    pub fn signal(&self, signal: Signal) {
        let _ = nix::sys::signal::kill(Pid::from_raw(self.pid), signal);
    }
}

/// All whose command line or environment names the folder, but for this very process.
pub fn naming(dir: &Path) -> Vec<Process> {
    let dir = dir.to_string_lossy();
    all()
        .filter(|it| it.line.contains(&*dir) || it.environment.contains(&*dir))
        .collect()
}

/// All whose environment has this variable with this value.
pub fn with_variable(name: &str, value: &str) -> Vec<Process> {
    all().filter(|it| it.has(name, value)).collect()
}

fn all() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok())
        .filter(|pid| *pid != std::process::id().cast_signed())
        .map(|pid| {
            let read = |name: &str| {
                let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            };
            Process {
                pid,
                line: read("cmdline").replace('\0', " "),
                environment: read("environ"),
            }
        })
}
