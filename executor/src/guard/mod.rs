//! The guard: a small process outside the executor's container that outlives the executor by
//! the time it takes to clean up.
//!
//! It reads the manifest's owner line, waits on a pidfd of that process, and when it has ended
//! kills the executor's cgroups and removes what the manifest lists ([`clean`]). It is one
//! thread, makes few allocations and keeps none, since every node pays for it.

pub mod clean;
pub mod manifest;
mod mounts;

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use manifest::{Manifest, ManifestError, Owner};

/// First argument of the guard's command line.
pub const SUBCOMMAND: &str = "guard";
/// First argument of the process that detaches the guard.
pub const DETACH: &str = "guard-detach";
/// What the guard says when it watches.
const READY: &str = "watching\n";

/// Why there is no guard.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A system call failed.
    #[error("{action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// It did not say that it watches.
    #[error("the guard did not start; see {0}")]
    NotWatching(PathBuf),
    /// Its command line.
    #[error("usage: k8sm-executor guard <manifest> [<cgroup directory>...]")]
    Usage,
}

fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> GuardError {
    move |source| GuardError::Io { action, source }
}

/// The guard of that manifest, if one watches already: after the executor's `exec`.
pub fn find(manifest: &Path) -> Option<OwnedFd> {
    let text = std::fs::read_to_string(manifest::beside(manifest, "guard")).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let pid: i32 = pid.parse().ok()?;
    let fd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    (manifest::start_time(pid) == started.parse().ok()).then_some(fd)
}

/// Starts the guard, detached from the executor (its parent is init, its session its own), and
/// waits until it watches. Returns a pidfd of it.
pub async fn start(
    program: &Path,
    manifest: &Path,
    cgroups: &[PathBuf],
    log: &Path,
) -> Result<OwnedFd, GuardError> {
    let log_file = std::fs::File::create(log).map_err(io("opening the guard's log"))?;
    let mut args: Vec<OsString> = vec![DETACH.into(), manifest.into()];
    args.extend(cgroups.iter().map(OsString::from));
    let child = tokio::process::Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", search_path())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file)
        .kill_on_drop(true)
        .spawn()
        .map_err(io("starting the guard"))?;
    let output = tokio::time::timeout(std::time::Duration::from_secs(10), child.wait_with_output())
        .await
        .map_err(|_| GuardError::NotWatching(log.to_owned()))?
        .map_err(io("waiting for the guard"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let raw = text
        .strip_suffix(READY)
        .and_then(|rest| rest.trim().parse::<i32>().ok())
        .ok_or_else(|| GuardError::NotWatching(log.to_owned()))?;
    let pid = Pid::from_raw(raw).ok_or_else(|| GuardError::NotWatching(log.to_owned()))?;
    let fd =
        pidfd_open(pid, PidfdFlags::empty()).map_err(|e| io("watching the guard")(e.into()))?;
    if let Some(started) = manifest::start_time(raw) {
        std::fs::write(
            manifest::beside(manifest, "guard"),
            format!("{raw} {started}"),
        )
        .map_err(io("noting the guard"))?;
    }
    Ok(fd)
}

/// Where `ip`, `nft` and `iptables` are; an agent's PATH may lack the sbin directories.
fn search_path() -> OsString {
    const SYSTEM: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    match std::env::var_os("PATH") {
        Some(mut path) if !path.is_empty() => {
            path.push(":");
            path.push(SYSTEM);
            path
        }
        _ => SYSTEM.into(),
    }
}

/// The process in between: a session of its own, starts the guard, prints its pid and ends, so
/// that the guard's parent is init.
pub fn detach(args: &[OsString]) -> Result<(), GuardError> {
    // Fails only for a process group's leader, which has left the session in any case.
    let _ = rustix::process::setsid();
    let program = std::env::current_exe().map_err(io("finding the own program"))?;
    #[allow(
        clippy::zombie_processes,
        reason = "the guard outlives this process on purpose; init reaps it"
    )]
    let mut child = Command::new(program)
        .arg(SUBCOMMAND)
        .args(args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(io("starting the guard"))?;
    let mut said = String::new();
    if let Some(mut out) = child.stdout.take() {
        std::io::Read::read_to_string(&mut out, &mut said).map_err(io("reading from the guard"))?;
    }
    let mut out = std::io::stdout();
    write!(out, "{} {said}", child.id()).map_err(io("answering"))?;
    out.flush().map_err(io("answering"))
}

/// The guard itself. Returns when everything is clean.
pub fn run(args: &[OsString]) -> Result<(), GuardError> {
    let [manifest, cgroups @ ..] = args else {
        return Err(GuardError::Usage);
    };
    let manifest = PathBuf::from(manifest);
    for dir in cgroups {
        // Out of the executor's container, so that Mesos can remove it.
        let _ = std::fs::write(Path::new(dir).join("cgroup.procs"), "0");
    }
    let owner = manifest::read_owner(&manifest)?;
    let executor = owner.as_ref().and_then(open_owner);
    crate::slim::slim();
    say_ready().map_err(io("answering"))?;
    if let Some(executor) = executor {
        wait_for_end(&executor).map_err(io("waiting for the executor's end"))?;
    }
    // Its own cgroup may be part of what is to be removed.
    leave_cgroups(cgroups);
    // A successor that already sweeps holds the lock; then there is nothing left to do.
    let remaining = Manifest::clean(&manifest, owner.as_ref())?;
    leave_cgroups(cgroups);
    for what in remaining {
        // Nobody may read this any more; that is no reason to fail.
        let _ = writeln!(std::io::stderr(), "could not be removed: {what}");
    }
    Ok(())
}

/// Standard output becomes `/dev/null`, which tells the reader at the other end that all is said.
fn say_ready() -> std::io::Result<()> {
    {
        let mut out = std::io::stdout().lock();
        out.write_all(READY.as_bytes())?;
        out.flush()?;
    }
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// A pidfd of the owner, if that very process still lives.
fn open_owner(owner: &Owner) -> Option<OwnedFd> {
    let pid = Pid::from_raw(owner.pid)?;
    let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    owner.alive().then_some(fd)
}

fn wait_for_end(process: &OwnedFd) -> std::io::Result<()> {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Moves to the root cgroups and removes the own ones and, where empty, their parents.
fn leave_cgroups(cgroups: &[OsString]) {
    for dir in cgroups {
        let dir = Path::new(dir);
        // `<mount>/k8sm/<container id>/guard`
        if let Some(mount) = dir.ancestors().nth(3) {
            let _ = std::fs::write(mount.join("cgroup.procs"), "0");
        }
        for level in dir.ancestors().take(3) {
            let _ = std::fs::remove_dir(level);
        }
    }
}
