//! The first process of a container: this very program, started again by the agent.
//!
//! It leads a session of its own and does nothing until the agent has put it into its cgroups
//! and remembered its pid. Then it starts the command, waits for it, writes the wait status to
//! the runtime directory (an agent that was restarted in between reads it there), and ends the
//! same way the command ended. If the agent dies before it has said everything, it just ends.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::Stdio;

use serde::{Deserialize, Serialize};

use super::start::{Process, told};
use crate::agent::disk;
use crate::agent::images::enter::{EnterSpec, Place};
use crate::agent::images::rootfs::Rootfs;

/// What the agent tells the init process on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub struct InitSpec {
    /// The container's command.
    pub process: Process,
    /// Where the wait status goes.
    pub status: PathBuf,
    /// The root file system that the program is started in, and the program with its arguments
    /// that enters it; none for the agent's own.
    pub image: Option<(Rootfs, Vec<String>)>,
}

/// Runs as a container's init process. Returns only by ending the process.
pub fn main() -> ! {
    // A session of its own: without cgroups it is the session that is killed at the end.
    // It fails only for a process that leads a group already, as under some supervisors.
    let _ = nix::unistd::setsid();
    let spec = match told::<InitSpec>() {
        Ok(Some(spec)) => spec,
        // The agent is gone; nothing was started.
        Ok(None) => std::process::exit(1),
        Err(error) => {
            eprintln!("Failed to read the container's specification: {error}");
            std::process::exit(1);
        }
    };
    let status = match run(&spec) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("Failed to execute '{}': {error}", spec.process.line.program);
            std::process::ExitStatus::from_raw(1 << 8)
        }
    };
    let raw = status.into_raw();
    if let Err(error) = disk::write_atomic(&spec.status, raw.to_string().as_bytes()) {
        eprintln!("Failed to remember the wait status: {error}");
    }
    end_like(status)
}

fn run(spec: &InitSpec) -> std::io::Result<std::process::ExitStatus> {
    let process = &spec.process;
    if let Some((rootfs, helper)) = &spec.image {
        let enter = EnterSpec {
            place: Place::New(rootfs.clone()),
            process: process.clone(),
        };
        let mut child = EnterSpec::command(helper)?.spawn()?;
        enter.tell(child.stdin.take())?;
        return child.wait();
    }
    std::env::set_current_dir(&process.directory)?;
    let mut command = process.command();
    command.stdin(Stdio::null());
    if let Some((uid, gid)) = process.user {
        command.uid(uid).gid(gid);
    }
    command.spawn()?.wait()
}

/// Ends this process the way another has ended, so that whoever waits sees the same status.
fn end_like(status: std::process::ExitStatus) -> ! {
    if let Some(signal) = status.signal() {
        // No second core file for the same crash.
        let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
        if let Ok(signal) = nix::sys::signal::Signal::try_from(signal) {
            let _ = nix::sys::signal::raise(signal);
        }
        // The signal was ignored: say it the way shells do.
        std::process::exit(128 + signal);
    }
    std::process::exit(status.code().unwrap_or(1))
}
