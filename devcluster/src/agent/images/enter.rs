//! The process that enters a container's root file system and becomes its command: this very
//! program, started by the container's init process or by the command executor. It must not have
//! started any thread.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, dup2_stdin, setgid, setgroups, setuid};
use serde::{Deserialize, Serialize};

use super::rootfs::Rootfs;
use crate::agent::container::start::{Process, told};

/// Where a command is to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In a root file system that is entered now.
    New(Rootfs),
    /// Where this process, a command that was started so, is.
    Of(u32),
}

/// What is told on standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnterSpec {
    /// Where.
    pub place: Place,
    /// What is to run there.
    pub process: Process,
}

impl EnterSpec {
    /// As it is told.
    pub fn message(&self) -> io::Result<Vec<u8>> {
        let mut message = serde_json::to_vec(self)?;
        message.push(b'\n');
        Ok(message)
    }

    /// The process that is told it, not started yet. Its output is the caller's.
    pub fn command(helper: &[String]) -> io::Result<Command> {
        let (program, rest) = helper
            .split_first()
            .ok_or_else(|| io::Error::other("no helper program is configured"))?;
        let mut command = Command::new(program);
        command.args(rest).env_clear().stdin(Stdio::piped());
        Ok(command)
    }

    /// Tells a process that was started so.
    pub fn tell(&self, stdin: Option<std::process::ChildStdin>) -> io::Result<()> {
        let mut stdin = stdin.ok_or_else(|| io::Error::other("the process has no input"))?;
        stdin.write_all(&self.message()?)
    }
}

/// Runs as that process. Returns only by ending the process.
pub fn main() -> ! {
    let failed = match run() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    eprintln!("Failed to start the container's command: {failed}");
    std::process::exit(1)
}

enum Never {}

fn run() -> Result<Never, String> {
    let spec: EnterSpec = told()?.ok_or("whoever started it is gone")?;
    let process = &spec.process;
    match &spec.place {
        Place::New(rootfs) => rootfs.enter().map_err(|e| e.to_string())?,
        Place::Of(pid) => join(*pid)?,
    }
    let directory = process.directory.display();
    nix::unistd::chdir(&process.directory)
        .map_err(|e| format!("Failed to chdir into '{directory}': {e}"))?;
    let null = std::fs::File::open("/dev/null").map_err(|e| format!("open /dev/null: {e}"))?;
    dup2_stdin(&null).map_err(|e| format!("close standard input: {e}"))?;
    if let Some((uid, gid)) = process.user {
        let become_user = || {
            setgroups(&[Gid::from_raw(gid)])?;
            setgid(Gid::from_raw(gid))?;
            setuid(Uid::from_raw(uid))
        };
        become_user().map_err(|e| format!("become user {uid}: {e}"))?;
    }
    let error = process.command().exec();
    let program = &process.line.program;
    Err(format!("Failed to execute '{program}': {error}"))
}

/// Enters the mount namespace of a command, and with it its root.
fn join(pid: u32) -> Result<(), String> {
    let failed = |e: io::Error| format!("enter the container of process {pid}: {e}");
    if !has_entered(pid).map_err(failed)? {
        return Err(format!("process {pid} is still being started"));
    }
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/mnt")).map_err(failed)?;
    setns(namespace, CloneFlags::CLONE_NEWNS).map_err(|e| failed(e.into()))
}

/// Whether a process has become its command: until then it is this very program.
fn has_entered(pid: u32) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &str| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    Ok(identity(&format!("/proc/{pid}/exe"))? != identity("/proc/self/exe")?)
}
