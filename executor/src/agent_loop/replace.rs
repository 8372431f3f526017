//! The executor replaces itself: `exec` of its program, keeping its pid, its children, its
//! namespaces and its place in Mesos. The framework asks for it with another revision; SIGHUP does,
//! after a new program was put in place by hand.

use std::ffi::OsString;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rustix::fs::MemfdFlags;

use super::Loop;
use crate::core::{Core, Event};

/// The hidden option that names the open file with the predecessor's state.
pub const RESUME: &str = "--resume-fd";

/// First argument of the program that is asked whether it can go on from a predecessor's state,
/// which it reads from its standard input.
pub const CHECK_HANDOVER: &str = "check-handover";

/// The answer to that: whether the state can be read.
pub fn check_handover() -> Result<(), String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| format!("reading the state: {error}"))?;
    Core::resume([0; 32], &bytes)
        .map(drop)
        .map_err(|error| error.to_string())
}

impl Loop {
    /// Replaces the executor as soon as that is safe: not while the agent is away (one that comes
    /// back kills executors that are not there within seconds), and not while the node comes up
    /// or goes. Called again until it is done.
    pub(super) fn replace_when_safe(&mut self) {
        // What was said before must have been said: `exec` cuts off calls that are under way.
        let silent = Arc::strong_count(&self.under_way) == 1;
        if !self.replacement_wanted || !self.subscribed || !silent {
            return;
        }
        let Ok(bytes) = self.core.hand_over() else {
            return;
        };
        self.replacement_wanted = false;
        let placed = match (self.program.take(), own_program()) {
            (Some(new), Ok(place)) => std::fs::rename(new, place),
            (Some(_), Err(error)) => Err(error),
            (None, _) => Ok(()),
        };
        // `exec` returns only if it failed; then everything goes on as before.
        let error = placed.map_or_else(|error| error, |()| exec(&bytes));
        tracing::error!("replacing the executor: {error}");
        self.event(Event::NotReplaced(format!(
            "the executor could not replace itself: {error}"
        )));
    }
}

fn exec(bytes: &[u8]) -> io::Error {
    let attempt = || -> io::Result<io::Error> {
        // No CLOEXEC: the successor reads it. Anonymous: it holds a token.
        let fd = rustix::fs::memfd_create("k8sm-executor-state", MemfdFlags::empty())?;
        let mut file = std::fs::File::from(fd);
        file.write_all(bytes)?;
        file.rewind()?;
        let program = own_program()?;
        let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
        if let Some(at) = args.iter().position(|arg| arg == RESUME) {
            args.drain(at..(at + 2).min(args.len()));
        }
        args.push(RESUME.into());
        args.push(file.as_raw_fd().to_string().into());
        tracing::info!("replacing the executor by {}", program.display());
        Ok(Command::new(program).args(args).exec())
    };
    attempt().unwrap_or_else(|error| error)
}

/// The path that this program was started from; a new file may be there by now.
pub(super) fn own_program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    Ok(text
        .strip_suffix(" (deleted)")
        .map_or_else(|| path.clone(), PathBuf::from))
}

/// The predecessor's state, from the file that it left open.
pub fn resume_bytes(fd: i32) -> io::Result<Vec<u8>> {
    // Only a memfd of that name is taken: the number comes from the command line.
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"))?;
    if !link.to_string_lossy().contains("memfd:k8sm-executor-state") {
        return Err(io::Error::other("that file is not a predecessor's state"));
    }
    // SAFETY: the descriptor is open (its link was read) and, by its name, the one that the
    // predecessor made for us; nobody else in this fresh process owns it.
    #[allow(unsafe_code)]
    let mut file = unsafe { std::fs::File::from_raw_fd(fd) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
